"""A storage that an earlier version made: it is current, it reads, and nothing of it is paid for again.

`stored/first_round` holds two shards of four documents with gold answers, all tables, the embedded index
and the answers, made with `judge_relevance` and `judge_answers` by an endpoint whose judge says no.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from rare_assets.command.plan import Planner, Stale
from rare_assets.stages.hard_negatives import HardNegativesConfig
from rare_assets.stages.options import Options
from rare_assets.stages.provenance import completed, options_of, what_differs
from rare_assets.stages.questions import QuestionsConfig
from rare_assets.stages.reasoning import ReasoningConfig
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph

STORED = Path(__file__).parent / "stored" / "first_round"
WRITTEN_AT = 1_760_000_000
JUDGED = {"hard_negatives": {"judge_relevance": True}, "reasoning": {"judge_answers": True}}


@pytest.fixture
def graph(only_key_set, tmp_path):
    for name in ("source", "storage"):
        shutil.copytree(STORED / name, tmp_path / name)
    for file in (tmp_path / "source").iterdir():
        os.utime(file, (WRITTEN_AT, WRITTEN_AT))
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        graph.endpoint = endpoint
        yield graph


def test_documents_are_read_again_for_free_and_everything_else_is_current(graph):
    scan = graph.register()
    run_config = {"ops": {asset: {"config": config} for asset, config in JUDGED.items()}}
    planner = Planner(
        graph.tables, graph.retriever, graph.teacher, Options.from_run_config(run_config)
    )
    # Words are counted in another way since, which no text of these shards shows.
    assert [planner.documents(shard) for shard in scan.shards] == [Stale("documents", "reader")] * 2
    before = graph.rows("documents")
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    assert graph.rows("documents").select(before.columns).equals(before)
    assert [planner.documents(shard) for shard in scan.shards] == [None, None]
    assert planner.index(graph.shards) is None
    state = planner.index_state()
    assert [planner.asked(shard, state) for shard in graph.shards] == [[], []]


def test_making_it_again_sends_nothing_and_changes_no_row(graph):
    graph.register()
    tables = ("documents", "questions", "hard_negatives", "reasoning")
    before = {table: graph.rows(table) for table in tables}
    assert all(result.success for result in graph.make_all(**JUDGED))
    assert graph.endpoint.requests == []
    for table, rows in before.items():
        assert graph.rows(table).select(rows.columns).equals(rows), table


@pytest.mark.parametrize(
    ("config", "pinned"),
    [
        (
            QuestionsConfig,
            (
                '{"max_tokens": null, "min_words": 20, "num_questions": 1, "seed": null, '
                '"temperature": null}'
            ),
        ),
        (
            HardNegativesConfig,
            (
                '{"absolute_margin": null, "fallback_range_min": 20, "judge_relevance": false, '
                '"max_score": null, "min_score": null, "near_duplicate_threshold": null, "num_neg": 3, '
                '"query": "question", "range_max": 100, "range_min": 0, "relative_margin": 0.2, '
                '"sampling_strategy": "top", "seed": 0}'
            ),
        ),
        (
            ReasoningConfig,
            (
                '{"judge_answers": false, "max_tokens": null, "n": 1, "rejection_samples": 0, '
                '"seed": 0, "temperature": null}'
            ),
        ),
    ],
)
def test_options_at_their_defaults_are_those_that_the_first_footers_hold(config, pinned):
    # As the first release wrote them: an option that is renamed or gone, or has another default,
    # would make every shard stale.
    written = completed({"options": pinned}, config)
    assert what_differs(written, {"options": options_of(config())}) == []


def test_an_option_that_a_footer_lacks_counts_as_its_default():
    options = json.loads(options_of(ReasoningConfig(seed=4, n=2)))
    del options["n"]
    written = completed({"options": json.dumps(options)}, ReasoningConfig)
    assert what_differs(written, {"options": options_of(ReasoningConfig(seed=4))}) == []
    assert what_differs(written, {"options": options_of(ReasoningConfig(seed=4, n=2))})
    assert what_differs(written, {"options": options_of(ReasoningConfig())})
