"""What the two assets that ask the teacher share: their progress in the log, their usage as metadata."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import dagster as dg
import polars as pl
from dagster._core.storage.tags import BACKFILL_ID_TAG

from rare_assets.instance import COMMAND_TAG
from rare_assets.operators.templates import load_templates
from rare_assets.resources.configurable import TeacherModel
from rare_assets.resources.teacher.interface import Progress, Teacher, TeacherStopped, Usage
from rare_assets.resources.teacher.ledger import Ledger
from rare_assets.schemas import Produced
from rare_assets.settings import Settings

T = TypeVar("T")

LOG_SECONDS = 10
# Marks a failure that the next shard would meet as well.
TEACHER_STOPPED = "teacher_stopped"


def code_version(version: str, prompt: Literal["doc2query", "reason_distill"]) -> str:
    """An asset's code version with its prompt's fingerprint, so that another prompt shows as unsynced.

    Read once, when definitions load. Settings or templates that can't be used fail the run, with
    their own error, and never the loading.
    """
    try:
        templates = load_templates(Settings().prompts)
    except ValueError:
        return f"{version}+unusable"
    return f"{version}+{getattr(templates, prompt).fingerprint}"


def ask(
    context: dg.AssetExecutionContext,
    teacher: TeacherModel,
    operator: Callable[[Teacher], Coroutine[Any, Any, Produced]],
    *,
    refresh: bool,
    mode: str,
) -> tuple[Produced, dict[str, Any]]:
    """Run an operator with an opened teacher. Returns what it produced, and the usage as metadata.

    What it will cost is estimated and logged before the first request.

    Raises:
        dg.Failure: the teacher stopped (endpoint dead, limit reached); its metadata has the usage.
    """

    async def work() -> tuple[Produced, dict[str, Any]]:
        async with teacher.estimating(refresh=refresh, batch=mode == "batch") as estimating:
            await operator(estimating)
            context.log.info(f"{context.partition_key}: {describe_estimate(estimating.usage)}")
        async with teacher.open(
            refresh=refresh, batch=mode == "batch", ledger=ledger_of(context.run, context.instance)
        ) as model:
            try:
                produced = await operator(model)
            except TeacherStopped as stopped:
                usage = usage_metadata(teacher.name, model.usage)
                raise dg.Failure(
                    str(stopped), {TEACHER_STOPPED: True, **usage}, allow_retries=False
                ) from stopped
            return produced, usage_metadata(teacher.name, model.usage)

    return wait_for(work())


def ledger_of(run: dg.DagsterRun, instance: dg.DagsterInstance) -> Ledger:
    """Where the limits on requests and cost are counted for a run: together with all runs of the
    same `rare-assets run` or backfill on this machine, or by itself."""
    scope = run.tags.get(COMMAND_TAG) or run.tags.get(BACKFILL_ID_TAG) or run.run_id
    return Ledger(Path(instance.storage_directory()) / "rare_assets_spent.sqlite3", scope)


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
    with asyncio.Runner() as runner, ThreadPoolExecutor(1, "rare-teacher") as thread:
        loop = runner.get_loop()
        task = loop.create_task(work)
        done = thread.submit(loop.run_until_complete, task)
        try:
            return done.result()
        except BaseException:
            loop.call_soon_threadsafe(task.cancel)
            raise


def log_progress(context: dg.AssetExecutionContext, total: int) -> Callable[[Progress], None]:
    """A progress callback that logs a line at most every ten seconds: an event-log row each."""
    started = time.monotonic()
    said = started

    def progress(now: Progress) -> None:
        nonlocal said
        if time.monotonic() - said < LOG_SECONDS and now.done < total:
            return
        said = time.monotonic()
        usage = now.usage
        left = (said - started) / now.done * (total - now.done) if now.done else None
        cost = "" if usage.cost_usd is None else f", ${usage.cost_usd:.4f}"
        eta = "" if left is None else f", about {left:.0f} s left"
        context.log.info(
            f"{context.partition_key}: {now.done} of {total} done, {now.in_flight} in flight, "
            f"{usage.answers_reused} reused, {usage.retries} retries{cost}{eta}"
        )

    return progress


def usage_metadata(model: str, usage: Usage) -> dict[str, Any]:
    """A teacher's totals as metadata: dagster-openai's keys where it has them."""
    latencies = pl.Series(usage.latencies_s, dtype=pl.Float64)
    asked = usage.requests
    metadata: dict[str, Any] = {
        f"openai.{model}.calls": asked,
        f"openai.{model}.prompt_tokens": usage.prompt_tokens,
        f"openai.{model}.completion_tokens": usage.completion_tokens,
        f"openai.{model}.total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "model": model,
        "requests": asked,
        "answers_reused": usage.answers_reused,
        "retries": usage.retries,
        "rate_limited": usage.rate_limited,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "requests_per_second": asked / usage.seconds if usage.seconds else 0.0,
    }
    # Without a new answer there is no latency, which null says and zero would not.
    metadata["latency_p50_s"] = latencies.quantile(0.5)
    metadata["latency_p95_s"] = latencies.quantile(0.95)
    # An unknown price is no cost shown: zero would be a wrong number.
    if usage.cost_usd is not None:
        metadata["cost_usd"] = usage.cost_usd
    if usage.reused_cost_usd is not None:
        metadata["reused_cost_usd"] = usage.reused_cost_usd
    return metadata
