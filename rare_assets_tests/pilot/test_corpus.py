"""A pilot's corpus: the same sample wherever documents lie, and the negatives that a run would find."""

import pytest

from rare_assets.corpus.source import CorpusSource
from rare_assets.pilot.corpus import PilotCorpus, PilotError
from rare_assets.resources.configurable import Bm25Retriever, Storage
from rare_assets.stages.corpus_index import CorpusIndexConfig
from rare_assets_tests.support.graph import Graph
from rare_assets_tests.support.pilot import TEXTS, write_corpus


@pytest.fixture
def corpus(nothing_set, tmp_path):
    """Opens the corpus in a folder; what it says goes to `said`."""

    def opened(source="corpus", said=None):
        storage = Storage(root=str(tmp_path / "storage"))
        retriever = Bm25Retriever(storage=storage)
        say = (said if said is not None else []).append
        url = str(tmp_path / source)
        return PilotCorpus(CorpusSource(url, 10), storage.tables(), retriever, say)

    return opened


def ids(corpus, n=3, seed=0):
    with corpus as opened:
        return opened.sample(n, seed).documents["doc_id"].to_list()


def test_the_sample_follows_from_the_seed_and_not_from_the_files(corpus, tmp_path):
    write_corpus(tmp_path / "corpus", files=2)
    write_corpus(tmp_path / "other", files=3)
    first = ids(corpus())
    assert len(set(first)) == 3
    assert ids(corpus("other")) == first
    assert any(ids(corpus(), seed=seed) != first for seed in (1, 2, 3))


def test_a_corpus_that_grows_keeps_most_of_the_sample(corpus, tmp_path):
    write_corpus(tmp_path / "corpus")
    write_corpus(tmp_path / "grown", [*TEXTS, *(f"{text} And more." for text in TEXTS)])
    before, after = ids(corpus(), 6), ids(corpus("grown"), 6)
    # What stays is in the same order, with new ones between.
    kept = [doc_id for doc_id in after if doc_id in before]
    assert kept == [doc_id for doc_id in before if doc_id in kept]
    assert kept


def test_the_passages_of_a_parent_come_with_those_of_the_sample(corpus, tmp_path):
    (tmp_path / "corpus").mkdir()
    text = "\n\n".join(f"# Part {n}\n\n{' '.join(TEXTS)} In part {n}." for n in range(4))
    (tmp_path / "corpus/a.md").write_text(text)
    (tmp_path / "corpus/b.md").write_text(TEXTS[0])
    with corpus() as opened:
        whole = opened.sample(100, 0)
        (one,) = [
            s for s in (opened.sample(1, seed) for seed in range(9)) if s.families.height > 1
        ][:1]
    assert whole.documents.height > one.families.height > 1
    assert one.families["parent_id"].unique().to_list() == ["a.md"]
    assert one.documents["doc_id"].item() in one.families["doc_id"]


def test_all_documents_where_there_are_fewer(corpus, tmp_path):
    write_corpus(tmp_path / "corpus")
    assert sorted(ids(corpus(), 100)) == [f"d{n}" for n in range(6)]


def test_nothing_is_written_to_the_storage(corpus, tmp_path):
    write_corpus(tmp_path / "corpus")
    with corpus() as opened, opened.searching(CorpusIndexConfig()) as (_, state):
        assert (opened.n_documents, opened.n_shards, state.n_documents) == (6, 2, 6)
    assert not (tmp_path / "storage").exists()


def test_an_empty_corpus_is_told(corpus, tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(PilotError, match="holds no document that can be used"):
        ids(corpus())


def test_a_file_that_can_not_be_read_is_left_out_and_told(corpus, tmp_path):
    write_corpus(tmp_path / "corpus")
    (tmp_path / "corpus/x.parquet").write_bytes(b"PAR1 this is none")
    said = []
    assert len(ids(corpus(said=said), 100)) == 6
    assert any("x.parquet is left out" in line for line in said)


def test_what_is_stored_and_current_is_used_as_it_is(nothing_set, tmp_path):
    graph = Graph(tmp_path)
    write_corpus(graph.source)
    graph.register()
    for shard in graph.shards:
        graph.make("documents_job", shard)
    graph.make("corpus_index_job")
    said = []

    def opened():
        return PilotCorpus(graph.corpus.source(), graph.tables, graph.retriever, said.append)

    with opened() as corpus, corpus.searching(CorpusIndexConfig()) as (engine, state):
        assert corpus.tables.root == graph.tables.root
        assert str(engine.path).startswith(str(tmp_path))
        assert state.shards.keys() == set(graph.shards)
    assert said == []
    # Ranked otherwise, it needs an index of its own, and so does a source that has changed.
    with opened() as corpus, corpus.searching(CorpusIndexConfig(k1=1.2)) as (engine, state):
        assert not str(engine.path).startswith(str(tmp_path))
        assert (state.bm25.k1, state.n_documents) == (1.2, 6)
    write_corpus(
        graph.source, [*TEXTS, "Ice floats since it is lighter than the water it came from."]
    )
    with opened() as corpus, corpus.searching(CorpusIndexConfig()) as (_, state):
        assert state.n_documents == 7
    assert graph.tables.provenance("documents", "0.jsonl").n_rows == 3
