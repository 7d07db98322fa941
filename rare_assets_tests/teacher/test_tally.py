"""What answers have used, counted."""

from dataclasses import replace

from rare_assets.teacher.interface import Answer, Usage
from rare_assets.teacher.tally import Tally


def answer(**given):
    plain = Answer(
        content="a",
        thinking=None,
        finish_reason="stop",
        refusal=None,
        model="m",
        prompt_tokens=100,
        completion_tokens=10,
        attempt=0,
        latency_s=1.5,
        reused=False,
    )
    return replace(plain, **given)


def tally(price=0.5, said=None):
    def cost(prompt, completion):
        return None if price is None else price * (prompt + completion)

    say = (said if said is not None else []).append
    return Tally(cost, has_price=price is not None, say=say, name="the endpoint")


def test_new_answers_and_those_from_storage_are_counted_apart():
    counted = tally()
    assert counted.count(answer(attempt=1, estimated=True)) == 55.0
    counted.count_reused(answer(prompt_tokens=1, completion_tokens=1))
    assert counted.usage == Usage(
        answered=1,
        retries=1,
        estimated=1,
        prompt_tokens=100,
        completion_tokens=10,
        cost_usd=55.0,
        latencies_s=[1.5],
        answers_reused=1,
        reused_prompt_tokens=1,
        reused_completion_tokens=1,
        reused_cost_usd=1.0,
    )


def test_without_a_price_nothing_has_a_cost():
    counted = tally(price=None)
    assert counted.count(answer()) is None
    counted.count_reused(answer())
    assert (counted.usage.cost_usd, counted.usage.reused_cost_usd) == (None, None)


def test_latencies_are_a_sample_of_all_answers():
    counted = tally()
    for number in range(10_050):
        counted.count(answer(latency_s=float(number)))
    kept = counted.usage.latencies_s
    assert (len(kept), len(set(kept)), counted.usage.answered) == (10_000, 10_000, 10_050)


def test_a_person_is_told_once_of_cut_prompts():
    said = []
    counted = tally(said=said)
    for each in (counted.count, counted.count_reused, counted.count):
        each(answer(cut_prompt=True))
    assert counted.usage.cut_prompts == 3
    (line,) = said
    assert line.startswith("the endpoint says that it read 100 tokens of a prompt")
