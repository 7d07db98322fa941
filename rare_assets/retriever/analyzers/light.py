"""Stem words by a few rules, as Lucene's light stemmers do.

Source: J. Savoy, "Light Stemming Approaches for the French, Portuguese, German and Hungarian Languages",
2006, and "Report on CLEF-2001 Experiments", 2002; for Arabic light10 of L. Larkey, L. Ballesteros and
M. Connell, "Light Stemming for Arabic Information Retrieval", 2007.
"""

# ruff: noqa: RUF001

from __future__ import annotations

from typing import NamedTuple

import regex


class _Rule(NamedTuple):
    """A rule for words longer than `longer_than` that end in `end`, which `by` replaces.

    No other rule is tried after it, unless `go_on`.
    """

    longer_than: int
    end: str
    by: str
    go_on: bool = False


def _unaccented(**letters: str) -> dict[int, str]:
    return {ord(accented): plain for plain, group in letters.items() for accented in group}


_ACCENTS = _unaccented(a="àáâä", e="èéêë", i="ìíîï", o="òóôö", u="ùúûü")
_PORTUGUESE_ACCENTS = _ACCENTS | _unaccented(a="ã", o="õ", c="ç")
_GERMAN_ACCENTS = _unaccented(a="äàáâ", o="öòóô", i="ïìíî", u="üùúû")
_FRENCH_ACCENTS = _unaccented(a="àáâ", o="ô", e="èéê", u="ùû", i="î", c="ç")


# ---- German


def german_stem(word: str) -> str:
    """Return the light German stem of a lower-case word, as Lucene's GermanLightStemmer does.

    Umlauts are made plain, also those written as ae, oe and ue.

    Example:
        >>> german_stem("häuser"), german_stem("haeuser")
        ('haus', 'haus')
    """
    word = _german_letters(word).translate(_GERMAN_ACCENTS)
    word = _without_declension(word)
    if len(word) > 5 and word.endswith("est"):
        return word[:-3]
    if len(word) > 4 and word.endswith(("er", "en")):
        return word[:-2]
    if len(word) > 4 and word.endswith("st") and word[-3] in _BEFORE_ST:
        return word[:-2]
    return word


_GERMAN_LETTERS = {"ä": "a", "ö": "o", "ü": "u", "ß": "ss"}
_BEFORE_ST = frozenset("bdfghklmnt")


def _german_letters(word: str) -> str:
    """Return a word with ä and ae as a, and so on; ue is kept if a vowel or q stands before the u."""
    if word.isascii() and "ae" not in word and "oe" not in word and "ue" not in word:
        return word
    letters = []
    # An e marks an umlaut after a and o, and after a u that follows nothing which could be its vowel.
    before = "plain"
    for letter in word:
        if letter == "e" and before == "umlaut":
            before = "vowel"
            continue
        letters.append(_GERMAN_LETTERS.get(letter, letter))
        if letter in "ao" or (letter == "u" and before == "plain"):
            before = "umlaut"
        else:
            before = "vowel" if letter in "ueiqyäöü" else "plain"
    return "".join(letters)


def _without_declension(word: str) -> str:
    if len(word) > 5 and word.endswith("ern"):
        return word[:-3]
    if len(word) > 4 and word.endswith(("em", "en", "er", "es")):
        return word[:-2]
    if len(word) > 3 and (word[-1] == "e" or (word[-1] == "s" and word[-2] in _BEFORE_ST)):
        return word[:-1]
    return word


# ---- Spanish, Italian


def spanish_stem(word: str) -> str:
    """Return the light Spanish stem of a lower-case word, as Lucene's SpanishLightStemmer does."""
    if len(word) < 5:
        return word
    word = word.translate(_ACCENTS)
    if word[-1] in "oae":
        return word[:-1]
    if word.endswith("ces"):
        return word[:-3] + "z"
    return word[:-2] if word.endswith(("os", "as", "es")) else word


def italian_stem(word: str) -> str:
    """Return the light Italian stem of a lower-case word, as Lucene's ItalianLightStemmer does."""
    if len(word) < 6:
        return word
    word = word.translate(_ACCENTS)
    if word.endswith(("ie", "he", "hi", "ii", "ia", "io")):
        return word[:-2]
    return word[:-1] if word[-1] in "eiao" else word


# ---- Portuguese

_PORTUGUESE_PLURALS = (
    *(_Rule(4, f"{letter}es", letter) for letter in "rslz"),
    _Rule(3, "ns", "m"),
    *(_Rule(4, end, "el") for end in ("eis", "éis")),
    _Rule(4, "ais", "al"),
    _Rule(4, "óis", "ol"),
    _Rule(4, "is", "il"),
    *(_Rule(3, end, "ão") for end in ("ões", "ães")),
    _Rule(6, "mente", ""),
    _Rule(3, "s", ""),
)
_PORTUGUESE_FEMININE = (
    *(_Rule(7, f"{end}a", f"{end}o") for end in ("inh", "iac", "eir")),
    *(_Rule(6, f"{end}a", f"{end}o") for end in ("os", "ic", "id", "ad", "iv", "am")),
    _Rule(6, "ona", "ão"),
    _Rule(6, "ora", "or"),
    _Rule(6, "esa", "ês"),
    _Rule(6, "na", "no"),
)


def portuguese_stem(word: str) -> str:
    """Return the light Portuguese stem of a lower-case word, as Lucene's PortugueseLightStemmer does."""
    if len(word) < 4:
        return word
    word = _first(_PORTUGUESE_PLURALS, word)
    if len(word) > 3 and word[-1] == "a":
        word = _first(_PORTUGUESE_FEMININE, word)
    if len(word) > 4 and word[-1] in "eao":
        word = word[:-1]
    return word.translate(_PORTUGUESE_ACCENTS)


# ---- French

_FRENCH = (
    _Rule(9, "issement", "ir"),
    _Rule(8, "issant", "ir"),
    _Rule(6, "ement", "e"),
    _Rule(11, "ficatrice", "fier"),
    _Rule(10, "ficateur", "fier"),
    _Rule(9, "catrice", "quer"),
    _Rule(8, "cateur", "quer"),
    _Rule(8, "atrice", "er"),
    _Rule(7, "ateur", "er"),
    _Rule(6, "trice", "teur", go_on=True),
    _Rule(5, "ième", ""),
    _Rule(7, "teuse", "ter"),
    _Rule(6, "teur", "ter"),
    _Rule(5, "euse", "eu"),
    _Rule(8, "ère", "er"),
    _Rule(7, "ive", "if"),
    _Rule(4, "folle", "fou"),
    _Rule(4, "molle", "mou"),
    _Rule(9, "nnelle", "n"),
    _Rule(9, "nnel", "n"),
    _Rule(4, "ète", "et", go_on=True),
    _Rule(8, "ique", "", go_on=True),
    _Rule(8, "esse", "e"),
    _Rule(7, "inage", "in"),
    _Rule(9, "isation", ""),
    _Rule(9, "isateur", ""),
    _Rule(8, "ation", ""),
    _Rule(8, "ition", ""),
)


def french_stem(word: str) -> str:
    """Return the light French stem of a lower-case word, as Lucene's FrenchLightStemmer does."""
    if len(word) > 5 and word[-1] == "x":
        plural_of_al = word.endswith("aux") and word[-4] != "e"
        word = f"{word[:-2]}l" if plural_of_al else word[:-1]
    for mark in "xs":
        if len(word) > 3 and word[-1] == mark:
            word = word[:-1]
    length = len(word)
    stemmed = _first(_FRENCH, word)
    if length > 6 and word.endswith("ement") and stemmed.endswith("ive") and len(stemmed) > 3:
        stemmed = f"{stemmed[:-2]}f"
    if length > 9 and word.endswith("isation") and len(stemmed) > 5 and stemmed.endswith("ual"):
        stemmed = f"{stemmed[:-2]}el"
    return _french_normal(stemmed)


_find_doubled = regex.compile(r"(\p{L})\1+").sub


def _french_normal(word: str) -> str:
    if len(word) > 4:
        word = _find_doubled(r"\1", word.translate(_FRENCH_ACCENTS))
    if len(word) > 4 and word.endswith("ie"):
        word = word[:-2]
    if len(word) > 4:
        for end in "ree":
            word = word.removesuffix(end)
        if word[-1] == word[-2] and word[-1].isalpha():
            word = word[:-1]
    return word


def _first(rules: tuple[_Rule, ...], word: str) -> str:
    """Return a word after the first rule that holds for it."""
    for rule in rules:
        if len(word) > rule.longer_than and word.endswith(rule.end):
            word = word[: -len(rule.end)] + rule.by
            if not rule.go_on:
                break
    return word


# ---- Arabic

_ARABIC_LETTERS = str.maketrans("آأإىة", "ااايه", "ـًٌٍَُِّْ")
_ARABIC_PREFIXES = ("ال", "وال", "بال", "كال", "فال", "لل", "و")
_ARABIC_SUFFIXES = ("ها", "ان", "ات", "ون", "ين", "يه", "ية", "ه", "ة", "ي")


def arabic_stem(word: str) -> str:
    """Return the light Arabic stem of a word, as Lucene's ArabicStemmer does after its normalization.

    Letters are brought into one form; then article, conjunction and preposition go, then endings.
    """
    word = word.translate(_ARABIC_LETTERS)
    for prefix in _ARABIC_PREFIXES:
        fewest = 4 if len(prefix) == 1 else len(prefix) + 2
        if len(word) >= fewest and word.startswith(prefix):
            word = word[len(prefix) :]
            break
    for suffix in _ARABIC_SUFFIXES:
        if len(word) >= len(suffix) + 2:
            word = word.removesuffix(suffix)
    return word
