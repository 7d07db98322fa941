"""The asset `documents`: what its runs say and stop."""

import io
import json
import os

import dagster as dg
import polars as pl
import pytest

from rare_assets.resources.configurable import Corpus
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph, failed_checks, failure_text, metadata
from rare_assets_tests.support.passages import passage, row, write_json_list, write_jsonl


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
    assert made["reject_rate"] == round(2 / 22, 4)
    assert made["words"] == sum(len(passage(number).split()) for number in range(20))
    assert made["rejects_by_reason"] == "1 duplicate_id, 1 text_not_a_string"
    assert made["rejects_path"] == str(graph.tables.rejects_path("documents", "a.jsonl"))
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


def judged(result):
    """What `file_readable` found in that run."""
    (found,) = [
        each for each in result.get_asset_check_evaluations() if each.check_name == "file_readable"
    ]
    return found


def problem(result):
    return judged(result).description


def file_rejects(graph, shard):
    rejects = graph.tables.scan_rejects("documents", shard).collect()
    return rejects.filter(rejects["row"].is_null()).rows()


def cut_off_parquet():
    content = io.BytesIO()
    pl.DataFrame({"text": [passage(number) for number in range(4)]}).write_parquet(content)
    return content.getvalue()[:-20]


UNREADABLE = {
    "cut.json": (b'[{"text": "a"}, {"text": "b', "unreadable_file", "element 2"),
    "object.json": (b'{"text": "an object"}', "unreadable_file", "not a list of objects"),
    "cut.parquet": (cut_off_parquet(), "unreadable_file", "Check that it is whole"),
    "none.parquet": (b"", "unreadable_file", "the file has no bytes"),
    "column.csv": (b"body\nx\n", "unreadable_file", "exactly one column `text`"),
    "quote.csv": (b'text\n"never closed\n', "no_usable_row", "unexpected end of data"),
    "empty.jsonl": (b"", "no_usable_row", "it has no rows"),
    "latin.txt": ("caf\u00e9".encode("latin-1"), "no_usable_row", "not_utf8"),
    "latin.jsonl": (
        json.dumps(row(1) | {"text": "é"}, ensure_ascii=False).encode("latin-1"),
        "no_usable_row",
        "not_utf8 1",
    ),
}


def test_files_that_cannot_be_read_give_empty_tables_and_block_their_own_shards(graph):
    for name, (content, _, _) in UNREADABLE.items():
        (graph.source / name).write_bytes(content)
    write_jsonl(graph.source / "good.jsonl", range(3))
    graph.register()
    for name, (_, reason, words) in UNREADABLE.items():
        result = graph.make("documents_job", name)
        assert "documents/file_readable" in failed_checks(result), name
        assert not result.success
        assert result.asset_materializations_for_node("documents")
        assert words in problem(result)
        assert problem(result).startswith(f"{name}: ")
        assert problem(result).endswith(" The shard has no documents.")
        assert judged(result).severity is dg.AssetCheckSeverity.ERROR
        assert graph.tables.scan("documents", name).collect().height == 0
        assert file_rejects(graph, name) == [(name, None, reason, problem(result))]
        assert metadata(result, "documents")["problem"] == problem(result)
    # What is asked about, the index and the others go on.
    assert not graph.make("questions_job", "cut.json").success
    assert not graph.tables.exists("questions", "cut.json")
    assert graph.endpoint.requests == []
    assert graph.make("questions_job", "good.jsonl").success
    assert graph.make("corpus_index_job").success
    assert graph.make("rare_job", "good.jsonl").success


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(b""),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.symlink_to("nowhere.json")),
    ],
    ids=["cut off", "emptied", "a pipe", "a link to nowhere"],
)
def test_a_shard_keeps_its_last_good_table_and_mends_itself_with_its_file(graph, damage):
    path = write_json_list(graph.source / "a.json", range(4))
    path.write_text(path.read_text()[:-1] + ', {"text": 7}]')
    good = path.read_bytes()
    graph.register()
    graph.make("documents_job", "a.json")
    before = graph.tables.scan("documents", "a.json").collect()
    footer = graph.tables.provenance("documents", "a.json")
    damage(path)
    for _ in range(2):
        result = graph.make("documents_job", "a.json")
        assert not result.success
        assert not judged(result).passed
        assert problem(result).endswith("The 4 documents of an earlier reading are kept.")
        assert graph.tables.scan("documents", "a.json").collect().equals(before)
        kept = graph.tables.provenance("documents", "a.json")
        assert (kept.content_hash, kept.n_rows, kept.n_rejects) == (footer.content_hash, 4, 2)
        assert dict(kept.made_from).items() >= dict(footer.made_from).items()
        assert len(file_rejects(graph, "a.json")) == 1
        assert graph.tables.scan_rejects("documents", "a.json").collect().height == 2
    path.unlink()
    path.write_bytes(good)
    result = graph.make("documents_job", "a.json")
    assert result.success
    assert judged(result).passed
    assert file_rejects(graph, "a.json") == []
    assert graph.tables.provenance("documents", "a.json").content_hash == footer.content_hash


def test_rows_of_a_shard_without_a_usable_one_are_rejects_beside_the_file(graph):
    (graph.source / "a.jsonl").write_text('{"text": 1}\n{"text": ""}\n')
    graph.register()
    result = graph.make("documents_job", "a.jsonl")
    assert "no usable row among 2 (" in problem(result)
    rejects = graph.tables.scan_rejects("documents", "a.jsonl").collect()
    assert rejects.select("row", "reason").rows() == [
        (1, "text_not_a_string"),
        (2, "empty_text"),
        (None, "no_usable_row"),
    ]


def test_a_shard_whose_file_is_gone_keeps_its_table_and_only_warns(graph):
    write_jsonl(graph.source / "a.jsonl", range(3))
    write_jsonl(graph.source / "b.jsonl", range(3, 6))
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    before = graph.tables.provenance("documents", "a.jsonl")
    (graph.source / "a.jsonl").unlink()
    for _ in range(2):
        result = graph.make("questions_job", "a.jsonl")
        assert result.success
        assert failed_checks(result) == ["documents/file_readable"]
        assert judged(result).severity is dg.AssetCheckSeverity.WARN
        assert "a.jsonl is gone" in problem(result)
        assert graph.tables.provenance("documents", "a.jsonl").content_hash == before.content_hash
        graph.register()  # a scan forgets the file
    assert graph.tables.scan("questions", "a.jsonl").collect().height == 3
    # Back again, it is read again.
    write_jsonl(graph.source / "a.jsonl", range(3))
    assert judged(graph.make("documents_job", "a.jsonl")).passed


def test_a_part_that_its_file_no_longer_has_keeps_its_table_and_only_warns(graph):
    graph.corpus = Corpus(url=str(graph.source), rows_per_shard=2)
    graph.rebuild()
    path = write_jsonl(graph.source / "a.jsonl", range(3))
    graph.register()
    assert graph.make("documents_job", "a.jsonl.part-00001").success
    write_jsonl(path, range(2))
    result = graph.make("documents_job", "a.jsonl.part-00001")
    assert result.success
    assert "a.jsonl has only 2 rows now" in problem(result)
    assert graph.tables.scan("documents", "a.jsonl.part-00001").collect().height == 1


def test_names_of_files_stay_on_one_line_in_what_is_said(graph):
    name = "br\u00fccke\tund\nufer \u6c34.json"
    (graph.source / name).write_text("[")
    (graph.source / "\u6c34 am ufer.jsonl").write_text(json.dumps(row(1)))
    graph.register()
    good, broken = sorted(graph.shards)
    said = problem(graph.make("documents_job", broken))
    assert said.startswith("br\u00fccke\\tund\\nufer \u6c34.json: ")
    assert file_rejects(graph, broken)[0][0] == name
    assert graph.make("documents_job", good).success


def test_a_source_that_is_gone_is_named(graph):
    write_jsonl(graph.source / "a.jsonl", range(3))
    graph.register()
    (graph.source / "a.jsonl").unlink()
    graph.source.rmdir()
    assert str(graph.source) in failure_text(graph.make("documents_job", "a.jsonl"))


def test_a_partition_that_never_was_a_shard_fails_alone(graph):
    write_jsonl(graph.source / "a.jsonl", range(3))
    graph.register()
    graph.instance.add_dynamic_partitions("rare_document_shards", ["b.jsonl"])
    for _ in range(2):
        result = graph.make("questions_job", "b.jsonl")
        assert failed_checks(result) == ["documents/file_readable"]
        assert judged(result).severity is dg.AssetCheckSeverity.ERROR
        assert "shard 'b.jsonl' is not in the source" in problem(result)
        assert "Did you mean a.jsonl?" in problem(result)
    assert file_rejects(graph, "b.jsonl")[0][2] == "no_such_shard"
    assert graph.make("documents_job", "a.jsonl").success
    assert graph.make("corpus_index_job").success
    assert graph.make("rare_job", "a.jsonl").success
    # Its file may come later.
    write_jsonl(graph.source / "b.jsonl", range(3, 6))
    assert graph.make("documents_job", "b.jsonl").success


def test_a_source_that_is_away_fails_before_a_table_is_touched(graph):
    path = write_jsonl(graph.source / "a.jsonl", range(3))
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    stored = graph.tables.path("documents", "a.jsonl")
    before = stored.read_bytes()
    path.unlink()
    graph.source.rmdir()
    result = graph.make("documents_job", "a.jsonl")
    assert "the source does not exist" in failure_text(result)
    assert result.asset_materializations_for_node("documents") == []
    assert stored.read_bytes() == before


def test_ids_and_titles_of_the_source_are_kept(graph):
    write_jsonl(graph.source / "a.jsonl", range(2))
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    stored = graph.tables.scan("documents", "a.jsonl").collect()
    assert stored.select("doc_id", "title", "text").to_dicts() == [
        {"doc_id": each["id"], "title": each["title"], "text": each["text"]}
        for each in (row(0), row(1))
    ]
