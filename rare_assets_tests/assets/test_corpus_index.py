"""The asset `corpus_index`: it syncs with what is registered, and says what it found."""

import logging

import pytest

from rare_assets.partitions import document_shards
from rare_assets.resources.retriever import embedded
from rare_assets_tests.graph import Graph, failed_checks, failure_text, metadata
from rare_assets_tests.passages import passage, write_jsonl


@pytest.fixture
def graph(only_key_set, tmp_path):
    graph = Graph(tmp_path)
    write_jsonl(graph.source / "a.jsonl", range(4))
    write_jsonl(graph.source / "b.jsonl", range(4, 9))
    graph.register()
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    return graph


def counts(result):
    names = ("dagster/row_count", "shards", "shards_indexed", "shards_removed", "documents_indexed")
    made = metadata(result, "corpus_index")
    return tuple(made[name] for name in names)


def test_a_second_sync_indexes_nothing(graph):
    first = graph.make("corpus_index_job")
    assert counts(first) == (9, 2, 2, 0, 9)
    second = graph.make("corpus_index_job")
    assert counts(second) == (9, 2, 0, 0, 0)
    states = [metadata(result, "corpus_index")["index_state"] for result in (first, second)]
    assert states[0] == states[1]


def test_only_a_shard_of_other_content_is_indexed_again(graph):
    graph.make("corpus_index_job")
    write_jsonl(graph.source / "a.jsonl", range(10, 13))
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    result = graph.make("corpus_index_job")
    assert counts(result) == (8, 2, 1, 0, 3)
    assert failed_checks(result) == []


def test_what_the_engine_warns_of_is_in_the_log_and_on_the_asset(graph, monkeypatch):
    assert metadata(graph.make("corpus_index_job"), "corpus_index")["warnings"] is None
    monkeypatch.setattr(embedded, "LIMIT", 8)
    result = graph.make("corpus_index_job")

    warning = (
        "9 passages in the embedded index, which is meant for up to 8: set ELASTICSEARCH_URL to use "
        "Elasticsearch"
    )
    logged = graph.instance.all_logs(result.run_id)
    assert [entry.user_message for entry in logged if entry.level == logging.WARNING] == [warning]
    assert metadata(result, "corpus_index")["warnings"] == warning


def test_a_shard_that_is_no_longer_registered_leaves_the_index(graph):
    graph.make("corpus_index_job")
    graph.instance.delete_dynamic_partition(document_shards.name, "a.jsonl")
    result = graph.make("corpus_index_job")
    assert counts(result) == (5, 1, 0, 1, 0)
    assert failed_checks(result) == []


def test_a_shard_without_documents_is_counted_and_not_waited_for(graph):
    write_jsonl(graph.source / "c.jsonl", range(9, 12))
    graph.register()
    result = graph.make("corpus_index_job")
    assert result.success
    assert metadata(result, "corpus_index")["shards_without_documents"] == 1
    assert counts(result) == (9, 2, 2, 0, 9)


def test_one_id_with_two_texts_is_refused_with_both_places(graph):
    (graph.source / "c.jsonl").write_text('{"id": "p002", "text": "Something else altogether."}\n')
    graph.register()
    assert graph.make("documents_job", "c.jsonl").success
    result = graph.make("corpus_index_job")
    assert not result.success
    said = failure_text(result)
    assert [word for word in ("p002", "a.jsonl:3", "c.jsonl:1") if word not in said] == [], said


def test_a_text_under_two_ids_is_allowed_and_reported(graph):
    twin = passage(2).replace('"', "")
    (graph.source / "c.jsonl").write_text(f'{{"id": "twin", "text": "{twin}"}}\n')
    graph.register()
    assert graph.make("documents_job", "c.jsonl").success
    result = graph.make("corpus_index_job")
    assert result.success
    made = metadata(result, "corpus_index")
    assert made["duplicate_texts"] == 1
    (record,) = made["duplicates"].records
    assert set(record.data["doc_ids"].split(", ")) == {"p002", "twin"}
    assert failed_checks(result) == ["corpus_index/texts_distinct_across_shards"]
