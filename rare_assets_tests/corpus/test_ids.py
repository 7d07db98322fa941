"""Ids that stand for two texts are told before a request, by the command and in one shard's run alone, and
shards that share none go on."""

import pytest

from rare_assets.corpus import ids as corpus_ids
from rare_assets.corpus.ids import left_out, shared_ids, why_colliding
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.command import Command
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph, failure_text
from rare_assets_tests.support.passages import write_jsonl
from rare_assets_tests.support.rows import rows

ASK_ALL = {"questions": {"min_words": 1}}


@pytest.fixture
def endpoint():
    with FakeEndpoint() as endpoint:
        yield endpoint


def write_documents(tables, shard, *pairs):
    """Stores a shard of documents, each given by its id and its text's hash."""
    documents = [
        {"doc_id": doc_id, "text_hash": text, "source": f"{shard}:{row}"}
        for row, (doc_id, text) in enumerate(pairs, 1)
    ]
    tables.write("documents", shard, rows("documents", *documents))


@pytest.fixture
def tables(tmp_path):
    return ParquetTables(str(tmp_path))


def test_an_id_of_two_texts_is_told_with_both_places(tables):
    write_documents(tables, "a", ("1", "ta"), ("2", "same"))
    write_documents(tables, "b", ("0", "t0"), ("1", "tb"), ("2", "same"))
    write_documents(tables, "c", ("3", "tc"))
    shards = ["a", "b", "c", "never-made"]
    remedy = (
        ". Give each text an id of its own, or remove one, and materialize documents again. Shards "
        "that share no id go on."
    )
    assert why_colliding(tables, "a", shards) == (
        "doc_id '1' has two different texts, in shard 'a' (a:1) and shard 'b' (b:2)" + remedy
    )
    assert why_colliding(tables, "b", shards) == (
        "doc_id '1' has two different texts, in shard 'b' (b:2) and shard 'a' (a:1)" + remedy
    )
    assert why_colliding(tables, "c", shards) is None
    # One whose partition was deleted does not count.
    assert why_colliding(tables, "a", ["a", "c"]) is None
    write_documents(tables, "b", ("b1", "tb"), ("2", "same"))
    assert why_colliding(tables, "a", shards) is None


def test_of_many_shards_and_ids_the_first_are_named(tables):
    shards = [f"s{n}" for n in range(6)]
    for shard in shards:
        write_documents(tables, shard, *((str(n), f"{shard}-{n}") for n in range(8)))
    said = why_colliding(tables, "s3", shards)
    assert said.startswith(
        "doc_id '0' has two different texts, in shard 's3' (s3:1) and shard 's0' (s0:1) and shard "
        "'s1' (s1:1) and shard 's2' (s2:1) and 2 more shards; doc_id '1' has"
    )
    assert "; doc_id '4' has" in said
    assert "doc_id '5'" not in said
    assert "and 3 more ids. Give" in said


def test_each_stored_shard_is_read_once(tables, monkeypatch):
    shards = [f"s{n}" for n in range(20)]
    for shard in shards:
        write_documents(tables, shard, (shard, shard))
    opened = []
    scan = ParquetTables.scan

    def counted(self, table, shard):
        opened.append(shard)
        return scan(self, table, shard)

    monkeypatch.setattr(ParquetTables, "scan", counted)
    assert [why_colliding(tables, shard, shards) for shard in shards] == [None] * 20
    assert sorted(opened) == sorted(shards)
    write_documents(tables, "s7", ("s7", "s7"), ("s3", "another"))
    opened.clear()
    assert shared_ids(tables, shards)["shard"].sort().to_list() == ["s3", "s7"]
    assert opened == ["s7"]


def test_a_damaged_or_missing_file_of_ids_is_made_anew(tables):
    write_documents(tables, "a", ("1", "ta"))
    write_documents(tables, "b", ("1", "tb"))
    first = shared_ids(tables, ["a", "b"])
    path = tables.root / "corpus_index" / "ids.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    assert shared_ids(tables, ["a", "b"]).equals(first)
    path.unlink()
    assert shared_ids(tables, ["a", "b"]).equals(first)


def test_ids_are_compared_in_parts(tables, monkeypatch):
    write_documents(tables, "a", *((str(n), f"a{n}") for n in range(50)))
    write_documents(tables, "b", *((str(n), f"b{n}") for n in range(0, 100, 7)))
    whole = shared_ids(tables, ["a", "b"])
    assert whole["id"].n_unique() == 8
    monkeypatch.setattr(corpus_ids, "COMPARED_ROWS", 9)
    assert shared_ids(tables, ["a", "b"]).sort("id", "shard").equals(whole.sort("id", "shard"))


def test_an_index_keeps_what_it_holds_else_the_first(tables):
    for shard in "abc":
        write_documents(tables, shard, ("1", shard))
    shared = shared_ids(tables, ["a", "b", "c"])
    stored = {"a": "1", "b": "2", "c": "3"}
    assert left_out(shared, stored, {}) == {"b", "c"}
    assert left_out(shared, stored, {"b": "2"}) == {"a", "c"}
    assert left_out(shared, stored, {"a": "older", "b": "older", "c": "3"}) == {"a", "b"}


def write_colliding(folder):
    """Two files that share an id, and one that shares none."""
    for name, numbers, shared in (
        ("a", range(4), 3),
        ("b", range(4, 8), 4),
        ("c", range(8, 12), 0),
    ):
        path = write_jsonl(folder / f"{name}.jsonl", numbers)
        path.write_text(path.read_text().replace(f'"p{shared:03}"', '"same"'))


def test_in_one_shards_run_what_is_stored_of_the_others_counts(nothing_set, tmp_path, endpoint):
    graph = Graph(tmp_path, endpoint.url)
    write_colliding(graph.source)
    graph.register()
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    for shard in ("a.jsonl", "b.jsonl"):
        result = graph.make("rare_job", shard, "questions", **ASK_ALL)
        said = failure_text(result)
        assert "documents: doc_id 'same' has two different texts, in shard" in said
        assert "shard 'a.jsonl' (a.jsonl:4)" in said
        assert "shard 'b.jsonl' (b.jsonl:1)" in said
    assert endpoint.requests == []
    synced = graph.make("corpus_index_job")
    assert synced.success
    with graph.retriever.open() as engine:
        assert sorted(engine.state().shards) == ["a.jsonl", "c.jsonl"]
    assert graph.make("rare_job", "c.jsonl", **ASK_ALL).success
    assert graph.tables.provenance("reasoning", "c.jsonl").n_rows == 4

    paid = len(endpoint.requests)

    # Mended, the other two go on.
    write_jsonl(graph.source / "b.jsonl", range(4, 8))
    graph.register()
    assert graph.make("documents_job", "b.jsonl").success
    assert graph.make("corpus_index_job").success
    for shard in ("a.jsonl", "b.jsonl"):
        assert graph.make("rare_job", shard, **ASK_ALL).success
    assert len(endpoint.requests) == paid + 2 * 8


def test_the_command_asks_nothing_about_shards_that_share_an_id(nothing_set, tmp_path, endpoint):
    command = Command(tmp_path, endpoint.url)
    write_colliding(command.corpus)
    (tmp_path / "config.yaml").write_text("ops: {questions: {config: {min_words: 1}}}")
    done = command.run("run", "--config", "config.yaml")
    assert done.returncode == 1, done.stdout
    said = " ".join(done.stdout.split())
    assert "doc_id 'same' has two different texts, in shard 'a.jsonl' (a.jsonl:4)" in said
    assert "doc_id 'same' has two different texts, in shard 'b.jsonl' (b.jsonl:1)" in said
    stored = {
        shard: command.tables.exists("reasoning", shard)
        for shard in ("a.jsonl", "b.jsonl", "c.jsonl")
    }
    assert stored == {"a.jsonl": False, "b.jsonl": False, "c.jsonl": True}
    assert len(endpoint.requests) == 2 * 4
