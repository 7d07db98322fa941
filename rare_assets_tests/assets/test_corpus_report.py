"""The report as an asset of the graph: its page and the totals that the UI shows."""

import json

import dagster as dg

from rare_assets.resources.dataset import UNNAMED
from rare_assets.stages.cost import spent_by_day
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import MODEL, Graph, failure_text
from rare_assets_tests.support.passages import write_jsonl


def test_the_totals_of_all_shards_stand_in_the_ui_and_the_page_in_the_storage(
    only_key_set, tmp_path
):
    prices = tmp_path / "prices.json"
    each = {"prompt_usd_per_million": 1.0, "completion_usd_per_million": 10.0}
    prices.write_text(json.dumps({"models": {MODEL: each}}))
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url, prices=str(prices))
        write_jsonl(graph.source / "a.jsonl", range(6))
        write_jsonl(graph.source / "b.jsonl", range(6, 10))
        results = graph.make_all()
        sent = len(endpoint.requests)
        assert all(result.success for result in results), [failure_text(r) for r in results]
        job = graph.defs.resolve_implicit_global_asset_job_def()
        made = job.execute_in_process(
            instance=graph.instance, asset_selection=[dg.AssetKey("corpus_report")]
        )
        assert made.success
        assert len(endpoint.requests) == sent
    (event,) = made.get_asset_materialization_events()
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    assert metadata["dagster/row_count"] == 10
    assert {name: metadata[f"rows/{name}"] for name in ("documents", "reasoning")} == {
        "documents": 10,
        "reasoning": 10,
    }
    html = (tmp_path / "storage/corpus_report/report.html").read_text()
    assert html.count('<details class="example">') == 10
    # What the runs paid on their days is what the stored answers took.
    paid = sum(dollars for _, _, dollars in spent_by_day(graph.instance, UNNAMED))
    assert round(paid, 6) == round(metadata["cost_usd"], 6) > 0
