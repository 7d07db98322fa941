"""Add up what answers have used: tokens, costs, seconds, and prompts that the endpoint cut."""

from __future__ import annotations

import random
from collections.abc import Callable

from rare_assets.teacher.interface import Answer, Usage

_LATENCIES_KEPT = 10_000


class Tally:
    """Count the answers of an endpoint.

    Args:
        cost: returns the US dollars of prompt and completion tokens; None without a price.
        has_price: the model has a price.
        say: called with a sentence for people about the first prompt that was cut.
        name: of the endpoint, for people.

    Attributes:
        usage: what was counted; requests and their faults are counted by who sends them.
    """

    def __init__(
        self,
        cost: Callable[[float, float], float | None],
        *,
        has_price: bool,
        say: Callable[[str], None],
        name: str,
    ) -> None:
        self._cost = cost
        self._say = say
        self._name = name
        self._rng = random.Random()
        free = 0.0 if has_price else None
        self.usage = Usage(cost_usd=free, reused_cost_usd=free)

    def count(self, answer: Answer) -> float | None:
        """Count a new answer; returns its cost in US dollars, None without a price."""
        usage = self.usage
        usage.answered += 1
        usage.retries += answer.attempt > 0
        usage.estimated += answer.estimated
        self._note_cut(answer)
        usage.prompt_tokens += answer.prompt_tokens
        usage.completion_tokens += answer.completion_tokens
        cost = self._cost(answer.prompt_tokens, answer.completion_tokens)
        if usage.cost_usd is not None and cost is not None:
            usage.cost_usd += cost
        if len(usage.latencies_s) < _LATENCIES_KEPT:
            usage.latencies_s.append(answer.latency_s)
        else:  # reservoir sampling: every answer so far has the same chance to be in the sample
            place = self._rng.randrange(usage.answered)
            if place < _LATENCIES_KEPT:
                usage.latencies_s[place] = answer.latency_s
        return cost

    def count_reused(self, answer: Answer) -> None:
        """Count an answer that came from storage."""
        usage = self.usage
        usage.answers_reused += 1
        self._note_cut(answer)
        usage.reused_prompt_tokens += answer.prompt_tokens
        usage.reused_completion_tokens += answer.completion_tokens
        cost = self._cost(answer.prompt_tokens, answer.completion_tokens)
        if usage.reused_cost_usd is not None and cost is not None:
            usage.reused_cost_usd += cost

    def _note_cut(self, answer: Answer) -> None:
        if not answer.cut_prompt:
            return
        self.usage.cut_prompts += 1
        if self.usage.cut_prompts == 1:
            self._say(
                f"{self._name} says that it read {answer.prompt_tokens:,} tokens of a prompt of about twice as many "
                "or more: it cut the prompt, and may not have seen the gold document. Raise its window "
                "(Ollama: num_ctx; llama.cpp: -c; vLLM: --max-model-len), or set max_context_tokens of "
                "reasoning; then run with refresh, since these answers are stored."
            )
