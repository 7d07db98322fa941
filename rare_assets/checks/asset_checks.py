"""How Dagster runs the checks: all of a table in one step, for one shard or for all that are stored."""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg

from rare_assets.catalog.worked_example import literal
from rare_assets.checks.by_table import CHECKS
from rare_assets.checks.index import index_checks
from rare_assets.checks.judgement import (
    EXAMPLES,
    UNJUDGEABLE,
    Check,
    Finding,
    Judgement,
    Rule,
    StoredShard,
    figures,
)
from rare_assets.resources.configurable import Bm25Retriever, Storage
from rare_assets.resources.dagster_internals import latest_target
from rare_assets.resources.dataset import Dataset, bind
from rare_assets.resources.partitions import registered_shards
from rare_assets.schemas import TABLES

MOST_FAILED_SHOWN = 20


def table_checks(table: str, dataset: Dataset) -> dg.AssetChecksDefinition:
    """Return all checks of one table of a dataset as one step, so that a shard is read once.

    Run with a shard, the step judges that one. Run without, as by "Execute all", it judges every
    stored shard, one after the other, and reports each with its partition.
    """
    with warnings.catch_warnings():
        # Partitioned checks are a preview in this Dagster; without them a check of one shard would
        # load all shards, and the UI would show one status for all.
        warnings.filterwarnings("ignore", category=dg.PreviewWarning)
        specs = [
            dg.AssetCheckSpec(
                check.name,
                asset=dataset.key(table),
                description=describe(check),
                blocking=check.blocking,
                partitions_def=dataset.partitions,
            )
            for check in CHECKS[table]
        ]

    def judge_table(
        context: dg.AssetCheckExecutionContext, storage: Storage, retriever: Bm25Retriever
    ) -> Iterator[Any]:
        selected = {key.name for key in context.selected_asset_check_keys}
        checks = [check for check in CHECKS[table] if check.name in selected]
        if context.op_execution_context.has_partition_key:
            shard = context.op_execution_context.partition_key
            stored = StoredShard(table, shard, storage.tables(), retriever, dataset)
            yield from _judge_one(dataset.key(table), stored, checks)
        else:
            shards = registered_shards(context.instance, dataset)
            of_shards = (
                StoredShard(table, shard, storage.tables(), retriever, dataset)
                for shard in shards
                if storage.tables().exists(table, shard)
            )
            yield from _judge_all(context.instance, dataset.key(table), checks, of_shards)

    name = dataset.named(f"{table}_checks")
    return dg.multi_asset_check(name=name, specs=specs, can_subset=True)(bind(judge_table, dataset))


def describe(check: Check) -> str:
    """Return a check's description: what it is about, then each of its rules."""
    rules = [f"- {rule.name}: {rule.description}" for rule in check.rules]
    return "\n".join([check.description, "", *rules])


def evaluation_metadata(finding: Finding) -> dict[str, Any]:
    """Return what the UI shows of a finding: its rules with their values, and what fails by
    name."""
    rules = [
        dg.TableRecord(
            {
                "rule": rule.name,
                "holds": "yes" if judgement.passed else "NO",
                "measured": figures(judgement.measured),
                "threshold": judgement.metadata.get("threshold"),
                "setting": rule.setting,
            }
        )
        for rule, judgement in finding.judged
    ]
    columns = [
        dg.TableColumn(name) for name in ("rule", "holds", "measured", "threshold", "setting")
    ]
    shown: dict[str, Any] = {
        "failing": ", ".join(rule.name for rule, _ in finding.failing) or "none",
        **{rule.name: _explained(rule, judgement) for rule, judgement in finding.failing},
        "rules": dg.MetadataValue.table(rules, schema=dg.TableSchema(columns)),
    }
    alone = len(finding.judged) == 1
    for _, judgement in finding.judged:
        # Numbers are plotted over shards and time: all of a rule that is alone, else the rates.
        shown |= {
            name: value
            for name, value in judgement.metadata.items()
            if name != "examples" and (alone or name.endswith("_rate"))
        }
        shown |= judgement.shown
    return shown


def _explained(rule: Rule, judgement: Judgement) -> dg.MetadataValue:
    """Explain a rule that fails: its sentence, what was measured, the first examples."""
    examples = [
        " ".join(f"**{name}** {literal(str(value))}" for name, value in each.items())
        if isinstance(each, dict)
        else literal(str(each))
        for each in judgement.metadata.get("examples", [])
    ]
    measured = literal(judgement.sentence or f"Measured: {figures(judgement.measured)}")
    return dg.MetadataValue.md(
        "\n".join(
            [literal(rule.description), "", measured, "", *(f"- {each}" for each in examples)]
        )
    )


def _judge_one(
    asset: dg.AssetKey, stored: StoredShard, checks: list[Check]
) -> Iterator[dg.AssetCheckResult]:
    """Judge one shard by its table's checks.

    Raises:
        dg.Failure: a blocking check fails; in its own words, where Dagster's failure would name the
            check alone, below a stack of calls.
    """
    errors: list[str] = []
    for check, finding in _findings(stored, checks):
        if check.blocking and finding.is_error:
            errors.append(finding.sentence)
        yield dg.AssetCheckResult(
            passed=finding.passed,
            asset_key=asset,
            check_name=check.name,
            severity=finding.severity,
            description=finding.sentence or None,
            metadata=evaluation_metadata(finding),
        )
    if errors:
        raise dg.Failure(f"{stored.table}: {chr(10).join(errors)}", allow_retries=False)


def _findings(stored: StoredShard, checks: list[Check]) -> Iterator[tuple[Check, Finding]]:
    """Return what each check finds, in the table's order. What can't be judged on a table that
    breaks its contract is left out, since the broken contract is told already."""
    broken = False
    for check in checks:
        try:
            finding = check.judge(stored)
        except UNJUDGEABLE:
            if not broken:
                raise
            continue
        broken = broken or finding.is_error
        yield check, finding


class _Tally:
    """How one check came out over many shards."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self.judged = 0
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def add(self, shard: str, finding: Finding) -> None:
        self.judged += 1
        if not finding.passed:
            (self.errors if finding.is_error else self.warnings).append(shard)

    @property
    def sentence(self) -> str:
        failed = [*self.errors, *self.warnings]
        if not failed:
            return f"{self.judged:,} shards judged, none fails."
        more = ", …" if len(failed) > EXAMPLES else ""
        return (
            f"{self.judged:,} shards judged, {len(failed):,} fail: "
            f"{', '.join(failed[:EXAMPLES])}{more}."
        )


def _judge_all(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    checks: list[Check],
    of_shards: Iterable[StoredShard],
) -> Iterator[dg.AssetCheckEvaluation]:
    """Judge all shards that have a table, one shard in memory at a time.

    Each is reported with its partition; the results of the run itself sum them up. They are
    evaluations and no `AssetCheckResult`: Dagster gives those the partition of the run, which has none.
    """
    tallies = {check.name: _Tally(check) for check in checks}
    for stored in of_shards:
        target = latest_target(instance, asset, stored.shard)
        for check, finding in _findings(stored, checks):
            tallies[check.name].add(stored.shard, finding)
            evaluation = dg.AssetCheckEvaluation(
                asset_key=asset,
                check_name=check.name,
                passed=finding.passed,
                metadata=evaluation_metadata(finding),
                target_materialization_data=target,
                severity=finding.severity,
                description=finding.sentence or None,
                blocking=check.blocking,
                partition=stored.shard,
            )
            yield evaluation
    errors = []
    for name, tally in tallies.items():
        if tally.check.blocking and tally.errors:
            errors.append(f"{name}: {tally.sentence}")
        yield dg.AssetCheckEvaluation(
            passed=not (tally.errors or tally.warnings),
            asset_key=asset,
            check_name=name,
            severity=dg.AssetCheckSeverity.ERROR if tally.errors else dg.AssetCheckSeverity.WARN,
            description=tally.sentence,
            blocking=tally.check.blocking,
            metadata={
                "shards_judged": tally.judged,
                "shards_with_errors": len(tally.errors),
                "shards_with_warnings": len(tally.warnings),
                "failing": "\n".join([*tally.errors, *tally.warnings][:MOST_FAILED_SHOWN])
                or "none",
            },
        )
    if errors:
        raise dg.Failure(f"{asset.path[-1]}, {chr(10).join(errors)}", allow_retries=False)


def asset_checks(dataset: Dataset) -> list[dg.AssetChecksDefinition]:
    """Return all checks of a dataset's tables and index."""
    return [*(table_checks(table, dataset) for table in TABLES), *index_checks(dataset)]
