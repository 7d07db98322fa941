"""Find which languages the documents are in, by a sample, and which analyzer fits them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import polars as pl
import regex

from rare_assets.retriever import OF_LANGUAGE, ShardContent, refusal
from rare_assets.storage.tables import ParquetTables
from rare_assets.text.language import language_of, probability_of

SAMPLED_SHARDS = 20
SAMPLED_DOCUMENTS = 200
# Share of the sampled documents that has to be in one language for its analyzer to be chosen.
MAJORITY = 0.6
# A close relative's analyzer fits a text that may as well be in its own language.
IMPOSSIBLE = 0.01
# Languages whose words `standard` can't find: each run of letters would be one word, or each letter.
_UNSPACED = frozenset(("zh", "ja", "th", "lo", "km", "my", "bo", "dz"))
_LANGUAGE_OF_SCRIPT = {
    r"\p{Hiragana}\p{Katakana}": "ja",
    r"\p{Hangul}": "ko",
    r"\p{Han}": "zh",
    r"\p{Thai}": "th",
    r"\p{Lao}": "lo",
    r"\p{Khmer}": "km",
    r"\p{Myanmar}": "my",
    r"\p{Tibetan}": "bo",
}
_find_letters = regex.compile(r"[\p{L}\p{M}]").findall
_CHOICE = "analyzer.parquet"


class Sample(NamedTuple):
    """Texts of documents, and the language of each, None where it is not sure."""

    texts: list[str]
    languages: list[str | None]

    @property
    def counts(self) -> Counter[str]:
        """Number of texts in each language, by ISO 639 code."""
        return Counter(language for language in self.languages if language)


def sample_languages(tables: ParquetTables, shards: Mapping[str, ShardContent]) -> Sample:
    """Look at about 200 documents spread evenly over at most 20 shards, the same ones each time.

    Args:
        tables: has the documents.
        shards: of these the ones that are not empty.

    Raises:
        StorageError: a table can't be read.
    """
    filled = [key for key, content in sorted(shards.items()) if content.n_documents]
    chosen = filled[:: max(1, -(-len(filled) // SAMPLED_SHARDS))]
    texts: list[str] = []
    for key in chosen:
        wanted = -(-SAMPLED_DOCUMENTS // len(chosen))
        step = max(1, shards[key].n_documents // wanted)
        rows = tables.load("documents", key).select("text").gather_every(step).head(wanted)
        texts += rows.collect()["text"].to_list()
    return Sample(texts, [_language(text) for text in texts])


def _language(text: str) -> str | None:
    """Return a text's language: by its script where that is enough for an analyzer, else by what is sure."""
    letters = _find_letters(text)
    for script, language in _LANGUAGE_OF_SCRIPT.items():
        found = sum(map(len, regex.findall(rf"[{script}]+", text)))
        # Japanese has its own letters among those of Chinese.
        if found > len(letters) * (0.1 if language == "ja" else 0.5):
            return language
    return language_of(text)


def fits(analyzer: str, language: str) -> bool:
    """Return True if an analyzer finds the words of a language.

    Args:
        analyzer: as the option of `corpus_index` names it.
        language: ISO 639 code.

    >>> fits("english", "en"), fits("english", "de"), fits("standard", "zh")
    (True, False, False)
    """
    if analyzer == "standard":
        return language not in _UNSPACED
    return OF_LANGUAGE.get(language) == analyzer or (analyzer, language) == ("brazilian", "pt")


def unfitting(analyzer: str, sample: Sample) -> list[tuple[str, str]]:
    """Return the texts that are surely in a language that the analyzer is not for, each with the language."""
    own = [language for language in (*OF_LANGUAGE, "pt") if fits(analyzer, language)]
    return [
        (text, language)
        for text, language in zip(sample.texts, sample.languages, strict=True)
        if language
        and not fits(analyzer, language)
        and all(probability_of(text, other) < IMPOSSIBLE for other in own)
    ]


def fitting_analyzer(sample: Sample) -> str:
    """Return the analyzer of the language that most of the texts are in; `standard` where there is none.

    >>> fitting_analyzer(Sample(["Eis.", "Salz.", "Ice."], ["de", "de", "en"]))
    'german'
    """
    by_analyzer: Counter[str] = Counter()
    for language, count in sample.counts.items():
        by_analyzer[OF_LANGUAGE.get(language, "standard")] += count
    if not by_analyzer:
        return "standard"
    analyzer, count = by_analyzer.most_common(1)[0]
    return analyzer if count >= MAJORITY * by_analyzer.total() else "standard"


def choose_analyzer(sample: Sample, *, embedded: bool) -> tuple[str, str | None]:
    """Choose for `auto`: the analyzer, and a warning where the embedded engine lacks a better one."""
    analyzer = fitting_analyzer(sample)
    if not embedded or not (refused := refusal(analyzer)):
        return analyzer, None
    if not all(
        fits("standard", language) for language in sample.counts if fits(analyzer, language)
    ):
        # Nothing in its place would find words at all: the engine refuses it.
        return analyzer, None
    return (
        "standard",
        f"analyzer=auto: {refused}. Until then it is standard, which knows no endings",
    )


def recorded_choice(tables: ParquetTables, engine: str) -> str | None:
    """Return what `auto` has chosen for this storage with this engine; None if it has not yet."""
    schema = {"engine": pl.String, "analyzer": pl.String}
    stored = tables.remembered(tables.root / "corpus_index" / _CHOICE, schema)
    found = stored.filter(pl.col("engine") == engine)
    return found["analyzer"][0] if len(found) else None


def record_choice(tables: ParquetTables, engine: str, analyzer: str) -> None:
    """Keep what `auto` has chosen, so that a corpus that grows does not flip it."""
    choice = pl.DataFrame({"engine": [engine], "analyzer": [analyzer]})
    tables.write_file(choice, tables.root / "corpus_index" / _CHOICE)
