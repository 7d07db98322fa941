"""The asset `documents`: what its runs say and stop."""

import pytest

from rare_assets_tests.fake_endpoint import FakeEndpoint
from rare_assets_tests.graph import Graph, failed_checks, failure_text, metadata
from rare_assets_tests.passages import passage, row, write_jsonl


@pytest.fixture
def graph(only_key_set, tmp_path):
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        graph.endpoint = endpoint
        yield graph


def test_metadata_counts_rows_words_and_each_reason_of_rejects(graph):
    lines = write_jsonl(graph.source / "a.jsonl", range(20))
    with lines.open("a") as source:
        source.write(
            '{"id": "p000", "text": "Another text under an id that is taken."}\n{"text": 7}\n'
        )
    graph.register()
    result = graph.make("documents_job", "a.jsonl")
    assert result.success
    made = metadata(result, "documents")
    assert (made["rows"], made["rejects"], made["file"]) == (20, 2, "a.jsonl")
    assert made["reject_rate"] == pytest.approx(2 / 22)
    assert made["words"] == sum(len(passage(number).split()) for number in range(20))
    reasons = [record.data for record in made["rejects_by_reason"].records]
    assert reasons == [
        {"reason": "duplicate_id", "count": 1},
        {"reason": "text_not_a_string", "count": 1},
    ]
    assert made["duplicates"] == 1


def test_a_shard_of_rejects_stops_its_questions_and_no_other_shard(graph):
    """In the run of the sensor, which makes documents and questions."""
    write_jsonl(graph.source / "good.jsonl", range(8))
    write_jsonl(graph.source / "bad.jsonl", range(8, 12))
    with (graph.source / "bad.jsonl").open("a") as source:
        source.write('{"text": \n' * 8)
    graph.register()
    bad = graph.make("questions_job", "bad.jsonl")
    assert not bad.success
    assert failed_checks(bad) == ["documents/rejects"]
    assert graph.tables.exists("documents", "bad.jsonl")
    assert not graph.tables.exists("questions", "bad.jsonl")
    assert graph.endpoint.requests == []
    assert graph.make("questions_job", "good.jsonl").success
    assert len(graph.endpoint.requests) == 8


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.parquet", b"PAR1 and then nothing of the kind", ["a.parquet"]),
        ("a.json", b'{"text": "an object, not a list"}', ["a.json", "list"]),
        ("a.jsonl", b"", ["a.jsonl"]),
    ],
)
def test_a_file_that_cannot_be_used_is_named(graph, name, content, words):
    (graph.source / name).write_bytes(content)
    graph.register()
    result = graph.make("documents_job", name)
    assert not result.success
    assert [word for word in words if word not in failure_text(result)] == [], failure_text(result)
    assert not graph.tables.exists("documents", name)


def test_a_shard_whose_file_is_gone_is_named(graph):
    write_jsonl(graph.source / "a.jsonl", range(3))
    write_jsonl(graph.source / "b.jsonl", range(3, 6))
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    (graph.source / "a.jsonl").unlink()
    result = graph.make("documents_job", "a.jsonl")
    assert not result.success
    assert "a.jsonl" in failure_text(result)
    # What was made from it stays until somebody removes it.
    assert graph.tables.exists("documents", "a.jsonl")


def test_a_source_that_is_gone_is_named(graph):
    write_jsonl(graph.source / "a.jsonl", range(3))
    graph.register()
    (graph.source / "a.jsonl").unlink()
    graph.source.rmdir()
    assert str(graph.source) in failure_text(graph.make("documents_job", "a.jsonl"))


def test_a_partition_that_is_no_shard_of_the_source_is_refused(graph):
    write_jsonl(graph.source / "a.jsonl", range(3))
    graph.register()
    graph.instance.add_dynamic_partitions("rare_document_shards", ["b.jsonl"])
    said = failure_text(graph.make("documents_job", "b.jsonl"))
    assert "b.jsonl" in said
    assert "a.jsonl" in said


def test_ids_and_titles_of_the_source_are_kept(graph):
    write_jsonl(graph.source / "a.jsonl", range(2))
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    stored = graph.tables.scan("documents", "a.jsonl").collect()
    assert stored.select("doc_id", "title", "text").to_dicts() == [
        {"doc_id": each["id"], "title": each["title"], "text": each["text"]}
        for each in (row(0), row(1))
    ]
