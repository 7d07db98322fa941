"""What people are told without looking: failed runs and checks that do not pass, posted to a webhook."""

import http.client
import json
import urllib.request
from collections.abc import Iterator, Set
from typing import Any, NamedTuple

import dagster as dg

from rare_assets.automation.runs import is_about
from rare_assets.resources.dataset import Dataset, bind
from rare_assets.resources.failures import why_step_failed
from rare_assets.resources.tags import PARTITION_TAG
from rare_assets.settings import Settings
from rare_assets.text.shown_url import shown, without_secrets

SECONDS = 60
# A tick has a minute; what is more follows with the next one.
POSTS_PER_TICK = 50
POST_SECONDS = 10
# Of failed runs since the last tick; each one's log is read.
RUNS_READ = 200
SENTENCE_CHARS = 1000


class Told(NamedTuple):
    """One post. `text` is what chat programs show of it."""

    storage_id: int
    event: str
    severity: str
    asset: str | None
    check: str | None
    shard: str | None
    sentence: str
    link: str

    def body(self) -> dict[str, Any]:
        """Return the post as JSON has it."""
        place = " ".join(filter(None, [self.check or self.event.replace("_", " "), self.shard]))
        content = self._asdict()
        del content["storage_id"]
        return {"text": f"{self.severity}: {place}: {self.sentence} {self.link}", **content}


def tell_failures(
    context: dg.SensorEvaluationContext, assets: Set[dg.AssetKey]
) -> dg.SensorResult | dg.SkipReason:
    """Read the event log since the last tick; the cursor is the last event that was told."""
    settings = Settings()
    if settings.webhook_url is None:
        return dg.SkipReason("RARE_WEBHOOK_URL is not set: there is nobody to tell.")
    newest = context.instance.event_log_storage.get_maximum_record_id() or 0
    if context.cursor is None:
        return dg.SensorResult(
            skip_reason=dg.SkipReason("Switched on: what fails from now on is told."),
            cursor=str(newest),
        )
    url = settings.webhook_url.get_secret_value()
    found = _news(context, assets, int(context.cursor), newest, settings.ui_url.rstrip("/"))
    sent = 0
    for told in found[:POSTS_PER_TICK]:
        try:
            _post(url, told.body())
        except (OSError, ValueError, http.client.HTTPException) as error:
            context.log.error(
                f"{shown(url)} did not take a post ({without_secrets(error, url)}); it is sent again "
                "with the next tick. Check RARE_WEBHOOK_URL."
            )
            break
        sent += 1
    left = len(found) - sent
    if left:
        newest = found[sent - 1].storage_id if sent else int(context.cursor)
    return dg.SensorResult(
        skip_reason=dg.SkipReason(
            f"{sent:,} posts sent, {left:,} are left for the next tick."
            if found
            else "All is well."
        ),
        cursor=str(newest),
    )


def _news(
    context: dg.SensorEvaluationContext,
    assets: Set[dg.AssetKey],
    after: int,
    until: int,
    ui: str,
) -> list[Told]:
    """Return what failed of these assets after one event and until another, in order."""
    here = context.repository_def
    assert here is not None
    found = [
        *_failed_checks(context.instance, after, ui, assets),
        *_failed_runs(context.instance, after, ui, assets, here),
    ]
    return sorted((told for told in found if told.storage_id <= until), key=lambda t: t.storage_id)


def _failed_checks(
    instance: dg.DagsterInstance, after: int, ui: str, ours: Set[dg.AssetKey]
) -> Iterator[Told]:
    checks = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION, after_cursor=after)
    for record in instance.event_log_storage.get_event_records(checks, ascending=True):
        event = record.event_log_entry.dagster_event
        found = event.asset_check_evaluation_data if event is not None else None
        if found is None or found.passed or found.asset_key not in ours:
            continue
        yield Told(
            record.storage_id,
            "check_failed",
            found.severity.value,
            found.asset_key.to_user_string(),
            found.check_name,
            found.partition,
            _sentence(found.description or f"The check {found.check_name} does not pass."),
            f"{ui}/runs/{record.run_id}",
        )


def _failed_runs(
    instance: dg.DagsterInstance,
    after: int,
    ui: str,
    ours: Set[dg.AssetKey],
    here: dg.RepositoryDefinition,
) -> Iterator[Told]:
    failures = dg.RunStatusChangeRecordsFilter(
        dg.DagsterEventType.RUN_FAILURE, after_storage_id=after
    )
    for record in instance.fetch_run_status_changes(failures, RUNS_READ, ascending=True).records:
        run = instance.get_run_by_id(record.run_id)
        if run is None or not is_about(run, ours, here):
            continue
        yield Told(
            record.storage_id,
            "run_failed",
            dg.AssetCheckSeverity.ERROR.value,
            None,
            None,
            run.tags.get(PARTITION_TAG),
            _sentence(_why(instance, record.run_id)),
            f"{ui}/runs/{record.run_id}",
        )


def _why(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return what the first failed step of a run says, or what the run itself says."""
    said = ""
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is not None and event.is_step_failure:
            return why_step_failed(event.step_failure_data) or "A step failed."
        if event is not None and event.is_failure:
            said = event.message or said
    return said or "The run failed."


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SENTENCE_CHARS else f"{line[:SENTENCE_CHARS]} …"


def _post(url: str, body: dict[str, Any]) -> None:
    """Post JSON. Raises OSError, HTTP's refusals among them, or ValueError for what is no URL."""
    content = json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=POST_SECONDS):
        pass


def tell_failures_sensor(dataset: Dataset, assets: Set[dg.AssetKey]) -> dg.SensorDefinition:
    """Return the sensor that tells what fails of a dataset's assets."""
    sensor = dg.sensor(
        name=dataset.named("tell_failures"),
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=SECONDS,
        description="Costs nothing: posts each failed run, and each check that does not pass, to "
        "RARE_WEBHOOK_URL as JSON with shard, sentence and link, beginning when it is switched on. A "
        "post that does not go through is tried again by the next tick. Off by default.",
    )
    return sensor(bind(tell_failures, dataset, assets=assets))
