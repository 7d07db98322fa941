"""Turn texts into index terms, by language: the same terms as Elasticsearch's analyzer of the name.

There are `english` (in a module of its own, tuned), `standard`, `cjk`, and the analyzers that are a chain of
tokens, lower case, stop words and an available stemmer. Elasticsearch's others have rules of their own; an
index with one of them needs Elasticsearch.

Example:
    >>> ANALYZERS["german"]("Die Häuser der Städte")
    ['haus', 'stadt']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

from rare_assets.retriever.analyzers.chain import Chain
from rare_assets.retriever.analyzers.cjk import cjk_terms
from rare_assets.retriever.analyzers.languages import CHAINS
from rare_assets.retriever.english import english_terms

# Those of Elasticsearch.
Analyzer = Literal[
    "arabic",
    "armenian",
    "basque",
    "bengali",
    "brazilian",
    "bulgarian",
    "catalan",
    "cjk",
    "czech",
    "danish",
    "dutch",
    "english",
    "estonian",
    "finnish",
    "french",
    "galician",
    "german",
    "greek",
    "hindi",
    "hungarian",
    "indonesian",
    "irish",
    "italian",
    "latvian",
    "lithuanian",
    "norwegian",
    "persian",
    "portuguese",
    "romanian",
    "russian",
    "serbian",
    "sorani",
    "spanish",
    "standard",
    "swedish",
    "thai",
    "turkish",
]
NAMES: tuple[str, ...] = get_args(Analyzer)

# What the embedded index can do.
ANALYZERS: Mapping[str, Callable[[str], list[str]]] = {
    "english": english_terms,
    "standard": Chain(),
    "cjk": cjk_terms,
    **CHAINS,
}

# Snowball has changed a rule of these since the version that Lucene has: a few of their terms differ.
OTHER_RULES = frozenset({"danish", "estonian", "finnish", "lithuanian", "norwegian"})

# ISO codes of languages and what analyzes them; `brazilian` is another one for Portuguese.
OF_LANGUAGE: Mapping[str, Analyzer] = {
    "ar": "arabic",
    "bg": "bulgarian",
    "bn": "bengali",
    "ca": "catalan",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "gl": "galician",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "ja": "cjk",
    "ko": "cjk",
    "lt": "lithuanian",
    "lv": "latvian",
    "nb": "norwegian",
    "nl": "dutch",
    "nn": "norwegian",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "th": "thai",
    "tr": "turkish",
    "zh": "cjk",
}


def refusal(analyzer: str) -> str | None:
    """Return why the embedded index can't use an analyzer, and what to do; None if it can."""
    if analyzer in ANALYZERS:
        return None
    if analyzer not in NAMES:
        return f"analyzer is {analyzer!r}: there are {', '.join(NAMES)}"
    return (
        f"the embedded index has no analyzer {analyzer!r}: set ELASTICSEARCH_URL, since Elasticsearch has "
        f"it, or set analyzer to one of {', '.join(sorted(ANALYZERS))}"
    )
