"""Hold what the assets that ask the teacher share: how they ask, limits and tags, usage as metadata."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import dagster as dg
import polars as pl

from rare_assets.operators.templates import Templates, load_templates
from rare_assets.resources.instance_database import counted_alone, postgres_of
from rare_assets.resources.tags import BACKFILL_TAG, COMMAND_TAG
from rare_assets.schemas import Produced
from rare_assets.settings import Settings
from rare_assets.stages.asking import UNANSWERED, Asked, Asking, Operator
from rare_assets.stages.order import PROMPTS
from rare_assets.teacher import EstimatingTeacher, Ledger, TeacherStopped, Usage

T = TypeVar("T")

MODEL_TAG, PROMPT_TAG = "rare_assets/model", "rare_assets/prompt"
# Dollars that a run has paid; of each asset its own, since a run that is launched again copies its tags.
COST_TAG = "rare_assets/cost_usd"
# Marks a failure that the next shard would meet as well.
TEACHER_STOPPED = "teacher_stopped"


def code_version(version: str, prompt: str, prompts: str | None) -> str:
    """Return an asset's code version with its prompt's fingerprint: another prompt shows as
    unsynced.

    Read once, when definitions load. Settings or templates that can't be used fail the run, with
    their own error, and never the loading.

    Args:
        version: of the asset's own code.
        prompt: name of its template.
        prompts: folder of templates of its own; None for that of the settings, or the packaged ones.
    """
    try:
        templates = load_templates(prompts or Settings().prompts)
    except ValueError:
        return f"{version}+unusable"
    return f"{version}+{getattr(templates, prompt).fingerprint}"


class Sample(NamedTuple, Generic[T]):
    """An operator over some of the rows of a shard, and how many of how many they are."""

    operator: Operator[T]
    of: str


def ask(
    context: dg.AssetExecutionContext,
    asking: Asking,
    operator: Operator[T],
    *,
    sample: Sample[T] | None = None,
    refresh: bool = False,
    retry_rejects: bool = False,
    mode: str = "online",
    foresee: Callable[[int | None], str | None] | None = None,
) -> tuple[T, dict[str, Any]]:
    """Run an operator with an opened teacher and a judge. Return what it gave, and the usage as
    metadata, that of the judge included.

    What it will cost is estimated and logged before the first request. Where that is nothing, since every
    answer is stored, what the estimate made of those is the result. Else the operator runs twice over the
    same frames and makes each prompt twice: 4 to 10 % of the CPU time of asking, in place of memory or a
    file for all the prompts of a shard.

    Args:
        context: of the step.
        asking: whom the stage asks.
        operator: of the stage, with everything that it needs but whom it asks.
        sample: what is run in place of the operator for the estimate, where that would take long.
        refresh, retry_rejects, mode: see `AskingConfig`.
        foresee: what to tell a user of later stages, by the model's window, before this one pays.

    Raises:
        dg.Failure: the teacher stopped (endpoint dead, limit reached); its metadata has the usage.
    """
    tag_run(context, asking.teacher.name, asking.templates)
    say = once(context.log.warning)
    how: dict[str, Any] = {"refresh": refresh, "retry_rejects": retry_rejects, "say": say}
    # A teacher of somebody's own need not have limits.
    if getattr(asking.teacher, "limited", False) and (said := counted_alone(context.instance)):
        say(said)
    usage: dict[str, Any] = {}
    batch = mode == "batch"

    async def work() -> tuple[T, dict[str, Any]]:
        nonlocal usage
        ledger = ledger_of(context.run, context.instance, context.asset_key.path[-1])
        opened = asking.opened(lambda model: model, batch=batch, ledger=ledger, **how)
        try:
            async with opened as asked:
                # A teacher of somebody's own need not know its window.
                known = getattr(asked.teacher, "window", None)
                window = None if known is None else await known()
                async with asking.estimating(batch=batch, window=window, **how) as unasked:
                    produced = await _estimate(context, unasked, operator, sample, say)
                    if foresee and (said := foresee(window)):
                        say(f"{context.partition_key}: {said}")
                    if produced is not None:
                        usage = usage_metadata(asking.teacher.name, unasked.usage)
                        tag_cost(context, usage["cost_usd"])
                        return produced, usage
                try:
                    produced = await operator(asked.teacher, asked.judge)
                finally:
                    usage = usage_metadata(asking.teacher.name, asked.usage)
                    if asked.judge.unanswered:
                        usage[UNANSWERED] = asked.judge.unanswered
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
            _say_stopped(context, usage)
        raise


async def _estimate(
    context: dg.AssetExecutionContext,
    unasked: Asked[EstimatingTeacher],
    operator: Operator[T],
    sample: Sample[T] | None,
    say: Callable[[str], None],
) -> T | None:
    """Say what will be asked. Return the operator's result if that is nothing."""
    produced = await (sample.operator if sample else operator)(unasked.teacher, unasked.judge)
    of = f"of {sample.of}, " if sample else ""
    context.log.info(f"{context.partition_key}: {of}{describe_estimate(unasked.usage)}")
    if said := unasked.teacher.say_too_long():
        say(f"{context.partition_key}: {said}")
    if said := unasked.teacher.say_waiting():
        context.log.info(f"{context.partition_key}: {said}")
    # A judge apart is asked online, so that none of its verdicts waits.
    lacks = unasked.usage.requests or unasked.teacher.waiting
    # The teacher itself says what to do about prompts that were cut.
    return None if sample or lacks or unasked.usage.cut_prompts else produced


def _say_stopped(context: dg.AssetExecutionContext, usage: dict[str, Any]) -> None:
    context.log.warning(
        f"{context.partition_key}: stopped. {usage['new_answers']:,} new answers are stored, beside "
        f"{usage['answers_reused']:,} of earlier runs; materialize the shard again to go on, none of "
        "them is paid for twice."
    )


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
    """Tag the run with the USD that a step has paid; with nothing while the price is unknown."""
    if dollars is not None:
        tag = f"{COST_TAG}/{context.asset_key.path[-1]}"
        context.instance.add_run_tags(context.run.run_id, {tag: f"{dollars:.6f}"})


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return the same function, which leaves out lines that it was called with before."""
    said: set[str] = set()

    def say_once(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return say_once


def ledger_of(run: dg.DagsterRun, instance: dg.DagsterInstance, stage: str) -> Ledger:
    """Return where a run's limits on requests and cost are counted: together with all runs of the
    same `rare-assets run` or backfill, or by itself."""
    scope = run.tags.get(COMMAND_TAG) or run.tags.get(BACKFILL_TAG) or run.run_id
    return ledger_in(instance, scope, stage)


def ledger_in(instance: dg.DagsterInstance, scope: str, stage: str) -> Ledger:
    """Return where the limits are counted of all that names the same scope: on all hosts that share
    the instance's Postgres; with an instance that has none, on this machine."""
    file = Path(instance.storage_directory()) / "rare_assets_spent.sqlite3"
    return Ledger(postgres_of(instance) or file, scope, stage)


def describe_estimate(usage: Usage) -> str:
    """Return an estimate in one line: what is stored, what will be sent, what that costs in USD.

    >>> describe_estimate(Usage(requests=2, prompt_tokens=1800, completion_tokens=600, cost_usd=0.01))
    '0 answers are stored, 2 requests to send: about 1,800 prompt and 600 completion tokens, cost about $0.0100'
    """
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

    Raises:
        Whatever the coroutine raises, and the interrupt of a cancelled run.
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
    """Return the mean number of answers asked for until one could be used or was rejected; None
    without any."""
    attempts = pl.concat([produced.rows["attempts"], produced.rejects["attempts"]]).mean()
    return None if attempts is None else float(attempts)  # type: ignore[arg-type]


def usage_metadata(model: str, usage: Usage) -> dict[str, Any]:
    """Return a teacher's totals as metadata: counts, tokens, USD and seconds.

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
