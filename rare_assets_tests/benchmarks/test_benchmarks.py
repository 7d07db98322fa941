"""The benchmarks on tiny inputs: that they run, and that figures which are no times are right."""

import json

import dagster as dg
import polars as pl
import pytest
from elasticsearch import Elasticsearch

from rare_assets.command.plan import Planner
from rare_assets.command.status import shard_states
from rare_assets.corpus.scan import scan_source
from rare_assets.resources.configurable import Bm25Retriever, Corpus, Storage, TeacherModel
from rare_assets.resources.dataset import UNNAMED
from rare_assets.resources.partitions import registered_shards
from rare_assets.retriever.interface import Bm25
from rare_assets.stages.options import Options
from rare_assets.text.words import count_words
from rare_assets_tests.benchmarks import (
    corpora,
    exports,
    false_negatives,
    large_corpus,
    retrieval,
    scale,
    sources,
)
from rare_assets_tests.benchmarks.corpora import read_judged
from rare_assets_tests.benchmarks.languages import LANGUAGES, agreement, passages
from rare_assets_tests.benchmarks.languages import run as run_language
from rare_assets_tests.support.elasticsearch_node import Unavailable
from rare_assets_tests.support.graph import MODEL


def judged_folder(folder, qrels="qrels.tsv"):
    """Thirty documents ranked d00, d01, ... for the one question; four are relevant, two titled."""
    documents = [
        {"_id": f"d{n:02}", "text": f"other{n} " * n + "keel " * (40 - n)} for n in range(30)
    ]
    documents[3] = {"_id": "d03", "title": "Keel", "text": documents[3]["text"]}
    documents[4]["title"] = ""
    documents.append({"_id": "blank", "title": "", "text": " "})
    folder.joinpath("corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    folder.joinpath("queries.jsonl").write_text('{"_id": "1", "text": "keel", "metadata": {}}\n')
    judgments = [("d00", 1), ("d01", 2), ("d03", 1), ("d21", 1), ("d02", 0), ("gone", 1)]
    rows = ["query-id\tcorpus-id\tscore", *(f"1\t{doc_id}\t{score}" for doc_id, score in judgments)]
    file = folder / qrels
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize("qrels", ["qrels.tsv", "qrels/test.tsv"])
def test_a_judged_collection_is_read_in_the_common_form(tmp_path, qrels):
    collection = read_judged(judged_folder(tmp_path, qrels))
    texts = dict(collection.documents.select("doc_id", "text").iter_rows())
    assert len(texts) == 30
    assert texts["d03"].startswith("Keel\nother3 ")
    assert texts["d04"].startswith("other4 ")
    assert collection.queries.rows() == [("1", "keel")]
    assert collection.relevant.rows() == [("1", "d00"), ("1", "d01"), ("1", "d03"), ("1", "d21")]


def test_a_missing_file_or_judgments_of_nothing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"corpus\.jsonl is missing"):
        read_judged(tmp_path)
    folder = judged_folder(tmp_path)
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n2\td00\t1\n")
    with pytest.raises(ValueError, match=r"qrels\.tsv judges no document"):
        read_judged(folder)


def test_false_negatives_are_counted_for_every_gold_and_slot(tmp_path):
    figures = dict(false_negatives.measure(read_judged(judged_folder(tmp_path))))
    assert set(figures) == set(false_negatives.SETTINGS)
    plain = figures["plain top 3"]
    # Golds d00, d01, d03, d21: of d01 d02 d03, d00 d02 d03, d00 d01 d02, d00 d01 d02.
    assert plain.questions == 4
    assert plain.false == pytest.approx(8 / 12)
    assert plain.false_by_slot == pytest.approx([1.0, 0.5, 0.5])
    assert (plain.found, plain.whole) == (3.0, 1.0)
    assert plain.rank == pytest.approx((2 + 3 + 4 + 1 + 3 + 4 + 1 + 2 + 3 + 1 + 2 + 3) / 12)
    # Ranks 20 to 22, without the gold: d21 d22 d23 thrice, once d20 d22 d23.
    assert figures["range_min=20"].false == pytest.approx(3 / 12)

    best = dict(false_negatives.measure(read_judged(tmp_path), within=10))["plain top 3"]
    assert (best.questions, best.false) == (3, pytest.approx(6 / 9))


def test_the_false_negatives_benchmark_prints_a_row_a_setting(tmp_path, capsys):
    false_negatives.main([str(judged_folder(tmp_path))])
    printed = capsys.readouterr().out
    for setting in false_negatives.SETTINGS:
        assert printed.count(f"│ {setting} ") == 2


def test_the_benchmark_of_exports_writes_every_part_of_a_corpus(tmp_path):
    exports.write(str(tmp_path), 40)
    for part in (exports.SPLITS, "sentence-transformers", "messages", exports.COMPLETE):
        rows, size, seconds, peak = exports.export(str(tmp_path), part)
        assert (rows > 0) == (size > 0) == (part in ("sentence-transformers", "messages"))
        assert seconds > 0
        assert peak > 50
    assert rows == 0
    assert (tmp_path / "exports/README.md").exists()


def test_made_up_passages_are_the_same_for_a_seed_and_as_prose_is():
    documents = corpora.passages(2_000)
    assert documents.equals(corpora.passages(2_000))
    assert not documents["text"].equals(corpora.passages(2_000, seed=1)["text"])
    words = documents["text"].str.split(" ")
    assert 80 < words.list.len().mean() < 96
    counts = words.explode().value_counts(sort=True)
    assert counts[0, 0] == "the"
    assert 0.04 < counts["count"][0] / counts["count"].sum() < 0.08
    assert counts.filter(pl.col("count") == 1).height > 0.4 * counts.height

    changed = corpora.with_changes(documents, 0.01)
    differs = documents["text_hash"] != changed["text_hash"]
    assert differs.arg_true().to_list() == list(range(20))

    asked = corpora.questions_about(documents, 50).join(documents, on=["doc_id", "text_hash"])
    shared = [
        len(set(question.split()) & set(text.split())) / len(set(question.split()))
        for question, text in asked.select("question", "text").iter_rows()
    ]
    assert len(shared) == 50
    assert min(shared) > 0.4


def test_english_passages_are_different_prose_of_about_ninety_words():
    documents = corpora.english(300)
    assert documents.height == 300
    assert documents["text"].n_unique() == documents["doc_id"].n_unique() == 300
    words = documents["text"].str.split(" ").list.len()
    assert words.min() >= 30
    assert words.max() == 90
    assert documents["text"].str.contains(" the ").mean() > 0.8

    asked = corpora.sentences_of(documents, 50)
    assert asked.equals(corpora.sentences_of(documents, 50))
    assert asked["question_id"].n_unique() == 50
    for text, question in asked.join(documents, on="doc_id").select("text", "question").rows():
        assert question in text
        assert 8 <= len(question.split()) <= 40


def test_the_sorting_miner_ranks_as_its_formula_says():
    documents = pl.DataFrame(
        {"doc_id": ["a", "b", "c", "d"], "text": ["keel", "keel mast", "mast sail sail", "oar"]}
    )
    miner = retrieval.SortingMiner(documents, Bm25(k1=0.9, b=0.4))
    assert miner.mine("keel unheard", gold="b") == ["a", "c", "d"]
    # Both terms are in two of four documents; twice in five words counts more in c than in b.
    assert miner.mine("sail sail mast", gold="", num_neg=2) == ["c", "b"]


@pytest.fixture
def measured_once(monkeypatch):
    """Each figure of the retrieval benchmark is measured once, not the median of several."""
    monkeypatch.setattr(retrieval, "ROUNDS", 1)
    monkeypatch.setattr(retrieval, "CHANGES", 1)


@pytest.fixture
def synced_here(monkeypatch):
    """Syncs are made in this process: their peak memory is not looked at, and there are two dozen of them."""
    monkeypatch.setattr(retrieval, "sync_apart", retrieval.sync_here)


def test_the_retrieval_benchmark_prints_a_table_with_both_engines(
    measured_once, synced_here, elasticsearch_url, capsys
):
    arguments = ["--passages", "300", "--english", "200", "--questions", "40"]
    retrieval.main([*arguments, "--elasticsearch", elasticsearch_url])
    printed = capsys.readouterr().out
    assert "300 passages" in printed
    assert "200 passages of English" in printed
    assert printed.count("top 10 in common") == 2
    assert printed.count("peak memory of the load") == 2
    for what in [
        *("embedded: load", "embedded: mining, defaults", "embedded: sync after 1 % changed"),
        *("whole-corpus sort: mining", "bare client: parallel_bulk", "bare client: msearch"),
        *("Elasticsearch: load", "Elasticsearch: mining, defaults", "Elasticsearch: sync after"),
    ]:
        assert what in printed
    with Elasticsearch(elasticsearch_url.split(",")) as client:
        assert not client.indices.get(index="rare-benchmark-*")


def test_the_benchmark_of_a_large_corpus_prints_its_figures(elasticsearch_url, capsys):
    arguments = ["--passages", "300", "--shards", "3", "--questions", "20"]
    large_corpus.main([*arguments, "--elasticsearch", elasticsearch_url])
    printed = capsys.readouterr().out
    assert "300 passages, 3 shards" in printed
    assert "sync after 100 changed" in printed
    for what in ("load: peak memory", "mining, defaults", "index on disk", "server: peak memory"):
        assert what in printed
    with Elasticsearch(elasticsearch_url.split(",")) as client:
        assert not client.indices.get(index="rare-benchmark-*")


def test_parts_of_a_made_up_corpus_differ_in_all_but_their_words():
    one, other = corpora.passages(300, part=1), corpora.passages(300, part=2)
    assert not set(one["doc_id"]) & set(other["doc_id"])
    assert not set(one["text"]) & set(other["text"])
    words = [set(" ".join(part["text"]).split()) for part in (one, other)]
    assert len(words[0] & words[1]) > 0.3 * len(words[0])


def test_the_retrieval_benchmark_runs_without_elasticsearch(measured_once, monkeypatch, capsys):
    def unavailable(**options):
        raise Unavailable("no JDK")

    monkeypatch.setattr(retrieval, "ElasticsearchNode", unavailable)
    retrieval.main(["--passages", "200", "--questions", "20"])
    printed = capsys.readouterr()
    assert "embedded: mining, defaults" in printed.out
    assert "Elasticsearch" not in printed.out
    assert "without Elasticsearch: no JDK" in printed.err


def test_the_benchmark_of_languages_makes_every_table_alike_on_both_engines(
    only_key_set, elasticsearch_url, elasticsearch_index, tmp_path
):
    outcomes = [
        run_language("arabic", tmp_path / "embedded", 24, None),
        run_language("arabic", tmp_path / "server", 24, (elasticsearch_url, elasticsearch_index)),
    ]
    for outcome in outcomes:
        assert set(outcome.rows.values()) == {24}
        assert outcome.gold_median == 1
        assert outcome.three_negatives == 24
        # The scripted questions begin alike, and find their gold at once: that is told.
        assert set(outcome.failed) <= {"questions/quality", "hard_negatives/quality"}
    assert agreement(*(outcome.top for outcome in outcomes)) >= 0.99


@pytest.mark.parametrize("name", LANGUAGES)
def test_passages_of_a_language_differ_and_are_long_enough_to_be_asked_about(name):
    made = list(passages(LANGUAGES[name], 240))
    assert len(set(made)) == 240
    assert made == list(passages(LANGUAGES[name], 240))
    assert min(map(count_words, made)) >= 20
    assert "{" not in "".join(made)


def test_thai_needs_elasticsearch(tmp_path):
    assert "set ELASTICSEARCH_URL" in run_language("thai", tmp_path, 5, None)


@pytest.mark.parametrize("name", sources.FORMATS)
def test_sources_of_every_format_are_written_and_read(tmp_path, name):
    sources.write(tmp_path, name, 0.05)
    n, took, worked, peak = sources.read(tmp_path)
    assert n > 20
    assert min(took, worked) > 0
    assert peak > 50


def test_all_that_the_benchmark_of_many_shards_stores_is_current(nothing_set, tmp_path):
    """Else it would time how shards are made."""
    nothing_set.setenv("RARE_MODEL", MODEL)
    storage = Storage(root=str(tmp_path / "storage"))
    corpus = Corpus(url=str(tmp_path / "corpus"))
    scale.write_source(tmp_path / "corpus", 3)
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        scale.store_all(storage, corpus, instance)
        registered = registered_shards(instance, UNNAMED)
        scan = scan_source(corpus.source(), storage.tables(), registered)
    planner = Planner(
        storage.tables(),
        Bm25Retriever(storage=storage),
        TeacherModel(storage=storage),
        Options.from_run_config({}),
    )
    states = shard_states(planner, scan.shards, planner.index_state())
    assert len(registered) == 3
    assert {stage.state for shard in states.values() for stage in shard.values()} == {"current"}
