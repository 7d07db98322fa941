"""What every engine has to do, tried on each of them."""

import math
from collections import Counter

import polars as pl
import pytest

from rare_assets.retriever.interface import (
    HITS,
    SCORES,
    TEXTS,
    Bm25,
    IndexConflict,
    IndexMissing,
)
from rare_assets_tests.support.retrieved_corpus import Corpus, found, queries, text_hash


def open_elasticsearch(request):
    from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever

    url, index = (
        request.getfixturevalue(name) for name in ("elasticsearch_url", "elasticsearch_index")
    )
    return lambda: ElasticsearchRetriever(url, index, wait_seconds=10)


def open_sharded_elasticsearch(request):
    from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever

    url, index = (
        request.getfixturevalue(name) for name in ("elasticsearch_url", "elasticsearch_index")
    )
    return lambda: ElasticsearchRetriever(url, index, number_of_shards=3, wait_seconds=10)


def open_embedded(request):
    embedded = pytest.importorskip("rare_assets.retriever.embedded.engine")
    path = request.getfixturevalue("tmp_path") / "index"
    return lambda: embedded.EmbeddedRetriever(str(path))


def named(engine):
    return engine.__name__.removeprefix("open_")


# Several primary shards matter only to how results are merged.
and_sharded = pytest.mark.parametrize(
    "open_retriever",
    [open_elasticsearch, open_sharded_elasticsearch, open_embedded],
    ids=named,
    indirect=True,
)


@pytest.fixture(params=[open_elasticsearch, open_embedded], ids=named)
def open_retriever(request):
    """Opens the engine's index of this test anew, as another process would."""
    return request.param(request)


@pytest.fixture
def retriever(open_retriever):
    retriever = open_retriever()
    yield retriever
    retriever.close()


@pytest.fixture
def corpus(tmp_path):
    return Corpus(
        tmp_path / "documents",
        {
            "animals": {
                "cat": "The cat chased a mouse through the barn.",
                "dog": "Dogs chase cats; a dog barks.",
                "horse": "A horse rested in the barn all night.",
            },
            "sky": {
                "moon": "The moon rises at night over the barn.",
                "star": "Stars shine at night, and night after night.",
            },
        },
    )


# Words that the analyzer leaves as they are, so that terms are known without it.
WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "kappa",
    "lambda",
    "sigma",
    "omega",
]


def lucene_length(n):
    """A length as Lucene stores it in one byte: exact below 40, then cut to four binary digits."""
    if n < 40:
        return n
    shift = (n - 24).bit_length() - 4
    return 24 + ((n - 24) >> shift << shift)


def bm25_scores(documents, query, k1, b):
    """BM25 from its formula, for texts of single-space separated WORDS."""
    counts = {doc_id: Counter(text.split()) for doc_id, text in documents.items()}
    average = sum(count.total() for count in counts.values()) / len(counts)
    scores = {}
    for doc_id, count in counts.items():
        norm = k1 * (1 - b + b * lucene_length(count.total()) / average)
        score = 0.0
        for term in query.split():
            n = sum(term in other for other in counts.values())
            idf = math.log(1 + (len(counts) - n + 0.5) / (n + 0.5))
            score += idf * count[term] / (count[term] + norm)
        if score:
            scores[doc_id] = score
    return scores


@pytest.fixture
def known_corpus(tmp_path):
    """40 documents of 3 to 250 known words in three shards."""
    shards = {"one": {}, "two": {}, "three": {}}
    for i in range(40):
        length = 3 + (i * i) % 37 if i % 5 else 41 + 5 * i
        words = [WORDS[(i * 7 + j * (i % 4 + 1) + j * j // 3) % len(WORDS)] for j in range(length)]
        shards[("one", "two", "three")[i % 3]][f"d{i:02}"] = " ".join(words)
    return Corpus(tmp_path / "documents", shards)


@and_sharded
@pytest.mark.parametrize("bm25", [Bm25(), Bm25(k1=1.6, b=0.75)], ids=str)
def test_scores_are_bm25s(retriever, known_corpus, bm25):
    retriever.sync(known_corpus.shards, known_corpus.read, bm25)
    documents = {k: v for shard in known_corpus.documents.values() for k, v in shard.items()}
    texts = ["alpha kappa", "gamma gamma theta", "omega", "zeta eta sigma delta unknown"]

    hits = retriever.search(queries(*texts), depth=40)

    for number, text in enumerate(texts, 1):
        mine = hits.filter(question_id=f"q{number}")
        expected = bm25_scores(documents, text, bm25.k1, bm25.b)
        got = dict(mine.select("doc_id", "score").iter_rows())
        assert got == pytest.approx(expected, rel=2e-6)
        assert mine["rank"].to_list() == list(range(1, len(expected) + 1))
        order = sorted(expected, key=lambda d: (-float(f"{expected[d]:.4e}"), d))
        assert mine["doc_id"].to_list() == order
    hashes = {doc_id: text_hash(text) for doc_id, text in documents.items()}
    assert all(hashes[d] == h for d, h in hits.select("doc_id", "text_hash").iter_rows())


def test_columns_are_the_interfaces(retriever, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    pairs = queries("night").with_columns(doc_id=pl.lit("moon"))

    assert retriever.search(queries("night"), depth=2).schema == HITS
    assert retriever.search(queries(), depth=2).schema == HITS
    assert retriever.score(pairs).schema == SCORES
    assert retriever.score(pairs.clear()).schema == SCORES
    assert retriever.texts(["moon"]).schema == TEXTS
    assert retriever.texts([]).schema == TEXTS


def test_titles_are_searched_with_their_texts_and_kept_apart(retriever, tmp_path):
    text = "Tokens expire after an hour."
    titles = {"one": "Sessions, API v1", "two": "Sessions, API v2", "three": "Tokens expire"}
    corpus = Corpus(tmp_path / "documents")
    corpus.put(
        "a", {"one": text, "two": text + " Renew them.", "three": text, "four": text}, titles
    )
    retriever.sync(corpus.shards, corpus.read, Bm25())

    assert found(retriever.search(queries("api v2", "v1"), depth=9)) == {
        "q1": ["two", "one"],
        "q2": ["one"],
    }
    # A title that the text begins with does not count twice.
    both = retriever.search(queries("tokens"), depth=9).filter(
        pl.col("doc_id").is_in(["three", "four"])
    )
    assert both["score"].n_unique() == 1
    held = {doc_id: title for doc_id, _, title in retriever.texts([*titles, "four"]).iter_rows()}
    assert held == {**titles, "four": None}
    assert set(retriever.texts(["one", "three"])["text"]) == {text}

    corpus.put(
        "a", {"one": text, "two": text}, {"one": "Sessions, API v3", "two": "Sessions, API v2"}
    )
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert found(retriever.search(queries("v3", "v1"), depth=9)) == {"q1": ["one"]}


@and_sharded
def test_a_text_is_searched_with_by_its_best_terms(retriever, known_corpus):
    retriever.sync(known_corpus.shards, known_corpus.read, Bm25())
    documents = {k: v for shard in known_corpus.documents.values() for k, v in shard.items()}
    frequency = {w: sum(w in text.split() for text in documents.values()) for w in WORDS}
    text = "kappa kappa kappa alpha unknown unknown unknown " + documents["d07"]

    hits = retriever.search_like(queries(text, "unknown the", documents["d11"]), depth=40)

    def weight(term, words):
        return words.count(term) * math.log(
            1 + (40 - frequency[term] + 0.5) / (frequency[term] + 0.5)
        )

    for name, words in (("q1", text.split()), ("q3", documents["d11"].split())):
        terms = sorted(set(words) & set(WORDS), key=lambda t: (-round(weight(t, words), 6), t))[:12]
        expected = bm25_scores(documents, " ".join(terms), 0.9, 0.4)
        got = dict(hits.filter(question_id=name).select("doc_id", "score").iter_rows())
        assert got == pytest.approx(expected, rel=2e-6)
    assert hits.filter(question_id="q2").is_empty()
    assert hits.schema == HITS
    assert retriever.search_like(queries(), depth=3).schema == HITS


@and_sharded
def test_only_the_best_terms_are_looked_for(retriever, tmp_path):
    rare = [f"rare{n}word" for n in range(14)]
    corpus = Corpus(
        tmp_path / "documents",
        {"a": {**{f"d{n:02}": f"common {word}" for n, word in enumerate(rare)}, "e": "common"}},
    )
    retriever.sync(corpus.shards, corpus.read, Bm25())

    hits = retriever.search_like(queries(" ".join(["common", *rare])), depth=40)

    # Twelve of equal weight, the first by their letters; the common word is not among them.
    assert set(hits["doc_id"]) == {f"d{rare.index(word):02}" for word in sorted(rare)[:12]}


def test_words_match_by_their_stem_and_stop_words_never(retriever, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    asked = queries("a chasing cat's barks", "the and of it", " ", "unheard", "mice")

    assert found(retriever.search(asked, depth=5)) == {"q1": ["dog", "cat"]}


def test_hits_come_in_the_order_of_the_queries(retriever, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    many = queries(*(["moon", "mouse"] * 150))

    hits = retriever.search(many, depth=1)

    assert hits["question_id"].to_list() == many["question_id"].to_list()
    assert hits["doc_id"].to_list() == ["moon", "cat"] * 150


@and_sharded
def test_ties_are_ordered_by_id_even_at_the_depth(retriever, tmp_path):
    ids = [f"d{i:02}" for i in range(60)]
    scattered = sorted(ids, key=lambda doc_id: doc_id[::-1])
    corpus = Corpus(
        tmp_path / "documents",
        {
            "x": {doc_id: f"same words of {doc_id}" for doc_id in scattered[::2]},
            "y": {doc_id: f"same words of {doc_id}" for doc_id in scattered[1::2]},
        },
    )
    retriever.sync(corpus.shards, corpus.read, Bm25())

    for depth in (1, 7, 20, 60):
        assert found(retriever.search(queries("same"), depth=depth)) == {"q1": ids[:depth]}


def test_a_sync_sends_only_what_changed(retriever, corpus):
    first = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert (sorted(first.indexed_shards), first.removed_shards) == (["animals", "sky"], [])
    assert (first.n_indexed, first.n_removed) == (5, 0)
    assert first.state == retriever.state()
    assert dict(first.state.shards) == corpus.hashes
    assert (first.state.n_documents, first.state.bm25) == (5, Bm25())

    again = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert (again.indexed_shards, again.removed_shards) == ([], [])
    assert (again.n_indexed, again.n_removed) == (0, 0)
    assert again.state.fingerprint == first.state.fingerprint

    corpus.put("sky", {"moon": "The moon is new.", "sun": "The sun sets."})
    corpus.put("sea", {"tide": "The moon pulls the tide."})
    changed = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert (sorted(changed.indexed_shards), changed.removed_shards) == (["sea", "sky"], [])
    assert (changed.n_indexed, changed.n_removed) == (3, 2)
    assert changed.state == retriever.state()
    assert dict(changed.state.shards) == corpus.hashes
    assert changed.state.fingerprint != first.state.fingerprint
    hits = found(retriever.search(queries("moon", "stars", "dog"), depth=5))
    assert {question: sorted(ids) for question, ids in hits.items()} == {
        "q1": ["moon", "tide"],
        "q3": ["dog"],
    }
    assert retriever.texts(["moon", "star"]).rows() == [("moon", "The moon is new.", None)]

    corpus.drop("animals")
    smaller = retriever.sync(corpus.shards, corpus.read, Bm25())
    assert (smaller.indexed_shards, smaller.removed_shards) == ([], ["animals"])
    assert (smaller.n_indexed, smaller.n_removed) == (0, 3)
    assert dict(retriever.state().shards) == corpus.hashes
    assert found(retriever.search(queries("dog barn"), depth=5)) == {}


def test_an_index_is_there_for_whoever_opens_it(open_retriever, retriever, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    other = open_retriever()

    assert other.state() == retriever.state()
    assert found(other.search(queries("moon"), depth=1)) == {"q1": ["moon"]}
    other.close()


def test_k1_b_and_the_shards_can_change_together(retriever, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    before = retriever.search(queries("night"), depth=5)

    report = retriever.sync(corpus.shards, corpus.read, Bm25(k1=2.0, b=0.0))
    after = retriever.search(queries("night"), depth=5)

    assert retriever.state() == report.state
    assert report.state.bm25 == Bm25(k1=2.0, b=0.0)
    # Without a part for the length, a document with the term once scores idf / (1 + k1).
    idf = math.log(1 + (5 - 3 + 0.5) / (3 + 0.5))
    assert dict(after.select("doc_id", "score").iter_rows()) == pytest.approx(
        {"star": idf * 3 / 5, "moon": idf / 3, "horse": idf / 3}
    )
    assert before["score"].to_list() != after["score"].to_list()


@pytest.mark.parametrize("together", [True, False], ids=["one sync", "two syncs"])
def test_one_id_with_two_texts_is_a_conflict_that_changes_nothing(retriever, corpus, together):
    if not together:
        retriever.sync(corpus.shards, corpus.read, Bm25())
        before = retriever.state()
    corpus.put("more", {"new": "Something new.", "moon": "Another text."})

    with pytest.raises(IndexConflict) as caught:
        retriever.sync(corpus.shards, corpus.read, Bm25())

    message = str(caught.value)
    assert "'moon'" in message
    assert "sky.jsonl:1" in message
    assert "more.jsonl:2" in message
    if together:
        with pytest.raises(IndexMissing):
            retriever.state()
    else:
        assert retriever.state() == before
        assert found(retriever.search(queries("something"), depth=1)) == {}


def test_a_document_may_move_between_shards(retriever, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    corpus.put("sky", {"star": "Stars shine at night, and night after night."})
    corpus.put("animals", {"moon": "The moon as an animal."})

    retriever.sync(corpus.shards, corpus.read, Bm25())

    assert retriever.texts(["moon"]).rows() == [("moon", "The moon as an animal.", None)]
    assert dict(retriever.state().shards) == corpus.hashes


def test_a_document_in_two_shards_is_found_once_and_reported(retriever, corpus):
    text = corpus.documents["sky"]["moon"]
    corpus.put("copies", {"moon": text, "other": "Nothing to see."})
    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    assert found(retriever.search(queries("moon"), depth=1)) == {"q1": ["moon"]}
    assert found(retriever.search(queries("moon"), depth=5)) == {"q1": ["moon"]}
    assert sorted(retriever.texts(["moon", "other"])["doc_id"]) == ["moon", "other"]
    assert report.n_duplicates == 1
    assert report.duplicates.rows() == [(text_hash(text), ["moon"], ["copies", "sky"])]

    corpus.drop("sky")
    retriever.sync(corpus.shards, corpus.read, Bm25())
    assert found(retriever.search(queries("moon"), depth=5)) == {"q1": ["moon"]}


@and_sharded
def test_copies_do_not_take_the_places_of_others(retriever, tmp_path):
    shards = {
        f"s{i:02}": {"same": "night night night", f"d{i:02}": f"night x{i}"} for i in range(60)
    }
    corpus = Corpus(tmp_path / "documents", shards)
    retriever.sync(corpus.shards, corpus.read, Bm25())

    hits = retriever.search(queries("night"), depth=10)

    assert hits["doc_id"].to_list() == ["same", *(f"d{i:02}" for i in range(9))]
    texts = dict(retriever.texts(["same", "d07"]).select("doc_id", "text").iter_rows())
    assert texts == {"same": "night night night", "d07": "night x7"}


def test_one_text_under_two_ids_is_reported(retriever, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    text = corpus.documents["sky"]["moon"]
    corpus.put("more", {"luna": text, "extra": "Nothing else."})

    report = retriever.sync(corpus.shards, corpus.read, Bm25())

    assert report.n_duplicates == 1
    assert report.duplicates.rows() == [(text_hash(text), ["luna", "moon"], ["more", "sky"])]
    assert found(retriever.search(queries("moon"), depth=5)) == {"q1": ["luna", "moon"]}


@and_sharded
def test_scores_of_pairs_are_those_of_the_search(retriever, known_corpus):
    retriever.sync(known_corpus.shards, known_corpus.read, Bm25())
    hits = retriever.search(queries("alpha kappa sigma", "omega"), depth=40)
    texts = queries("alpha kappa sigma", "omega")
    pairs = hits.join(texts, on="question_id").select("question_id", "query", "doc_id")
    pairs = pairs.sample(fraction=1, shuffle=True, seed=7)

    scored = retriever.score(pairs)

    assert scored.select("question_id", "doc_id").rows() == [(q, d) for q, _, d in pairs.rows()]
    both = scored.join(hits, on=["question_id", "doc_id"], validate="1:1")
    assert both["score"].to_list() == pytest.approx(both["score_right"].to_list(), rel=1e-6)


def test_a_pair_without_a_common_term_scores_zero_and_without_a_document_null(retriever, corpus):
    retriever.sync(corpus.shards, corpus.read, Bm25())
    pairs = queries("moon", "moon", "the").with_columns(doc_id=pl.Series(["cat", "gone", "cat"]))

    assert retriever.score(pairs).rows() == [
        ("q1", "cat", 0.0),
        ("q2", "gone", None),
        ("q3", "cat", 0.0),
    ]


def test_texts_are_those_of_the_documents(retriever, known_corpus):
    retriever.sync(known_corpus.shards, known_corpus.read, Bm25())
    documents = {k: v for shard in known_corpus.documents.values() for k, v in shard.items()}

    found = retriever.texts([*documents, "gone", "d01"]).select("doc_id", "text")
    assert dict(found.iter_rows()) == documents


def test_nothing_can_be_asked_of_a_missing_index(retriever):
    pairs = queries("moon").with_columns(doc_id=pl.lit("moon"))
    with pytest.raises(IndexMissing, match="corpus_index"):
        retriever.state()
    with pytest.raises(IndexMissing, match="corpus_index"):
        retriever.search(queries("moon"), depth=1)
    with pytest.raises(IndexMissing, match="corpus_index"):
        retriever.score(pairs)
    with pytest.raises(IndexMissing, match="corpus_index"):
        retriever.texts(["moon"])


def test_text_of_any_script_and_ids_of_any_form_are_kept(retriever, tmp_path):
    documents = {
        "π/ø ?#&": "Größe größe — Øresund naïve 東京 emoji 🌙 cafe\u0301",
        'with "quotes" and \\': 'line\nbreaks\tand "quotes"',
        "x" * 400: "long name",
    }
    corpus = Corpus(tmp_path / "documents", {"ö ä": documents})
    retriever.sync(corpus.shards, corpus.read, Bm25())

    held = retriever.texts(documents).select("doc_id", "text")
    assert dict(held.iter_rows()) == documents
    assert found(retriever.search(queries("øresund", "quotes", "name"), depth=1)) == dict(
        zip(("q1", "q2", "q3"), ([doc_id] for doc_id in documents), strict=True)
    )
