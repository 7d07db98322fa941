"""Build the analyzers that are chains, by the names that Elasticsearch gives them."""

# ruff: noqa: RUF001

from __future__ import annotations

from collections.abc import Callable

from rare_assets.retriever.analyzers.chain import Chain, snowball
from rare_assets.retriever.analyzers.light import (
    arabic_stem,
    french_stem,
    german_stem,
    italian_stem,
    portuguese_stem,
    spanish_stem,
)
from rare_assets.retriever.english import lower

_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"


def _without_article(*articles: str) -> Callable[[str], str]:
    """Return a function that lowers a token and drops an article that an apostrophe joins to it."""
    joined = frozenset(articles)

    def shape(token: str) -> str:
        token = lower(token)
        for place, letter in enumerate(token):
            if letter in _APOSTROPHES:
                return token[place + 1 :] if token[:place] in joined else token
        return token

    return shape


def _turkish_shape(token: str) -> str:
    """Return a token in Turkish lower case (I becomes a dotless i), without what follows an apostrophe."""
    for mark in _APOSTROPHES:
        token = token.partition(mark)[0]
    return lower(token.replace("I\N{COMBINING DOT ABOVE}", "i").replace("I", "ı"))


_irish_article = _without_article("d", "m", "b")


def _irish_shape(token: str) -> str:
    """Return a token in Irish lower case, a prefixed n or t with its hyphen; "" for a single h, n or t."""
    if token in ("h", "n", "t", "H", "N", "T"):
        return ""
    if token[:1] in ("n", "t") and token[1:2] in tuple("AEIOUÁÉÍÓÚ"):
        return f"{token[0]}-{lower(token[1:])}"
    return _irish_article(token)


def _dutch_stemmer() -> Callable[[str], str]:
    stem = snowball("dutch_porter")()
    exceptions = {"fiets": "fiets", "bromfiets": "bromfiets", "ei": "eier", "kind": "kinder"}
    return lambda word: exceptions.get(word) or stem(word)


def _swedish_stemmer() -> Callable[[str], str]:
    stem = snowball("swedish")()

    def without_et(word: str) -> str:
        # Later versions of Snowball take off this ending, too.
        kept = word.endswith(("et", "ets")) and not word.endswith(("het", "andet"))
        return word.removesuffix("s") if kept else stem(word)

    return without_et


def _arabic_shape(token: str) -> str:
    return lower(_decimal(token))


def _decimal(token: str) -> str:
    """Return a token with the digits of every script as ASCII digits."""
    if token.isascii() or not any(character.isdecimal() for character in token):
        return token
    return "".join(str(int(c)) if c.isdecimal() else c for c in token)


def _light(stem: Callable[[str], str]) -> Callable[[], Callable[[str], str]]:
    return lambda: stem


CHAINS: dict[str, Chain] = {
    **{
        name: Chain(name, snowball(name))
        for name in (
            *("armenian", "basque", "danish", "estonian", "finnish", "hungarian", "lithuanian"),
            *("norwegian", "romanian", "russian"),
        )
    },
    "arabic": Chain("arabic", _light(arabic_stem), _arabic_shape),
    "catalan": Chain(
        "catalan", snowball("catalan"), _without_article("d", "l", "m", "n", "s", "t")
    ),
    "dutch": Chain("dutch", _dutch_stemmer),
    "french": Chain(
        "french",
        _light(french_stem),
        _without_article(
            *("l", "m", "t", "qu", "n", "s", "j", "d", "c", "jusqu", "quoiqu", "lorsqu", "puisqu")
        ),
    ),
    "german": Chain("german", _light(german_stem)),
    "irish": Chain("irish", snowball("irish"), _irish_shape),
    "italian": Chain(
        "italian",
        _light(italian_stem),
        _without_article(
            *("c", "l", "all", "dall", "dell", "nell", "sull", "coll", "pell", "gl", "agl", "dagl"),
            *("degl", "negl", "sugl", "un", "m", "t", "s", "v", "d"),
        ),
    ),
    "portuguese": Chain("portuguese", _light(portuguese_stem)),
    "spanish": Chain("spanish", _light(spanish_stem)),
    "swedish": Chain("swedish", _swedish_stemmer),
    "turkish": Chain("turkish", snowball("turkish"), _turkish_shape),
}
