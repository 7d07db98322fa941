"""What a whole corpus would take, from what a sample of it took."""

from __future__ import annotations

import math
from typing import NamedTuple

import polars as pl

from rare_assets.pilot.trial import StageUse, Trial
from rare_assets.resources.configurable import TeacherModel
from rare_assets.settings import Settings
from rare_assets.stages.order import AFTER_DOCUMENTS, ASKING

# Of a normal distribution: so many standard errors around a mean hold it in 95 of 100 samples.
_Z = 1.96


class Projection(NamedTuple):
    """A whole corpus, by one configuration.

    `cost_usd` is None without a price. `margin` is the share by which tokens, and so cost, may be off
    either way (95 %), None for a sample of a single document. `seconds` holds while the endpoint answers
    `in_flight` requests as fast as it answered the sample; the `in_batches` stages that are asked in
    batches are not in it.
    """

    answers: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    paid_usd: float | None
    margin: float | None
    seconds: float
    in_flight: int
    in_batches: int


def project(
    trial: Trial, documents: pl.DataFrame, n_documents: int, n_shards: int
) -> Projection | None:
    """Return what all documents would take; None where the trial did not come to its end."""
    if trial.problem is not None or trial.configuration is None:
        return None
    factor = n_documents / documents.height
    teacher = trial.configuration.teacher
    in_flight, rates = _in_flight(teacher, n_documents, n_shards), _rates(teacher)
    stages = [stage for stage in AFTER_DOCUMENTS if stage in trial.use]
    uses = [trial.use[stage] for stage in stages]
    costs = [_cost(trial, stage) for stage in stages]
    options = trial.configuration.options
    online = [trial.use[stage] for stage in stages if not options.in_batches(stage)]
    paid = [use.cost_usd for use in uses]
    return Projection(
        round(factor * sum(use.answers for use in uses)),
        round(factor * sum(use.prompt_tokens for use in uses)),
        round(factor * sum(use.completion_tokens for use in uses)),
        None if None in costs else factor * math.fsum(c for c in costs if c is not None),
        None if None in paid else math.fsum(p for p in paid if p is not None),
        _margin(trial, documents, n_documents),
        math.fsum(factor * _seconds(use, in_flight, rates) for use in online),
        in_flight,
        len(uses) - len(online),
    )


def _cost(trial: Trial, stage: str) -> float | None:
    """Return what a stage took in USD, at the price of the way in which a run will ask."""
    use, configuration = trial.use[stage], trial.configuration
    assert configuration is not None, "it came to its end"
    if (
        use.cost_usd is None
        or use.online_usd is None
        or not configuration.options.in_batches(stage)
    ):
        return use.cost_usd
    factor = configuration.teacher.load_prices().batch_factor
    return (use.cost_usd - use.online_usd) * factor + use.online_usd


def _seconds(use: StageUse, in_flight: int, rates: tuple[float, float]) -> float:
    """Return the seconds of a stage with so many requests in flight, below the rates that are
    set."""
    if not use.answers:
        return 0.0
    latency = math.fsum(use.latencies_s) / max(len(use.latencies_s), 1)
    requests_s, tokens_s = rates
    tokens = use.prompt_tokens + use.completion_tokens
    return max(use.answers * latency / in_flight, use.answers * requests_s, tokens * tokens_s)


def _in_flight(teacher: TeacherModel, n_documents: int, n_shards: int) -> int:
    """Return the requests that a run has under way: those of a shard, times the shards at once."""
    shards = 1 if teacher.is_embedded else min(Settings().shards_at_once, n_shards)
    return max(1, min(teacher.in_flight * shards, n_documents))


def _rates(teacher: TeacherModel) -> tuple[float, float]:
    """Return the seconds that a request and a token take at least, by the rates that are set."""
    settings = Settings()
    requests = teacher.requests_per_minute or settings.requests_per_minute
    tokens = teacher.tokens_per_minute or settings.tokens_per_minute
    return 60 / requests if requests else 0.0, 60 / tokens if tokens else 0.0


def _margin(trial: Trial, documents: pl.DataFrame, n_documents: int) -> float | None:
    """Return 1.96 standard errors of the tokens a document takes, as a share of their mean."""
    n = documents.height
    if n < 2:
        return None
    frames = [
        frame.select("doc_id", tokens=pl.col("prompt_tokens") + pl.col("completion_tokens"))
        for stage in ASKING
        for frame in trial.produced[stage]
    ]
    took = pl.concat(frames).group_by("doc_id").agg(pl.col("tokens").sum())
    per_document = documents.join(took, on="doc_id", how="left")["tokens"].fill_null(0)
    mean, spread = float(per_document.sum()) / n, per_document.cast(pl.Float64).std()
    if not mean or spread is None:
        return None
    # A sample that is most of the corpus leaves little to be wrong about.
    left = math.sqrt(max(0.0, 1 - n / n_documents))
    return _Z * float(spread) / math.sqrt(n) / mean * left  # type: ignore[arg-type]
