"""Analyzers of languages: texts as index terms, the same terms as Elasticsearch's analyzer of the name.

`english` (in a module of its own, tuned), `standard`, `cjk`, and those that are a chain of tokens, lower
case, stop words and a stemmer that is at hand. The others of Elasticsearch's have rules of their own; an
index with one of those needs Elasticsearch.
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
    """Why the embedded index can't use an analyzer, and what to do; None if it can."""
    if analyzer in ANALYZERS:
        return None
    if analyzer not in NAMES:
        return f"analyzer is {analyzer!r}: there are {', '.join(NAMES)}"
    return (
        f"the embedded index has no analyzer {analyzer!r}: set ELASTICSEARCH_URL, since Elasticsearch has "
        f"it, or set analyzer to one of {', '.join(sorted(ANALYZERS))}"
    )
