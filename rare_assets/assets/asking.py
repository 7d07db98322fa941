"""What the assets that ask the teacher share: options, how they ask, their usage as metadata."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal, TypeVar

import dagster as dg
import polars as pl

from rare_assets.operators.judge import Judge
from rare_assets.operators.templates import Templates, load_templates
from rare_assets.resources.configurable import TeacherModel, judges_apart
from rare_assets.resources.instance_database import postgres_of
from rare_assets.resources.tags import BACKFILL_TAG, COMMAND_TAG
from rare_assets.schemas import Produced
from rare_assets.settings import Settings
from rare_assets.stages.provenance import UNANSWERED
from rare_assets.teacher import Ledger, Teacher, TeacherStopped, Usage

T = TypeVar("T")

MODEL_TAG, PROMPT_TAG = "rare_assets/model", "rare_assets/prompt"
# Dollars that a run has paid; of each asset its own, since a run that is launched again copies its tags.
COST_TAG = "rare_assets/cost_usd"
# The prompt that each asset asks with.
PROMPTS = {
    "questions": "doc2query",
    "hard_negatives": "judge_relevance",
    "reasoning": "reason_distill",
}
# Marks a failure that the next shard would meet as well.
TEACHER_STOPPED = "teacher_stopped"


def code_version(
    version: str, prompt: Literal["doc2query", "reason_distill"], prompts: str | None
) -> str:
    """An asset's code version with its prompt's fingerprint, so that another prompt shows as unsynced.

    Read once, when definitions load. Settings or templates that can't be used fail the run, with
    their own error, and never the loading.
    """
    try:
        templates = load_templates(prompts or Settings().prompts)
    except ValueError:
        return f"{version}+unusable"
    return f"{version}+{getattr(templates, prompt).fingerprint}"


def ask(
    context: dg.AssetExecutionContext,
    teacher: TeacherModel,
    operator: Callable[[Teacher, Judge], Coroutine[Any, Any, T]],
    *,
    refresh: bool = False,
    retry_rejects: bool = False,
    mode: str = "online",
    foresee: Callable[[int | None], str | None] | None = None,
    judge_at_once: bool = True,
    judging: TeacherModel | None = None,
) -> tuple[T, dict[str, Any]]:
    """Run an operator with an opened teacher and a judge. Returns what it gave, and the usage as
    metadata, that of the judge included.

    What it will cost is estimated and logged before the first request. A judge whose verdicts decide what
    is asked next (`judge_at_once`) is asked online: in batches each round of them would take a day.

    Args:
        judging: whom the judge asks, where a judge is asked and it may be another than `teacher`.
        foresee: what to tell a user of later stages, by the model's window, before this one pays.

    Raises:
        dg.Failure: the teacher stopped (endpoint dead, limit reached); its metadata has the usage.
    """
    templates = load_templates(teacher.prompts_folder)
    tag_run(context, teacher.name, templates)
    say = once(context.log.warning)
    how: dict[str, Any] = {"refresh": refresh, "retry_rejects": retry_rejects, "say": say}
    usage: dict[str, Any] = {}
    asks_judge = judging or teacher
    # A teacher of somebody's own class judges, too.
    apart = judging is not None and judges_apart(judging, teacher)

    async def work() -> tuple[T, dict[str, Any]]:
        nonlocal usage
        batch = mode == "batch"
        try:
            async with AsyncExitStack() as opened:
                ledger = ledger_of(context.run, context.instance, context.asset_key.path[-1])
                model = online = await opened.enter_async_context(
                    teacher.open(batch=batch, ledger=ledger, **how)
                )
                # A teacher of somebody's own need not know its window.
                window = await model.window() if hasattr(model, "window") else None
                known = {} if window is None else {"window": window}
                async with AsyncExitStack() as foreseeing:
                    estimating = judging_foreseen = await foreseeing.enter_async_context(
                        teacher.estimating(batch=batch, **known, **how)
                    )
                    if apart:
                        judging_foreseen = await foreseeing.enter_async_context(
                            asks_judge.estimating(**how)
                        )
                    await operator(estimating, judge_of(asks_judge, judging_foreseen, templates))
                    estimate = describe_estimate(_usage(estimating, judging_foreseen))
                    context.log.info(f"{context.partition_key}: {estimate}")
                    for said in (estimating.say_too_long(), foresee and foresee(window)):
                        if said:
                            say(f"{context.partition_key}: {said}")
                if apart or (batch and judge_at_once):
                    online = await opened.enter_async_context(asks_judge.open(ledger=ledger, **how))
                judge = judge_of(asks_judge, online, templates)
                try:
                    produced = await operator(model, judge)
                finally:
                    usage = usage_metadata(teacher.name, _usage(model, online))
                    if judge.unanswered:
                        usage[UNANSWERED] = judge.unanswered
                    tag_cost(context, usage["cost_usd"])
            return produced, usage
        except TeacherStopped as stopped:
            raise dg.Failure(
                str(stopped), {TEACHER_STOPPED: True, **usage}, allow_retries=False
            ) from stopped

    try:
        return wait_for(work())
    except BaseException as stopped:
        if usage and not isinstance(stopped, Exception):
            kept, reused = usage["new_answers"], usage["answers_reused"]
            context.log.warning(
                f"{context.partition_key}: stopped. {kept:,} new answers are stored, beside "
                f"{reused:,} of earlier runs; materialize the shard again to go on, none of them is "
                "paid for twice."
            )
        raise


def tag_run(context: dg.AssetExecutionContext, model: str, templates: Templates) -> None:
    """Tag the run with the model and the prompt that it asks, so that runs can be filtered by them.

    From within the step, so that it is there however the run was started.
    """
    asset = context.asset_key.path[-1]
    prompt = getattr(templates, PROMPTS[asset]).fingerprint
    context.instance.add_run_tags(
        context.run.run_id, {MODEL_TAG: model, f"{PROMPT_TAG}/{asset}": prompt}
    )


def tag_cost(context: dg.AssetExecutionContext, dollars: float | None) -> None:
    """Tag the run with what a step has paid; with nothing while the model's price is unknown."""
    if dollars is not None:
        tag = f"{COST_TAG}/{context.asset_key.path[-1]}"
        context.instance.add_run_tags(context.run.run_id, {tag: f"{dollars:.6f}"})


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """The same function, which leaves out lines that it was called with before."""
    said: set[str] = set()

    def say_once(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return say_once


def judge_of(teacher: TeacherModel, model: Teacher, templates: Templates) -> Judge:
    """A judge that asks `model`, in the words that decide which stored verdicts are its own."""
    return Judge(model, templates, max_tokens=teacher.max_tokens(None))


def _usage(model: Teacher, judging: Teacher) -> Usage:
    return model.usage if judging is model else model.usage + judging.usage


def ledger_of(run: dg.DagsterRun, instance: dg.DagsterInstance, stage: str) -> Ledger:
    """Where the limits on requests and cost are counted for a run: together with all runs of the
    same `rare-assets run` or backfill, or by itself."""
    scope = run.tags.get(COMMAND_TAG) or run.tags.get(BACKFILL_TAG) or run.run_id
    return ledger_in(instance, scope, stage)


def ledger_in(instance: dg.DagsterInstance, scope: str, stage: str) -> Ledger:
    """Where the limits are counted of all that names the same scope: on all hosts that share the
    instance's Postgres; with an instance that has none, on this machine."""
    file = Path(instance.storage_directory()) / "rare_assets_spent.sqlite3"
    return Ledger(postgres_of(instance) or file, scope, stage)


def describe_estimate(usage: Usage) -> str:
    """An estimate in one line: what is stored, what will be sent, what that costs."""
    cost = "unknown, no price" if usage.cost_usd is None else f"about ${usage.cost_usd:.4f}"
    return (
        f"{usage.answers_reused} answers are stored, {usage.requests} requests to send: about "
        f"{usage.prompt_tokens:,} prompt and {usage.completion_tokens:,} completion tokens, "
        f"cost {cost}"
    )


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from a step.

    The event loop has a thread of its own: a cancelled run interrupts the step's thread wherever it
    is, and an interrupt inside a loop would leave its tasks half-closed. So the work is cancelled
    from here, and ends in order, with every answer stored.
    """
    with (
        asyncio.Runner() as runner,
        concurrent.futures.ThreadPoolExecutor(1, "rare-teacher") as thread,
    ):
        loop = runner.get_loop()
        task = loop.create_task(work)
        done = thread.submit(loop.run_until_complete, task)
        try:
            return done.result()
        except BaseException:
            loop.call_soon_threadsafe(task.cancel)
            raise


def mean_attempts(produced: Produced) -> float | None:
    """Answers asked for until one could be used, or there was a reject; None without any."""
    attempts = pl.concat([produced.rows["attempts"], produced.rejects["attempts"]]).mean()
    return None if attempts is None else float(attempts)  # type: ignore[arg-type]


def usage_metadata(model: str, usage: Usage) -> dict[str, Any]:
    """A teacher's totals as metadata.

    The same keys whatever happened: what was not measured, or has no price, is null.
    """
    latencies = pl.Series(usage.latencies_s, dtype=pl.Float64)
    asked = usage.requests
    total = usage.prompt_tokens + usage.completion_tokens
    return {
        "model": model,
        "requests": asked,
        "new_answers": usage.answered,
        "answers_reused": usage.answers_reused,
        "answers_unreadable": usage.answers_unreadable,
        "retries": usage.retries,
        "rate_limited": usage.rate_limited,
        # Answers whose tokens, and so whose cost, the endpoint did not say.
        "estimated_answers": usage.estimated,
        # Answers to prompts of which the endpoint read too few tokens to have seen all of them.
        "cut_prompts": usage.cut_prompts,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total,
        "requests_per_second": round(asked / usage.seconds, 3) if usage.seconds else 0.0,
        # Without a new answer there is no latency, which null says and zero would not.
        "latency_p50_s": latencies.quantile(0.5),
        "latency_p95_s": latencies.quantile(0.95),
        # An unknown price is no cost shown: zero would be a wrong number.
        "cost_usd": usage.cost_usd,
        "reused_cost_usd": usage.reused_cost_usd,
        # Of every answer that the table rests on, whichever run has paid for it.
        "all_time_cost_usd": None
        if usage.cost_usd is None or usage.reused_cost_usd is None
        else usage.cost_usd + usage.reused_cost_usd,
    }
