"""The proof that the data trains, on tiny inputs: its gradient, its figures, and its way through the graph."""

import json

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from rare_assets_tests.benchmarks import training
from rare_assets_tests.benchmarks.training import Encoder, Questions, Triplets

VOCABULARY = 500


def words(texts):
    return [[sum(map(ord, word)) % VOCABULARY for word in text.split()] for text in texts]


@pytest.fixture
def encoder():
    table = np.random.default_rng(1).normal(size=(VOCABULARY, 16))
    return Encoder(table, words)


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(2)
    table = rng.normal(size=(9, 4))
    anchors = sp.csr_matrix(rng.random((3, 9)) * (rng.random((3, 9)) > 0.5) + np.eye(3, 9))
    passages = sp.csr_matrix(rng.random((6, 9)) + np.eye(6, 9))
    _, rows, gradient = training.loss_and_gradient(table, anchors, passages)
    for row, its in zip(rows, gradient, strict=True):
        for column in range(4):
            step = np.zeros_like(table)
            step[row, column] = 1e-5
            high = training.loss_and_gradient(table + step, anchors, passages)[0]
            low = training.loss_and_gradient(table - step, anchors, passages)[0]
            assert its[column] == pytest.approx((high - low) / 2e-5, abs=1e-5)


def test_ndcg_is_that_of_a_ranking_by_hand():
    # A query along the first axis; documents rank 0, 1, 2, 3 by the angle to it.
    table = np.array([[1.0, 0.0], [0.9, 0.1], [0.6, 0.4], [0.0, 1.0]])
    documents = sp.identity(4, format="csr")
    relevant = [np.array([1]), np.array([0, 3])]
    found = Questions("x", documents[[0, 0]], documents, relevant).ndcg(table)
    second = 1 / np.log2(3)
    assert found == pytest.approx([second, (1 + 1 / np.log2(5)) / (1 + second)])


def test_pairs_are_learnt_and_shuffled_ones_are_not(encoder):
    chosen = np.random.default_rng(3).integers(0, VOCABULARY, (120, 2, 4))
    rows = np.repeat(np.arange(120), 4)
    weights = np.full(480, 0.25)
    asked, given = (
        sp.csr_matrix((weights, (rows, chosen[:, side].ravel())), shape=(120, VOCABULARY))
        for side in (0, 1)
    )
    questions = Questions("x", asked, given, [np.array([n]) for n in range(120)])
    triplets = Triplets(asked, given, None)
    learnt = training.train(encoder.table, triplets, seed=0, epochs=60)
    shuffled = training.train(encoder.table, triplets.shuffled(0), seed=0, epochs=60)
    before = questions.ndcg(encoder.table).mean()
    assert questions.ndcg(learnt).mean() > before + 0.2
    assert questions.ndcg(shuffled).mean() < before + 0.1


def test_the_interval_holds_the_mean_and_shrinks_with_the_queries():
    few, many = np.tile([0.0, 1.0], 10), np.tile([0.0, 1.0], 1000)
    mean, low, high = training.interval(few)
    assert (mean, low < 0.4, high > 0.6) == (0.5, True, True)
    mean, low, high = training.interval(many)
    # 1.96 x 0.5 / sqrt(2000)
    assert (mean, low, high) == pytest.approx((0.5, 0.478, 0.522), abs=0.004)


@pytest.fixture
def collection(tmp_path):
    """Documents with titles, whose texts begin with them, and a judged query each."""
    folder = tmp_path / "judged"
    folder.mkdir()
    texts = [
        f"Keel {n}. " + " ".join(f"word{n * k % 97} plank{n + k}" for k in range(1, 16))
        for n in range(60)
    ]
    documents = [
        {"_id": f"d{n}", "title": f"Keel {n}", "text": text} for n, text in enumerate(texts)
    ]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    queries = [{"_id": f"q{n}", "text": f"plank{n + 1} word{n}"} for n in range(60)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judged = "\n".join(f"q{n}\td{n}\t1" for n in range(60))
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}\n")
    return folder


def test_titles_ask_for_texts_that_do_not_say_them(collection):
    rows = training.titles(collection)
    assert len(rows) == 60
    assert rows[7]["question"] == "Keel 7"
    assert rows[7]["text"].startswith("word7 plank8")


def test_rows_with_questions_become_triplets_and_held_out_questions(collection, tmp_path, encoder):
    exports = training.make(training.titles(collection), tmp_path)
    triplets = training.read_triplets(exports, encoder)
    held_out = training.read_judged(exports / "beir" / "test")
    n_train, n_test = triplets.anchors.shape[0], held_out.queries.height
    assert n_train + n_test <= 60
    assert n_train > 30
    assert n_test > 2
    assert triplets.negatives.shape == triplets.positives.shape
    file = next((exports / "sentence-transformers/train").glob("*.jsonl.parquet"))
    assert not set(pl.read_parquet(file)["anchor"]) & set(held_out.queries["query"])

    results = training.run(exports, [collection], seeds=1, encoder=encoder)
    assert [(r.questions, r.way, len(r.ndcg)) for r in results] == [
        (name, way, n)
        for way in training.WAYS
        for name, n in (("held-out questions", n_test), ("judged", 60))
    ]
    rows = training.shown(results)
    assert len(rows) == 2 * (len(training.WAYS) + 1)
    assert rows[0][4] == ""
    assert "(" in rows[-1][4]


def test_wordllama_has_its_table_and_tokenizer():
    encoder = training.wordllama()
    assert encoder.table.shape == (32_000, 256)
    salt, brine, loan = (
        encoder.bags(["salt water", "brine of the sea", "a bank loan"]) @ encoder.table
    )
    close = salt @ brine / np.linalg.norm(salt) / np.linalg.norm(brine)
    assert close > salt @ loan / np.linalg.norm(salt) / np.linalg.norm(loan)
