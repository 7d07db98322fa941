"""`rare-assets explain`: a row's whole history, of a rejected one and of one in a training file."""

import json

import polars as pl
import pytest
from click.testing import CliRunner

from rare_assets.command.cli import main
from rare_assets.command.explain import OUTCOMES
from rare_assets.operators.bm25_hard_neg import RULES
from rare_assets.storage.tables import TableDamaged
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph, failure_text
from rare_assets_tests.support.passages import passage, write_jsonl
from rare_assets_tests.support.rows import rejects

REFUSED = 5


@pytest.fixture(scope="module")
def made(only_key_set, tmp_path_factory):
    """A corpus of two shards made whole, but for a passage that the teacher refuses to ask about."""
    folder = tmp_path_factory.mktemp("made")

    def fault_for(body):
        asked = body["messages"][-1]["content"]
        return "refusal" if "response_format" in body and passage(REFUSED) in asked else None

    with FakeEndpoint(fault_for=fault_for) as endpoint:
        graph = Graph(folder, endpoint.url)
        write_jsonl(graph.source / "a.jsonl", range(12))
        write_jsonl(graph.source / "b.jsonl", range(12, 20))
        results = graph.make_all()
        assert all(result.success for result in results), failure_text(results[-1])
        sent = len(endpoint.requests)
        yield graph, only_key_set, folder
        assert len(endpoint.requests) == sent


@pytest.fixture
def explain(made, monkeypatch):
    graph, _, folder = made
    monkeypatch.setenv("RARE_STORAGE", str(graph.tables.root))
    monkeypatch.setenv("DAGSTER_HOME", str(folder / "home"))
    monkeypatch.setenv("COLUMNS", "300")
    return lambda *arguments: CliRunner().invoke(main, ["explain", *arguments])


def test_everything_that_made_a_row_is_said(made, explain):
    graph, _, _ = made
    [row] = graph.tables.scan("reasoning", "b.jsonl").collect().head(1).to_dicts()
    [mined] = (
        graph.tables.scan("hard_negatives", "b.jsonl")
        .collect()
        .filter(question_id=row["question_id"])
        .to_dicts()
    )
    done = explain(row["question_id"])
    assert done.exit_code == 0, done.output
    said = done.output
    assert f"{row['question_id']}, shard b.jsonl" in said
    [document] = (
        graph.tables.scan("documents", "b.jsonl").collect().filter(doc_id=row["doc_id"]).to_dicts()
    )
    for text in (document["source"], row["question"], row["scenario"], row["raw_answer"]):
        assert text in said
    taken = [line for line in said.splitlines() if OUTCOMES["taken"] in line and "│" in line]
    assert [line.split("│")[4].strip() for line in taken] == [
        negative["doc_id"] for negative in mined["negatives"]
    ]
    order = ", ".join(
        f"{n}. {doc_id}{' (gold)' if doc_id == row['doc_id'] else ''}"
        for n, doc_id in enumerate(row["context_doc_ids"], 1)
    )
    assert f"shown: {order}" in said
    for table in ("questions", "hard_negatives", "reasoning"):
        stored = graph.tables.provenance(table, "b.jsonl").made_from
        assert f"{table}: " in said
        assert all(value in said for value in stored.values())
    assert "in no file" in said


def test_the_row_of_a_training_file_is_found_again(made, explain):
    graph, _, _ = made
    formats = ("messages", "tevatron", "llama-factory", "beir")
    done = CliRunner().invoke(main, ["export", *(a for f in formats for a in ("--format", f))])
    assert done.exit_code == 0, done.output
    exports = graph.tables.root / "exports"
    last = pl.read_parquet(exports / "messages/train/a.jsonl.ids.parquet").row(-1, named=True)
    said = explain(last["question_id"]).output
    assert f"messages/train/a.jsonl, row {last['row']}" in said
    # Where the rows hold their ids themselves.
    for name, field in (("tevatron", "query_id"), ("llama-factory", "question_id")):
        lines = (exports / name / "train/a.jsonl.jsonl").read_text().splitlines()
        ids = [json.loads(line)[field] for line in lines]
        assert f"{name}/train/a.jsonl, row {ids.index(last['question_id'])}" in said
    assert "  beir/train" in said


def test_a_rejected_question_is_explained_with_the_raw_answer(made, explain):
    graph, _, _ = made
    [reject] = graph.tables.scan_rejects("questions", "a.jsonl").collect().to_dicts()
    done = explain(reject["question_id"])
    assert done.exit_code == 0, done.output
    assert f"rejected: {reject['reason']}" in done.output
    assert reject["detail"] in done.output
    assert passage(REFUSED)[:60] in done.output


@pytest.mark.parametrize("table", ["hard_negatives", "reasoning"])
def test_what_was_rejected_later_is_explained_too(made, explain, table):
    graph, _, _ = made
    asked = graph.tables.scan("questions", "b.jsonl").collect()
    question_id, doc_id = asked.row(0, named=True)["question_id"], asked["doc_id"][0]
    said = [{"reason": f"why {n}", "detail": f"what came [{n}]"} for n in range(2)]
    key = {"question_id": question_id, "doc_id": doc_id}
    stored = graph.tables.provenance(table, "b.jsonl").made_from
    before = graph.tables.scan(table, "b.jsonl").collect()
    graph.tables.write(
        table,
        "b.jsonl",
        before.filter(pl.col("question_id") != question_id),
        rejects(table, *({**key, **each} for each in said)),
        stored,
    )
    try:
        done = explain(question_id)
    finally:
        graph.tables.write(table, "b.jsonl", before, None, stored)
    assert done.exit_code == 0, done.output
    for each in said:
        assert f"rejected: {each['reason']}" in done.output
        assert each["detail"] in done.output
    assert asked["question"][0][:40] in done.output


def test_an_unknown_question_says_where_ids_stand(explain):
    done = explain("nobody-q0")
    assert done.exit_code == 1
    assert "No table holds the question 'nobody-q0'" in done.output


def test_every_outcome_has_its_words():
    outcomes = {*RULES, "taken", "gold", "range_min", "range_max", "not_needed"}
    assert set(OUTCOMES) == outcomes


@pytest.fixture
def damage(made):
    """Change the bytes of files of the storage, for one test."""
    graph, _, _ = made
    before = {path: path.read_bytes() for path in graph.tables.root.glob("*/?.jsonl.parquet")}

    def damage(table, change, shard="b.jsonl"):
        path = graph.tables.path(table, shard)
        path.write_bytes(change(path.read_bytes()))

    yield damage
    for path, content in before.items():
        path.write_bytes(content)


def emptied(_):
    return b""


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    """A page spoiled and the footer whole."""
    changed = bytearray(content)
    changed[len(changed) // 3] ^= 0x55
    changed[100:1000] = bytes(900)
    return bytes(changed)


def question_of(graph, shard="b.jsonl"):
    return graph.tables.scan("questions", shard).collect()["question_id"][0]


@pytest.mark.parametrize("change", [emptied, truncated, flipped])
@pytest.mark.parametrize("table", ["questions", "reasoning", "documents"])
def test_a_damaged_table_is_no_absence(made, explain, damage, table, change):
    graph, _, _ = made
    question_id = question_of(graph)
    damage(table, change)
    done = explain(question_id)
    assert done.exit_code == 1
    assert not done.exception or isinstance(done.exception, SystemExit)
    assert f"{table}/b.jsonl.parquet is damaged" in done.output
    assert "not made yet" not in done.output
    assert "no longer stored" not in done.output
    assert f"{question_id}, shard b.jsonl" in done.output
    assert f"Not all was told: {table} of shard 'b.jsonl' could not be read" in done.output
    # What can be read is told all the same.
    assert "searched with:" in done.output
    # Who plans the next run is told, too.
    with pytest.raises(TableDamaged):
        graph.tables.provenance(table, "b.jsonl")


@pytest.mark.parametrize("change", [emptied, truncated])
def test_damaged_rejects_are_said_and_their_table_is_made_again(made, explain, damage, change):
    graph, _, _ = made
    [reject] = graph.tables.scan_rejects("questions", "a.jsonl").collect().to_dicts()
    damage("questions_rejects", change, "a.jsonl")
    done = explain(reject["question_id"])
    assert done.exit_code == 1
    assert "questions_rejects/a.jsonl.parquet is damaged" in done.output
    assert "run `rare-assets run`, and ask again" in done.output
    with pytest.raises(TableDamaged):
        graph.tables.provenance("questions", "a.jsonl")


def test_a_question_of_damaged_tables_alone_is_not_said_to_be_unknown(made, explain, damage):
    graph, _, _ = made
    question_id = question_of(graph)
    for table in ("questions", "hard_negatives", "reasoning"):
        damage(table, emptied)
    done = explain(question_id)
    assert done.exit_code == 1
    assert "these tables could not be read; run `rare-assets run`, and ask again" in done.output
    for table in ("questions", "hard_negatives", "reasoning"):
        assert f"{table}/b.jsonl.parquet is damaged" in done.output
    # Of a whole shard all is said.
    assert explain(question_of(graph, "a.jsonl")).exit_code == 0


def test_a_training_file_that_is_gone_is_passed_over(made, explain):
    graph, _, _ = made
    formats = ("messages", "tevatron", "beir")
    done = CliRunner().invoke(main, ["export", *(a for f in formats for a in ("--format", f))])
    assert done.exit_code == 0, done.output
    exports = graph.tables.root / "exports"
    asked = pl.read_parquet(exports / "messages/train/a.jsonl.ids.parquet").row(0, named=True)
    for name in ("messages", "beir"):
        for path in (exports / name).rglob("a.jsonl*"):
            path.unlink()
    done = explain(asked["question_id"])
    assert done.exit_code == 0, done.output
    assert "tevatron/train/a.jsonl, row" in done.output
    assert "messages/train" not in done.output
