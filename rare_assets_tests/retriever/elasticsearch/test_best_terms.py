"""The best terms of texts are those of the server's own term vectors, however they are found."""

# ruff: noqa: RUF001

import math
import random
from threading import Event
from types import SimpleNamespace

import pytest
from elasticsearch import Elasticsearch

from rare_assets.retriever.analyzers import ANALYZERS
from rare_assets.retriever.elasticsearch import best_terms
from rare_assets.retriever.elasticsearch.best_terms import BestTerms
from rare_assets.retriever.elasticsearch.connection import Connection
from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever
from rare_assets.retriever.elasticsearch.index import Alias
from rare_assets.retriever.embedded.engine import EmbeddedRetriever
from rare_assets.retriever.interface import BEST_TERMS, Bm25
from rare_assets_tests.support.passages import SHARED, SUBJECTS
from rare_assets_tests.support.retrieved_corpus import Corpus, found, queries

WORDS = " ".join([SHARED, *SUBJECTS.values()]).split()
LANGUAGES = {
    "english": "The foxes' dens aren't far: e.g. 3.14 km, naïve_words and U.S. 🦊 ﬁsh. 日本 ภาษาไทย",
    "german": "Die Häuser der Müllers und größere Straßen, schoenste Wälder",
    "danish": "Husenes beboere løber gennem skovene, og børnenes cykler",
    "cjk": "东京大学 a ﾊﾝｶｸ ＡＢＣ 한국어 猫",
    "thai": "ภาษาไทย ง่าย กว่า ที่คิด",
}
NOT_INDEXED = ("", "the", "unheard of words")
ENDINGS = ("", "", "s", "ed", "ing", "'s", ".", ",")


def texts_of(analyzer):
    """Passages with inflections, in each some of what is peculiar to a language."""
    rng = random.Random(analyzer)
    peculiar = LANGUAGES[analyzer].split()
    some = [
        " ".join(
            [
                *(rng.choice(WORDS) + rng.choice(ENDINGS) for _ in range(rng.randint(3, 60))),
                *rng.choices(peculiar, k=6),
                "x" * rng.choice([1, 200, 255, 256, 600]),
            ]
        )
        for _ in range(60)
    ]
    return [*some, some[0], *NOT_INDEXED, " ".join(WORDS)]


def corpus_of(texts, folder):
    """What is indexed of the texts, in two shards."""
    kept = [text for text in texts if text not in NOT_INDEXED]
    half = len(kept) // 2
    return Corpus(
        folder,
        {
            "a": {f"a{n:03}": text for n, text in enumerate(kept[:half])},
            "b": {f"b{n:03}": text for n, text in enumerate(kept[half:])},
        },
    )


def by_term_vectors(url, index, texts):
    """The best terms by all that the server tells of each text, which is right with one primary shard."""
    with Elasticsearch(url.split(",")) as client:
        answer = client.mtermvectors(
            index=index,
            docs=[
                {
                    "doc": {"text": text},
                    "fields": ["text"],
                    "term_statistics": True,
                    "field_statistics": True,
                }
                for text in texts
            ],
        )
    return [_best_of(each["term_vectors"].get("text")) for each in answer["docs"]]


def _best_of(vector):
    if vector is None:
        return []
    n = vector["field_statistics"]["doc_count"]
    weights = [
        (-round(counts["term_freq"] * math.log1p((n - df + 0.5) / (df + 0.5)), 6), term)
        for term, counts in vector["terms"].items()
        if (df := counts.get("doc_freq", 0))
    ]
    return [term for _, term in sorted(weights)[:BEST_TERMS]]


@pytest.fixture
def opened(elasticsearch_url, elasticsearch_index):
    """Syncs a corpus and opens the index: the retriever, its connection and what `BestTerms` takes."""
    retrievers = []

    def open_index(corpus, analyzer="english", **options):
        retriever = ElasticsearchRetriever(
            elasticsearch_url, elasticsearch_index, wait_seconds=10, **options
        )
        retrievers.append(retriever)
        retriever.sync(corpus.shards, corpus.read, Bm25(analyzer=analyzer))
        retriever.settle()
        connection = retriever._connection
        return retriever, connection, Alias(connection, 1).visible()

    yield open_index
    for retriever in retrievers:
        retriever.close()


@pytest.fixture
def asked(monkeypatch):
    """What is asked of servers."""
    asked = []
    ask = Connection.ask

    def recorded(self, what, *given):
        asked.append(what)
        return ask(self, what, *given)

    monkeypatch.setattr(Connection, "ask", recorded)
    return asked


@pytest.mark.parametrize("analyzer", LANGUAGES)
def test_they_are_those_of_the_servers_term_vectors(opened, elasticsearch_url, tmp_path, analyzer):
    texts = texts_of(analyzer)
    _, connection, index = opened(corpus_of(texts, tmp_path / "documents"), analyzer)

    terms = BestTerms(connection, index).of(texts, Event())

    assert terms == by_term_vectors(elasticsearch_url, index.name, texts)
    assert max(map(len, terms)) == BEST_TERMS


@pytest.mark.parametrize("number_of_shards", [1, 3])
def test_they_are_those_of_the_embedded_engine(opened, tmp_path, number_of_shards):
    texts = texts_of("english")
    corpus = corpus_of(texts, tmp_path / "documents")
    _, connection, index = opened(corpus, number_of_shards=number_of_shards)
    embedded = EmbeddedRetriever(str(tmp_path / "index"))
    embedded.sync(corpus.shards, corpus.read, Bm25())

    terms = BestTerms(connection, index).of(texts, Event())

    assert terms == [embedded._snapshot().best_terms(text) for text in texts]
    embedded.close()


@pytest.mark.parametrize("number_of_shards", [1, 3])
def test_they_do_not_depend_on_what_was_asked_before(
    opened, tmp_path, monkeypatch, number_of_shards
):
    texts = texts_of("english")
    corpus = corpus_of(texts, tmp_path / "documents")
    _, connection, index = opened(corpus, number_of_shards=number_of_shards)
    together = BestTerms(connection, index).of(texts, Event())
    # Some are forgotten, and several requests count those of one text.
    monkeypatch.setattr(best_terms, "KNOWN_TERMS", 70)
    monkeypatch.setattr(best_terms, "COUNTED_IN_ONE", 9)
    monkeypatch.setattr(best_terms, "COUNTED_IN_ALL", 9)
    one_by_one = BestTerms(connection, index)

    backwards = [one_by_one.of([text], Event())[0] for text in reversed(texts)]

    assert backwards[::-1] == together
    assert len(one_by_one._idf) <= 100


def test_a_term_is_counted_once_and_no_text_is_sent(opened, tmp_path, asked):
    texts = texts_of("english")
    retriever, connection, _ = opened(corpus_of(texts, tmp_path / "documents"))
    indexed = [text for text in texts if text not in NOT_INDEXED]
    asked.clear()

    retriever.search_like(queries(*indexed), depth=3)
    retriever.search_like(queries(*indexed[::-1]), depth=3)

    look_up = f"look up {connection.index}"
    assert asked == [look_up, "analyze a text", "count terms", "search", look_up, "search"]


def test_the_server_makes_the_terms_where_its_analyzer_differs(
    opened, elasticsearch_url, tmp_path, asked, monkeypatch
):
    texts = texts_of("english")
    _, connection, index = opened(corpus_of(texts, tmp_path / "documents"))
    expected = by_term_vectors(elasticsearch_url, index.name, texts)
    english = ANALYZERS["english"]

    def but_for_one_word(text):
        return ["valv-e" if term == "valv" else term for term in english(text)]

    # Alike, as far as the probe goes: only a text that has the word is sent.
    monkeypatch.setitem(best_terms.ANALYZERS, "english", but_for_one_word)
    made_here = BestTerms(connection, index)
    asked.clear()
    assert made_here.of(texts[:1], Event()) == expected[:1]
    assert made_here.of(texts, Event()) == expected
    assert "find the terms of texts" in asked

    # Unlike, and unlikely to be found out by what the index has.
    monkeypatch.setitem(best_terms.ANALYZERS, "english", lambda text: english(text)[::2])
    asked.clear()
    assert BestTerms(connection, index).of(texts, Event()) == expected
    assert asked == ["analyze a text", "find the terms of texts", "count terms"]


def test_another_state_of_the_index_is_counted_anew(opened, tmp_path):
    rare = [f"rare{n:02}word" for n in range(14)]
    corpus = Corpus(tmp_path / "documents", {"a": {"d": " ".join(rare), "e": "other"}})
    retriever, _, _ = opened(corpus)
    assert found(retriever.search_like(queries(" ".join(rare)), depth=9)) == {"q1": ["d"]}

    # The first two are the most frequent now, so no longer among the best twelve.
    corpus.put("b", {f"f{n}": f"{rare[0]} {rare[1]}" for n in range(5)})
    retriever.sync(corpus.shards, corpus.read, Bm25())

    assert found(retriever.search_like(queries(" ".join(rare)), depth=9)) == {"q1": ["d"]}


def test_a_text_that_a_shard_could_not_answer_for_is_asked_for_again(monkeypatch):
    connection = Connection(
        "http://127.0.0.1:9",
        "index",
        api_key=None,
        username=None,
        password=None,
        ca_certs=None,
        request_timeout=1,
        wait_seconds=10,
        first_wait_seconds=None,
        threads=1,
    )
    vector = {"term_vectors": {"text": {"terms": {"ไทย": {"term_freq": 2}}}}}
    failed = {"error": {"type": "no_shard_available_action_exception", "reason": "none"}}
    answers = iter([[failed, vector], [vector, vector]])
    counted = {"terms": {"ไทย": {"doc_freq": 1}}, "field_statistics": {"doc_count": 3}}
    connection.client.close()
    connection.client = SimpleNamespace(
        mtermvectors=lambda **_: {"docs": next(answers)},
        termvectors=lambda **_: {"term_vectors": {"text": counted}},
    )
    index = SimpleNamespace(name="index-1", bm25=Bm25(analyzer="thai"), global_statistics=False)

    assert BestTerms(connection, index).of(["ไทย ไทย", "ไทย ไทย"], Event()) == [["ไทย"], ["ไทย"]]
