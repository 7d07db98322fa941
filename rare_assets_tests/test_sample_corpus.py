"""The bundled corpus: loads whole, and gives BM25 something hard to find."""

import polars as pl
import pytest

from rare_assets.corpus.source import CorpusSource
from rare_assets.operators.read_documents import read_documents
from rare_assets.settings import SAMPLE_CORPUS

# Words that mean different things in the sample's subjects.
SHARED = (
    "current",
    "cell",
    "potential",
    "charge",
    "pressure",
    "flow",
    "resistance",
    "load",
    "stress",
)


@pytest.fixture(scope="module")
def produced():
    source = CorpusSource(str(SAMPLE_CORPUS), 10_000)
    return {s.key: read_documents(source.read(s), file=s.file) for s in source.shards()}


@pytest.fixture(scope="module")
def documents(produced):
    frames = [
        made.rows.with_columns(file=pl.lit(key), words=words(pl.col("text")))
        for key, made in produced.items()
    ]
    return pl.concat(frames)


def words(text):
    """The different words of a text, plurals as their singular."""
    lower = text.str.to_lowercase().str.extract_all(r"[a-z]+")
    return lower.list.eval(pl.element().str.replace(r"([^s])s$", "$1")).list.unique()


def test_every_file_loads_without_a_reject(produced):
    assert {key: (made.rows.height, made.rejects.height) for key, made in produced.items()} == {
        "electrochemistry.jsonl": (8, 0),
        "metal-fatigue.md": (4, 0),
        "nerve-and-heart.json": (7, 0),
        "ocean-and-weather.csv": (7, 0),
        "water-hammer.md": (4, 0),
    }


def test_documents_are_unique_titled_passages_of_moderate_length(documents):
    assert documents["doc_id"].n_unique() == documents["text_hash"].n_unique() == 30
    assert documents["n_words"].is_between(60, 200).all()
    assert documents["title"].n_unique() == 30
    assert documents["title"].null_count() == 0
    assert documents["answer"].null_count() == 30


@pytest.mark.parametrize("word", SHARED)
def test_subjects_share_their_words(documents, word):
    files = documents.filter(pl.col("words").list.contains(word))["file"]
    assert files.n_unique() >= 2


def test_every_document_shares_content_words_with_one_of_another_file(documents):
    frequency = documents.explode("words")["words"].value_counts()
    common = set(frequency.filter(pl.col("count") > 15)["words"]) - set(SHARED)
    content = [
        (file, {word for word in found if len(word) >= 4} - common)
        for file, found in documents.select("file", "words").rows()
    ]
    for file, found in content:
        overlaps = [len(found & other) for other_file, other in content if other_file != file]
        assert max(overlaps) >= 5, (file, found)
