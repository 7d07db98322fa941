"""Postings against a plain count of the same documents: written, merged, filtered, found."""

import random
from collections import Counter

import numpy as np
import pytest

from rare_assets.retriever.embedded import postings as embedded_postings
from rare_assets.retriever.embedded.postings import (
    Postings,
    frequencies_among,
    lucene_length,
    merge_postings,
    term_hash,
    write_postings,
)


# SmallFloat.byte4ToInt(SmallFloat.intToByte4(length)), asked of Lucene.
@pytest.mark.parametrize(
    ("length", "kept"),
    [
        *((n, n) for n in (0, 1, 7, 8, 15, 16, 23, 24, 25, 38, 39, 40)),
        (41, 40),
        (42, 42),
        (55, 54),
        (56, 56),
        (59, 56),
        (60, 60),
        (88, 88),
        (95, 88),
        (100, 96),
        (152, 152),
        (183, 168),
        (1000, 984),
        (100_000, 98328),
    ],
)
def test_lengths_are_rounded_as_lucene_rounds_them(length, kept):
    assert lucene_length(np.array([length])).tolist() == [kept]


def documents_of(rng, n, n_words=400):
    """Documents as terms, some empty, some with a term a thousand times."""
    made = [
        [f"t{int(rng.paretovariate(0.7)) % n_words}" for _ in range(rng.randint(0, 60))]
        for _ in range(n)
    ]
    made[n // 2] += ["often"] * rng.randint(1, 1000)
    return made


def counted(documents):
    """(term, row) -> how often, and the document's length as it is kept."""
    lengths = lucene_length(np.array([len(of) for of in documents]))
    return {
        (term, row): (count, lengths[row])
        for row, of in enumerate(documents)
        for term, count in Counter(of).items()
    }


def held(folder, terms):
    """The same of postings on disk."""
    postings = Postings.open(folder)
    assert (np.diff(postings.terms.astype(object)) > 0).all()
    found = {}
    names = sorted(terms)
    hashes = np.array([term_hash(term) for term in names], np.uint64)
    for term, start, end in zip(names, *postings.find(hashes), strict=True):
        for row, impact in zip(postings.rows[start:end], postings.impacts[start:end], strict=True):
            assert (term, row) not in found
            found[term, int(row)] = (postings.counts[impact], postings.lengths[impact])
    assert len(found) == len(postings.rows)
    return found


def test_postings_hold_each_term_of_each_document(tmp_path):
    documents = documents_of(random.Random(1), 300)
    lengths = write_postings(tmp_path / "p", documents)

    assert lengths.tolist() == [len(of) for of in documents]
    expected = counted(documents)
    assert held(tmp_path / "p", {term for term, _ in expected} | {"none"}) == expected


@pytest.mark.parametrize("at_once", [1, 500, 1 << 20])
def test_merged_postings_are_those_of_all_documents_that_stay(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(embedded_postings, "_AT_ONCE", at_once)
    rng = random.Random(2)
    parts = [documents_of(rng, n) for n in (120, 1, 40)]
    new_rows = list(range(161))
    rng.shuffle(new_rows)
    left_out = set(rng.sample(range(161), 50))
    sources, merged, first = [], [[] for _ in new_rows], 0
    for number, documents in enumerate(parts):
        write_postings(tmp_path / str(number), documents)
        rows = new_rows[first : first + len(documents)]
        first += len(documents)
        rows = [-1 if row in left_out else row for row in rows]
        sources.append((tmp_path / str(number), np.array(rows, np.int32)))
        for row, of in zip(rows, documents, strict=True):
            if row >= 0:
                merged[row] = of

    merge_postings(tmp_path / "merged", sources)
    merge_postings(tmp_path / "again", [(tmp_path / "merged", np.arange(161, dtype=np.int32))])

    expected = counted(merged)
    terms = {term for part in parts for of in part for term in of}
    assert held(tmp_path / "merged", terms) == expected
    for file in embedded_postings.FILES:
        if file != "pairs":
            again = (tmp_path / "again" / file).read_bytes()
            assert again == (tmp_path / "merged" / file).read_bytes()


@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_frequencies_among_some_rows(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(embedded_postings, "_AT_ONCE", at_once)
    documents = documents_of(random.Random(3), 100)
    write_postings(tmp_path / "p", documents)
    chosen = np.random.default_rng(3).random(100) < 0.3

    terms, frequencies = frequencies_among(tmp_path / "p", chosen)

    expected = Counter(
        term_hash(term) for row in np.flatnonzero(chosen) for term in {*documents[row]}
    )
    assert terms.tolist() == sorted(expected)
    assert dict(zip(terms.tolist(), frequencies.tolist(), strict=True)) == expected


@pytest.mark.parametrize("documents", [[], [[]], [[], []]], ids=str)
def test_postings_of_nothing(tmp_path, documents):
    write_postings(tmp_path / "none", documents)
    write_postings(tmp_path / "one", [["a"]])
    merge_postings(
        tmp_path / "merged",
        [
            (tmp_path / "none", np.arange(len(documents), dtype=np.int32)),
            (tmp_path / "one", np.array([7], np.int32)),
        ],
    )
    assert held(tmp_path / "none", {"a"}) == {}
    assert held(tmp_path / "merged", {"a"}) == {("a", 7): (1, 1)}
    assert frequencies_among(tmp_path / "none", np.ones(len(documents), bool))[0].tolist() == []


def test_more_kinds_of_postings_than_sixteen_bits_can_tell_apart(tmp_path):
    write_postings(tmp_path / "one", [["a", "b"]])
    rows = np.array([0], np.int32)
    pairs = np.arange(1, (1 << 16) + 2, dtype=np.uint64) << np.uint64(32)
    with embedded_postings._Writer(tmp_path / "many", pairs) as writer:
        writer.append(
            np.array([term_hash("b")], np.uint64), np.array([1]), rows, np.array([1 << 16])
        )
    merge_postings(tmp_path / "merged", [(tmp_path / "one", rows), (tmp_path / "many", rows + 1)])
    assert held(tmp_path / "merged", "ab") == {
        ("a", 0): (1, 2),
        ("b", 0): (1, 2),
        ("b", 1): ((1 << 16) + 1, 0),
    }


def test_a_terms_hash_never_changes():
    # BLAKE2b of 8 bytes, little-endian, by the b2sum of coreutils.
    assert term_hash("glacier") == int.from_bytes(bytes.fromhex("b698b703c1b8d349"), "little")
    assert term_hash("naïv") == int.from_bytes(bytes.fromhex("c9007a981b2825aa"), "little")
