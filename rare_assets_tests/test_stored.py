"""A storage that an earlier version made: it reads, and only what changed prompts ask is paid for again.

`stored/first_round` holds two shards of four documents with gold answers, all tables, the embedded index
and the answers, made with `judge_relevance` and `judge_answers` by an endpoint whose judge says no.
"""

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest

from rare_assets.command.plan import Planner, Stale
from rare_assets.resources.configurable import TeacherModel
from rare_assets.stages.hard_negatives import HardNegativesConfig
from rare_assets.stages.options import Options
from rare_assets.stages.provenance import completed, options_of, what_differs
from rare_assets.stages.questions import QuestionsConfig
from rare_assets.stages.reasoning import ReasoningConfig
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import MODEL, Graph

STORED = Path(__file__).parent / "stored" / "first_round"
FIRST_PROMPTS = STORED.with_name("first_prompts")
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


def planner_of(graph):
    run_config = {"ops": {asset: {"config": config} for asset, config in JUDGED.items()}}
    options = Options.from_run_config(run_config)
    return Planner(graph.tables, graph.retriever, graph.teacher, options)


def test_documents_and_index_are_made_again_for_free_and_changed_prompts_ask_anew(graph):
    scan = graph.register()
    planner = planner_of(graph)
    # Rows have more columns since.
    assert [planner.documents(shard) for shard in scan.shards] == [Stale("documents", "reader")] * 2
    columns = pl.read_parquet_schema(graph.tables.path("documents", graph.shards[0]))
    before = graph.rows("documents").select(*columns, "shard")
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    assert graph.rows("documents").select(*columns, "shard").equals(before)
    assert [planner.documents(shard) for shard in scan.shards] == [None, None]
    # Titles are searched since.
    assert planner.index(graph.shards) == "missing"
    assert graph.make("corpus_index_job").success
    assert planner.index(graph.shards) is None
    state = planner.index_state()
    asked = [
        Stale("questions", "prompt"),
        *(Stale(stage, "questions") for stage in ("hard_negatives", "reasoning")),
    ]
    assert [planner.asked(shard, state) for shard in graph.shards] == [asked, asked]
    assert graph.endpoint.requests == []


def test_what_is_asked_anew_is_asked_once(graph):
    assert all(result.success for result in graph.make_all(**JUDGED))
    asked = len(graph.endpoint.requests)
    assert asked > 0
    before = {table: graph.rows(table) for table in ("questions", "hard_negatives", "reasoning")}
    assert all(result.success for result in graph.make_all(**JUDGED))
    assert len(graph.endpoint.requests) == asked
    for table, rows in before.items():
        assert graph.rows(table).equals(rows), table


def test_questions_by_prompts_of_ones_own_stay_as_they_are(graph):
    graph.teacher = TeacherModel(
        storage=graph.storage, model=MODEL, base_url=graph.endpoint.url, prompts=str(FIRST_PROMPTS)
    )
    graph.rebuild()
    scan = graph.register()
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    planner = planner_of(graph)
    assert [planner.questions(shard.key) for shard in scan.shards] == [None, None]
    assert graph.make("corpus_index_job").success
    # What is made from them reads tables of that time: columns that came since are null.
    result = graph.make("rare_job", graph.shards[0], "hard_negatives")
    assert result.success
    mined = graph.tables.scan("hard_negatives", graph.shards[0]).collect()
    assert set(mined["negatives"].explode().struct.field("origin")) == {"question"}


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
