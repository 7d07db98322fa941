"""What is stale when: each row of a table changes one thing and names all that must be made again."""

import json
import shutil

import polars as pl
import pytest

from rare_assets.command.plan import Planner
from rare_assets.operators.templates import PACKAGED
from rare_assets.resources.configurable import Storage, TeacherModel
from rare_assets.stages import documents
from rare_assets.stages.options import (
    Options,
    OptionsError,
    read_run_config,
    teacher_for,
    with_whole_teacher,
)
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph
from rare_assets_tests.support.passages import passage, row, write_jsonl
from rare_assets_tests.support.rows import rejects

A, B = "a.jsonl", "b.jsonl"
ALL = ("documents", "index", "questions", "hard_negatives", "reasoning")


@pytest.fixture(scope="module")
def finished(only_key_set, tmp_path_factory):
    """A folder in which everything of two shards has been made."""
    folder = tmp_path_factory.mktemp("finished")
    with FakeEndpoint() as endpoint:
        graph = Graph(folder, endpoint.url)
        write_jsonl(graph.source / A, range(6))
        write_jsonl(graph.source / B, range(6, 12))
        assert all(result.success for result in graph.make_all())
    return folder


@pytest.fixture
def graph(finished, tmp_path):
    """A graph of the test's own with all of that in it."""
    for name in ("storage", "source"):
        shutil.copytree(finished / name, tmp_path / name)
    graph = Graph(tmp_path)
    graph.register()
    return graph


def plan(graph, redo_all=False, teacher=None, **options):
    """What is stale, as {(stage, shard): why}; the index has no shard."""
    run_config = {"ops": {asset: {"config": config} for asset, config in options.items()}}
    planner = Planner(
        graph.tables,
        graph.retriever,
        teacher or graph.teacher,
        Options.from_run_config(run_config),
        redo_all,
    )
    stale = {}
    for shard in graph.register().shards:
        if (found := planner.documents(shard)) is not None:
            stale[found.stage, shard.key] = found.why
    if (why := planner.index(graph.shards)) is not None:
        stale["index", None] = why
    state = planner.index_state()
    for shard in graph.shards if state is not None else ():
        stale |= {(each.stage, shard): each.why for each in planner.asked(shard, state)}
    return stale


def of_every_shard(stages, first_why):
    """The stages of both shards: the first for that reason, each other because of the first."""
    first, *others = stages
    return {
        (stage, shard): first_why if stage == first else first
        for stage in (first, *others)
        for shard in (A, B)
    }


ASKED = ("questions", "hard_negatives", "reasoning")

# options by asset, and what they make stale
OPTIONS = [
    ({}, {}),
    ({"questions": {"temperature": 0.5}}, of_every_shard(ASKED, "options")),
    ({"questions": {"num_questions": 2}}, of_every_shard(ASKED, "options")),
    ({"questions": {"max_attempts": 9}}, {}),
    ({"questions": {"refresh": False}}, {}),
    ({"questions": {"mode": "batch"}}, {}),
    ({"hard_negatives": {"num_neg": 2}}, of_every_shard(ASKED[1:], "options")),
    ({"hard_negatives": {"remine_after_growth": 0.0}}, {}),
    ({"reasoning": {"seed": 1}}, of_every_shard(ASKED[2:], "options")),
    ({"reasoning": {"max_attempts": 9}}, {}),
    ({"corpus_index": {"k1": 1.2}}, {("index", None): "options"}),
    ({"corpus_index": {"analyzer": "english", "b": 0.4}}, {}),
]


@pytest.mark.parametrize(("options", "stale"), OPTIONS)
def test_options_make_stale_what_they_decide(graph, options, stale):
    assert plan(graph, **options) == stale


def test_asking_for_all_makes_everything_stale(graph):
    asked_for = of_every_shard(("documents",), "asked for") | {("index", None): "asked for"}
    assert plan(graph, redo_all=True) == asked_for | of_every_shard(ASKED, "asked for")


def test_another_model_makes_everything_that_it_answers_stale(graph):
    teacher = graph.teacher.model_copy(update={"model": "another"})
    assert plan(graph, teacher=teacher) == of_every_shard(ASKED, "teacher")


@pytest.mark.parametrize(("name", "stages"), [("doc2query", ASKED), ("reason_distill", ASKED[2:])])
def test_a_changed_prompt_makes_its_stage_and_what_follows_stale(graph, tmp_path, name, stages):
    folder = tmp_path / "prompts"
    folder.mkdir()
    teacher = graph.teacher.model_copy(update={"prompts": str(folder)})
    shutil.copy(PACKAGED / f"{name}.md", folder)
    assert plan(graph, teacher=teacher) == {}
    with (folder / f"{name}.md").open("a") as wording:
        wording.write("\nAnswer in Latin.\n")
    assert plan(graph, teacher=teacher) == of_every_shard(stages, "prompt")


def test_another_way_to_read_rows_makes_the_documents_stale(graph, monkeypatch):
    monkeypatch.setattr(documents, "READER_VERSION", "next")
    assert plan(graph) == of_every_shard(("documents",), "reader")


def test_a_file_written_again_with_the_same_rows_makes_nothing_but_its_documents_stale(graph):
    write_jsonl(graph.source / A, range(6)).touch()
    assert plan(graph) == {("documents", A): "version"}
    assert graph.make("documents_job", A).success
    assert plan(graph) == {}


def test_a_changed_document_makes_its_shard_and_what_was_mined_elsewhere_stale(graph):
    changed = [row(number) for number in range(6)]
    changed[0]["text"] = passage(99)
    (graph.source / A).write_text("".join(f"{json.dumps(each)}\n" for each in changed))
    assert plan(graph) == {("documents", A): "version"}
    assert graph.make("documents_job", A).success
    own = {
        ("questions", A): "documents",
        ("hard_negatives", A): "questions",
        ("reasoning", A): "questions",
    }
    assert plan(graph) == {("index", None): "documents", **own}
    assert graph.make("corpus_index_job").success
    elsewhere = {("hard_negatives", B): "index", ("reasoning", B): "hard_negatives"}
    assert plan(graph) == own | elsewhere


def test_another_ranking_makes_negatives_stale(graph):
    assert graph.make("corpus_index_job", corpus_index={"b": 0.75}).success
    stale = of_every_shard(ASKED[1:], "index, bm25")
    assert plan(graph, corpus_index={"b": 0.75}) == stale


@pytest.mark.parametrize("table", ["documents", "questions", "hard_negatives", "reasoning"])
def test_a_missing_table_is_made(graph, table):
    graph.tables.path(table, A).unlink()
    stale = plan(graph)
    assert stale.pop((table, A)) == "missing"
    following = {"documents": (), "questions": ASKED[1:], "hard_negatives": ASKED[2:]}
    if table == "documents":
        # Until it is made again the index would have to give it up.
        assert stale.pop(("index", None)) == "documents"
    assert stale == {(stage, A): table for stage in following.get(table, ())}


def test_a_missing_index_is_made(graph):
    shutil.rmtree(graph.tables.root / "corpus_index")
    assert plan(graph) == {("index", None): "missing"}


def test_a_shard_that_its_rejects_have_blocked_stays_blocked(graph):
    stored = graph.tables.provenance("questions", A)
    failed = [{"question_id": f"x{number}-q0"} for number in range(20)]
    graph.tables.write(
        "questions",
        A,
        graph.tables.scan("questions", A),
        rejects("questions", *failed),
        stored.made_from,
    )
    again = {
        ("questions", A): "rejects",
        ("hard_negatives", A): "questions",
        ("reasoning", A): "questions",
    }
    assert plan(graph) == again


@pytest.mark.parametrize("table", ["questions", "reasoning"])
@pytest.mark.parametrize(
    ("reason", "again"), [("endpoint_error", True), ("rate_limited", True), ("cut", False)]
)
def test_what_the_endpoint_failed_to_answer_is_asked_again(graph, table, reason, again):
    stored = graph.tables.provenance(table, A)
    failed = rejects(table, {"question_id": "x-q0", "reason": reason})
    graph.tables.write(table, A, graph.tables.scan(table, A), failed, stored.made_from)
    stale = plan(graph)
    assert (stale.get((table, A)) == "faults of the endpoint") == again
    assert bool(stale) == again


def test_documents_that_count_as_long_enough_by_now_are_asked_about(graph):
    stored = graph.tables.provenance("questions", A)
    asked = graph.tables.scan("questions", A).collect()
    left_out = asked.row(0, named=True)
    too_short = {key: left_out[key] for key in ("question_id", "doc_id")} | {"reason": "too_short"}
    graph.tables.write("questions", A, asked[1:], rejects("questions", too_short), stored.made_from)
    assert plan(graph)["questions", A] == "documents"
    short = graph.tables.scan("documents", A).with_columns(
        n_words=pl.when(pl.col("doc_id") == left_out["doc_id"]).then(3).otherwise("n_words")
    )
    graph.tables.write(
        "documents", A, short.collect(), None, graph.tables.provenance("documents", A).made_from
    )
    assert ("questions", A) not in plan(graph)


# run config, and words of the error
WRONG_OPTIONS = [
    ({"documents": {}}, ["documents", "corpus_index, questions, hard_negatives, reasoning"]),
    ({"exports": {"config": {"num_negs": 1}}}, ["ops.exports.config", "num_negs;", "num_neg"]),
    ({"pilot": {"config": {"documents": 0}}}, ["ops.pilot.config", "documents", "greater than"]),
    ({"questions": {"config": {"num": 1}}}, ["ops.questions.config", "num;", "num_questions"]),
    ({"corpus_index": {"config": {"b": 2}}}, ["ops.corpus_index.config", "b:", "less than"]),
    ({"reasoning": {"config": {"mode": "fast"}}}, ["ops.reasoning.config", "mode", "online"]),
]


@pytest.mark.parametrize(("ops", "words"), WRONG_OPTIONS)
def test_wrong_options_are_named(ops, words):
    with pytest.raises(OptionsError) as error:
        Options.from_run_config({"ops": ops})
    assert [word for word in words if word not in str(error.value)] == []


def test_a_file_may_hold_the_options_of_other_commands_too():
    ops = {
        "questions": {"config": {"num_questions": 2}},
        "exports": {"config": {"num_neg": 2}},
        "exports__data_card": {"config": {"num_neg": 2}},
        "pilot": {"config": {"documents": 5}},
    }
    assert Options.from_run_config({"ops": ops}).questions.num_questions == 2


def test_a_run_config_chooses_model_and_prompts(nothing_set, tmp_path):
    nothing_set.setenv("SOME_MODEL", "from-env")
    own = TeacherModel(storage=Storage(root=str(tmp_path)), model="own", max_concurrency=3)

    def chosen(**config):
        return teacher_for({"resources": {"teacher": {"config": config}}}, own)

    assert teacher_for({}, own) is own
    assert (chosen(model="other").name, chosen(model="other").max_concurrency) == ("other", 3)
    assert chosen(model={"env": "SOME_MODEL"}).name == "from-env"
    assert chosen(prompts="p").prompts_folder == "p"
    run_config = {"resources": {"teacher": {"config": {"model": {"env": "SOME_MODEL"}}}}, "ops": {}}
    assert with_whole_teacher(run_config, teacher_for(run_config, own)) == {
        "resources": {
            "teacher": {"config": {"model": {"env": "SOME_MODEL"}, "max_concurrency": 3}}
        },
        "ops": {},
    }
    variables = {"max_concurrency": "SOME_NUMBER"}
    whole = with_whole_teacher(run_config, teacher_for(run_config, own), variables=variables)
    assert whole["resources"]["teacher"]["config"] == {
        "model": {"env": "SOME_MODEL"},
        "max_concurrency": {"env": "SOME_NUMBER"},
    }
    assert with_whole_teacher({"ops": {}}, own) == {"ops": {}}
    for config, said in (
        ({"modell": "x"}, "no field modell"),
        ({"max_requests": "x"}, "max_requests"),
    ):
        with pytest.raises(OptionsError, match=said):
            chosen(**config)
    with pytest.raises(OptionsError, match="there is no taecher; there are storage"):
        teacher_for({"resources": {"taecher": {}}}, own)
    for role in ("corpus", "storage", "retriever"):
        with pytest.raises(OptionsError, match=f"{role} can't be other for one run"):
            teacher_for({"resources": {role: {"config": {}}}}, own)


@pytest.mark.parametrize("text", ["ops: [a]", "ops: {questions: 3}", "resources: {teacher: gpt}"])
def test_a_file_of_another_shape_is_told_with_its_name(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(OptionsError, match=r"run.yaml: (ops|resources).*: give "):
        read_run_config(path)


def test_a_part_of_run_config_that_there_is_not_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("op: {questions: {config: {num_questions: 2}}}\n5: x\n")
    with pytest.raises(OptionsError, match=r"run.yaml: 5, op: no part of run config"):
        read_run_config(path)
