"""The asset `hard_negatives`: which index it accepts, and what a small corpus gives."""

import dagster as dg
import pytest

from rare_assets_tests.fake_endpoint import FakeEndpoint
from rare_assets_tests.graph import Graph, failed_checks, failure_text, metadata
from rare_assets_tests.passages import passage, write_jsonl


@pytest.fixture
def graph(only_key_set, tmp_path):
    """Documents and questions of two shards, and no index yet."""
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        write_jsonl(graph.source / "a.jsonl", range(4))
        write_jsonl(graph.source / "b.jsonl", range(4, 8))
        graph.register()
        for shard in graph.shards:
            assert graph.make("questions_job", shard).success
        yield graph


def mine(graph, shard="a.jsonl", **options):
    return graph.make("rare_job", shard, "hard_negatives", hard_negatives=options)


def test_without_an_index_it_says_what_to_make(graph):
    result = mine(graph)
    assert not result.success
    assert "corpus_index" in failure_text(result)


def test_an_index_without_the_shard_is_refused_with_the_remedy(graph):
    assert graph.make("corpus_index_job").success
    write_jsonl(graph.source / "c.jsonl", range(8, 12))
    graph.register()
    assert graph.make("questions_job", "c.jsonl").success
    said = failure_text(mine(graph, "c.jsonl"))
    assert "does not hold shard 'c.jsonl'" in said
    assert "Materialize corpus_index" in said
    assert mine(graph, "a.jsonl").success


def test_an_index_with_older_content_of_the_shard_is_refused_with_the_remedy(graph):
    assert graph.make("corpus_index_job").success
    write_jsonl(graph.source / "a.jsonl", [*range(4), 9])
    graph.register()
    assert graph.make("questions_job", "a.jsonl").success
    said = failure_text(mine(graph))
    assert "older content of shard 'a.jsonl'" in said
    assert "Materialize corpus_index" in said
    assert graph.make("corpus_index_job").success
    assert mine(graph).success


def test_a_corpus_of_fewer_passages_keeps_what_there_is_and_a_check_warns(graph):
    assert graph.make("corpus_index_job").success
    result = mine(graph, num_neg=20)
    assert result.success
    rows = graph.tables.scan("hard_negatives", "a.jsonl").collect()
    others = {passage(number) for number in range(8)}
    found = rows["hard_negatives"].to_list()
    assert all(0 < len(texts) <= 7 and set(texts) <= others for texts in found)
    made = metadata(result, "hard_negatives")
    assert made["slots_unfilled"] == 4 * 20 - sum(len(texts) for texts in found)
    assert failed_checks(result) == ["hard_negatives/num_negatives_found"]
    (warned,) = (
        each
        for each in result.get_asset_check_evaluations()
        if each.check_name == "num_negatives_found"
    )
    assert warned.severity is dg.AssetCheckSeverity.WARN
    assert warned.metadata["questions_with_fewer"].value == 4
    assert warned.metadata["num_neg"].value == 20


def test_which_state_of_the_index_was_used_is_recorded(graph):
    index = graph.make("corpus_index_job")
    result = mine(graph)
    state = metadata(index, "corpus_index")["index_state"]
    assert metadata(result, "hard_negatives")["index_state"] == state
    stored = graph.tables.provenance("hard_negatives", "a.jsonl")
    assert stored.made_from["index"] == state


def test_a_corpus_that_grows_a_little_keeps_its_negatives_and_one_that_grows_much_does_not(graph):
    assert graph.make("corpus_index_job").success
    assert mine(graph).success
    before = graph.tables.scan("hard_negatives", "a.jsonl").collect()

    def grow(name, numbers):
        write_jsonl(graph.source / name, numbers)
        graph.register()
        assert graph.make("documents_job", name).success
        assert graph.make("corpus_index_job").success
        result = mine(graph)
        assert result.success
        return metadata(result, "hard_negatives")["negatives_kept"]

    assert grow("c.jsonl", range(8, 9)) == 4
    assert graph.tables.scan("hard_negatives", "a.jsonl").collect().equals(before)
    # From 8 to 10 documents it has grown by more than a fifth only with the first growth counted.
    assert grow("d.jsonl", range(9, 11)) == 0
