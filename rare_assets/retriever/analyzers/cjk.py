"""Analyze Chinese, Japanese and Korean by pairs of characters, as Lucene's CJKAnalyzer does."""

from __future__ import annotations

import functools
import unicodedata

import regex

from rare_assets.retriever.analyzers.chain import stop_words
from rare_assets.retriever.english import Memo, chunks, lower, spans

_X = r"[\p{WB=Format}\p{WB=Extend}\p{WB=ZWJ}]*"
# Kinds of token that are cut into pairs; a token that has other letters as well is not.
_is_paired = regex.compile(
    rf"[[\p{{Script=Han}}\p{{Script=Hiragana}}]--\p{{WB=ALetter}}]{_X}|(?:\p{{WB=Katakana}}{_X})+"
    rf"|(?:[\p{{Script=Hangul}}&&\p{{WB=ALetter}}]{_X})+",
    regex.V1,
).fullmatch
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
# A voiced mark joins the kana before it where there is such a kana.
_find_narrow = regex.compile(r"[\uFF65-\uFF9D][\uFF9E\uFF9F]?|[\uFF9E\uFF9F]").sub


def cjk_terms(text: str) -> list[str]:
    """Return the terms of a text in order: pairs of neighbouring characters, and words of other scripts.

    Example:
        >>> cjk_terms("冰会融化 melts")
        ['冰会', '会融', '融化', 'melts']
    """
    terms_of = _analyzed()
    return [term for chunk in chunks(text) for term in terms_of[chunk]]


def _terms(chunk: str) -> tuple[str, ...]:
    terms: list[str] = []
    run = ""
    run_end = -1

    def end_run() -> None:
        terms.extend(run[at : at + 2] for at in range(max(len(run) - 1, min(len(run), 1))))

    for start, end in spans(chunk):
        token = chunk[start:end]
        if not _is_paired(token):
            end_run()
            run = ""
            terms.append(_shaped(token))
            continue
        if start != run_end:
            end_run()
            run = ""
        run += _shaped(token)
        run_end = end
    end_run()
    stop = _stop_words()
    return tuple(term for term in terms if term not in stop)


def _shaped(token: str) -> str:
    """Return a token in lower case, with wide letters and narrow kana in their usual width."""
    if token.isascii():
        return token.lower()
    token = _find_narrow(lambda found: unicodedata.normalize("NFKC", found[0]), token)
    return lower(token.translate(_WIDE))


@functools.cache
def _analyzed() -> Memo:
    return Memo(_terms)


@functools.cache
def _stop_words() -> frozenset[str]:
    return stop_words("cjk")
