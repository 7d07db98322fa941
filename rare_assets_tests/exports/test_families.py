"""Families and splits: what belongs together stays together, and stays where it was as a corpus grows."""

import random

import polars as pl

from rare_assets.exports.families import assign, crossings, sketch
from rare_assets.exports.options import ExportOptions
from rare_assets_tests.exports.corpus import document

OPTIONS = ExportOptions(validation_share=0.2, test_share=0.2)


def split(documents, options=OPTIONS):
    frame = pl.DataFrame(documents, infer_schema_length=None)
    return assign(sketch(frame).lazy(), options)


def splits(documents, options=OPTIONS):
    return dict(split(documents, options).select("doc_id", "split").iter_rows())


def changed(row, words):
    """A document with some of its words exchanged."""
    text = row["text"].split()
    for place in random.Random(1).sample(range(len(text)), words):
        text[place] = f"other{place}"
    return document(0, doc_id=f"{row['doc_id']}-changed", text=" ".join(text))


def overlap(a, b):
    a, b = (set(row["text"].lower().replace(":", "").split()) for row in (a, b))
    return len(a & b) / len(a | b)


def test_shares_are_about_those_asked_for_and_each_family_is_one_document():
    assigned = split([document(n) for n in range(1_000)])
    counts = dict(assigned["split"].value_counts().iter_rows())
    assert 540 < counts["train"] < 660
    assert 150 < counts["validation"] < 250
    assert assigned["family"].n_unique() == 1_000


def test_near_duplicates_twins_and_passages_of_one_parent_are_in_one_split():
    documents = [document(n) for n in range(300)]
    alike = [changed(row, 3) for row in documents]
    assert all(overlap(*pair) >= 0.8 for pair in zip(documents, alike, strict=True))
    twins = [{**row, "doc_id": f"{row['doc_id']}-twin"} for row in documents]
    siblings = [{**document(1_000 + n), "parent_id": f"{n}.md"} for n in range(300)] + [
        {**document(2_000 + n), "parent_id": f"{n}.md"} for n in range(300)
    ]
    for row in (*documents, *alike, *twins):
        row["parent_id"] = None
    where = splits([*documents, *alike, *twins, *siblings])
    assert set(where.values()) == {"train", "validation", "test"}
    for n in range(300):
        assert where[f"d{n}"] == where[f"d{n}-changed"] == where[f"d{n}-twin"]
        assert where[f"d{1_000 + n}"] == where[f"d{2_000 + n}"]


def test_documents_that_are_less_alike_are_not_tied():
    documents = [document(n) for n in range(200)]
    unlike = [changed(row, 12) for row in documents]
    assert all(overlap(*pair) < 0.8 for pair in zip(documents, unlike, strict=True))
    assert split([*documents, *unlike])["family"].n_unique() == 400


def test_near_duplicates_in_a_script_without_blanks_are_found():
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 800)]
    texts = ["".join(random.Random(n).choices(letters, k=120)) for n in range(100)]
    documents = [document(n, text=text) for n, text in enumerate(texts)]
    alike = [
        document(n, doc_id=f"x{n}", text=f"{text[:60]}{text[63:]}") for n, text in enumerate(texts)
    ]
    assigned = split([*documents, *alike])
    assert assigned["family"].to_list() == [*range(100), *range(100)]


def test_a_growing_corpus_moves_documents_towards_training_alone():
    documents = [document(n) for n in range(600)]
    before = splits(documents)
    # Each new document ties two old ones that had nothing to do with one another.
    ties = [
        document(0, doc_id=f"tie{n}", text=documents[n]["text"], parent_id=f"d{n + 300}")
        for n in range(200)
    ]
    after = splits([{**row, "parent_id": None} for row in documents] + ties)
    nearer = ("train", "validation", "test")
    moved = {d for d, where in before.items() if after[d] != where}
    assert moved
    for doc_id in moved:
        assert nearer.index(after[doc_id]) < nearer.index(before[doc_id])
        assert int(doc_id[1:]) < 200 or 300 <= int(doc_id[1:]) < 500
    assert splits([document(n) for n in reversed(range(700))]).items() >= before.items()


def test_the_seed_decides():
    documents = [document(n) for n in range(200)]
    assert splits(documents) == splits(documents)
    other = splits(documents, ExportOptions(validation_share=0.2, test_share=0.2, split_seed=1))
    assert other != splits(documents)


def test_crossings_finds_every_pair_that_two_loops_find():
    documents = [document(n, text=" ".join(document(n)["text"].split()[:20])) for n in range(60)]
    documents += [changed(row, n % 6) for n, row in enumerate(documents)]
    frame = pl.DataFrame(documents, infer_schema_length=None)
    sides = ["train" if (n + n // 60) % 3 else "test" for n in range(len(documents))]
    assigned = pl.DataFrame({"doc_id": frame["doc_id"], "split": sides})
    found = crossings(assigned, sketch(frame).lazy(), 0.8)
    expected = {
        (a["doc_id"], b["doc_id"])
        for a, side in zip(documents, sides, strict=True)
        for b, other in zip(documents, sides, strict=True)
        if side == "test" and other == "train" and overlap(a, b) >= 0.8
    }
    assert expected
    assert set(found.select("doc_id", "other").iter_rows()) == expected


def test_a_text_without_words_is_a_family_of_its_own():
    documents = [document(0, doc_id=f"x{n}", text="!" * (n + 1)) for n in range(5)]
    assert split(documents)["family"].to_list() == [0, 1, 2, 3, 4]
