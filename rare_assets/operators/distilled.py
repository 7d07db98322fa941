"""Part a teacher's answer into its chain of reasoning, the documents that it used, and its final answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rare_assets.operators.answers import require_whole
from rare_assets.teacher import Answer, Unusable
from rare_assets.text.words import characters_in, count_words, sets_no_blanks, words_in

# Without an answer set apart, a text of fewer words is nothing but the answer.
FEWEST_WORDS = 5
# A chain is copied if more than this share of its words stands in runs of one document: a run is eight
# words, or sixteen characters where a script sets no blanks, as in the check on quotations.
MOST_COPIED = 0.6
RUN_WORDS, RUN_CHARACTERS = 8, 16
# Where nobody says how many were shown, a range of numbers beyond it is one of pages or years.
MANY_DOCUMENTS = 99

# What the next attempt is told.
_ADVICE = {
    "cut": "It broke off before its end: be brief.",
    "empty": "It was empty.",
    "degenerate": "It said the same again and again.",
    "no_reasoning": "It held nothing but an answer: show the reasoning that leads to it.",
    "no_answer": "It had no answer after the reasoning: end with one between <answer> and </answer>.",
    "copied_reasoning": "Its reasoning was copied word by word from one document: reason in your own words.",
}


class Distilled(NamedTuple):
    """The parts of an answer; `documents` are the numbers that it names, None if it names none."""

    reasoning: str
    answer: str | None
    documents: list[int] | None


def distil(answer: Answer, n_documents: int = MANY_DOCUMENTS) -> Distilled:
    """Part a teacher's answer into its chain of reasoning, the documents it used, and its final answer.

    A chain that the answer has apart (`teacher.reading`) is the reasoning; the answer is then
    what stands between <answer> tags in the rest, or else all of the rest. Without a chain the
    reasoning is what stands around the <answer> part (all of the text where there is none) and the
    answer is that part, None if there is none. Of several <answer> parts the last one counts. The last
    <documents> part, which is taken out, names the documents.

    Args:
        answer: the teacher's.
        n_documents: how many it was shown; a range of numbers up to that names all between them.

    Raises:
        Unusable: `refused`, `content_filter`, `cut` (by length, or a chain never closed), `empty`,
            `degenerate`, `no_reasoning` (nothing but an answer), or `no_answer` (nothing after the
            chain, or an empty <answer>).

    >>> said = "It melts, since salt lowers the freezing point. <documents>2</documents> <answer>Yes</answer>"
    >>> distil(Answer(content=said, thinking=None, finish_reason="stop", refusal=None, model="a-model",
    ...               prompt_tokens=90, completion_tokens=20, attempt=0, latency_s=1.0, reused=False))
    Distilled(reasoning='It melts, since salt lowers the freezing point.', answer='Yes', documents=[2])
    """
    try:
        return _distil(answer, n_documents)
    except Unusable as unusable:
        raise Unusable(unusable.reason, unusable.detail, _ADVICE.get(unusable.reason)) from None


def require_own_words(reasoning: str, documents: Sequence[str]) -> None:
    """Refuse a chain that is mostly one document's own words.

    Raises:
        Unusable: `copied_reasoning`, where more than 60 % of its words stand in runs of one document.
    """
    for document in documents:
        share = copied_share(reasoning, document)
        if share > MOST_COPIED:
            detail = f"{share:.0%} of its words stand in runs of one document"
            raise Unusable("copied_reasoning", detail, _ADVICE["copied_reasoning"])


def copied_share(text: str, document: str) -> float:
    """Return the share of a text's words that stand in runs which the document has, too.

    A run is eight words, or sixteen characters where a script sets no blanks.

    >>> copied_share("so a b c d e f g h", "a b c d e f g h i")
    0.8888888888888888
    """
    split, length = (words_in, RUN_WORDS)
    if sets_no_blanks(text):
        split, length = characters_in, RUN_CHARACTERS
    pieces, theirs = split(text), split(document)
    runs = {tuple(theirs[at : at + length]) for at in range(len(theirs) - length + 1)}
    copied = [False] * len(pieces)
    for at in range(len(pieces) - length + 1):
        if tuple(pieces[at : at + length]) in runs:
            copied[at : at + length] = [True] * length
    return sum(copied) / len(copied) if copied else 0.0


def _distil(answer: Answer, n_documents: int) -> Distilled:
    parts = require_whole(answer)
    chain, documents = _without_documents(parts.chain, n_documents)
    rest, named = _without_documents(parts.text, n_documents)
    documents = documents if named is None else named
    before, part, after = _answer_part(rest)
    if chain:
        final = rest if part is None else part
        if not final:
            raise Unusable("no_answer", "nothing follows the chain of reasoning")
        return Distilled(chain, final, documents)
    if part == "":
        raise Unusable("no_answer", "the <answer> part is empty")
    reasoning = "\n".join(filter(None, (before, after)))
    words = count_words(reasoning) if re.search(r"\w", reasoning) else 0
    if part is None and words < FEWEST_WORDS and not sets_no_blanks(reasoning):
        words = 0
    if not words or _LEADS_IN.fullmatch(reasoning):
        raise Unusable("no_reasoning", "nothing but an answer")
    return Distilled(reasoning, part, documents)


_ANSWER_OPEN = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_CLOSE = re.compile(r"</answer>", re.IGNORECASE)
# Closed it may hold lines and tags of its own; never closed, it ends with its line or at the next tag.
_DOCUMENTS = re.compile(
    r"<documents>(?:(?P<closed>(?:(?!</?documents>|</?answer>).){0,300})</documents>"
    r"|(?P<line>[^<\n]*)(?:(?=<)|$))",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_DOCUMENTS_CLOSE = re.compile(r"</documents>", re.IGNORECASE)
# Without its name, which may have digits of its own: `<document number="2">` says which it is.
_TAG_NAME = re.compile(r"</?[\w-]+")
# On one line: a list has its dashes at the beginning of lines.
_RANGE = re.compile(
    r"(?<!\d)(\d{1,6})[ \t]*(?:[-\N{NON-BREAKING HYPHEN}\N{EN DASH}]|to\b)[ \t]*(\d{1,6})(?!\d)",
    re.IGNORECASE,
)
# What stands before an answer and says nothing.
_LEADS_IN = re.compile(
    r"\W*(?:(?:so|thus|therefore|hence|sure|okay)\W+)?(?:(?:here\s+is|my|the)\W+)?(?:final\W+|correct\W+|short\W+)?"
    r"(?:answer|solution|result)?(?:\W+to\s+(?:the|your)\s+question)?(?:\W+is)?\W*",
    re.IGNORECASE,
)


def _answer_part(text: str) -> tuple[str, str | None, str]:
    """Return what comes before the last <answer> tag, what stands in it (None without a tag), what follows."""
    *_, last = [None, *_ANSWER_OPEN.finditer(text)]
    if last is None:
        return text.strip(), None, ""
    # An endpoint that stops at the closing tag leaves it out.
    part, *after = _ANSWER_CLOSE.split(text[last.end() :], maxsplit=1)
    return text[: last.start()].strip(), part.strip(), "".join(after).strip()


def _without_documents(text: str, n_documents: int) -> tuple[str, list[int] | None]:
    """Return a text without its <documents> parts, and the numbers in the last of them."""
    *_, last = [None, *_DOCUMENTS.finditer(text)]
    if last is None:
        return text, None
    said = _TAG_NAME.sub(" ", last["closed"] or last["line"] or "")
    named = _numbers(said, n_documents)
    names = bool(named) or "none" in said.lower()
    without = _DOCUMENTS_CLOSE.sub("", _DOCUMENTS.sub("", text)).strip()
    return without, named if names else None


def _numbers(said: str, n_documents: int) -> list[int]:
    """Return each number once, with those between the ends of a range.

    >>> _numbers("4, 1-3 and 2", 5)
    [4, 1, 2, 3]
    """

    def between(match: re.Match[str]) -> str:
        first, last = int(match[1]), int(match[2])
        spans = first < last <= n_documents
        return " ".join(map(str, range(first, last + 1) if spans else (first, last)))

    return list(dict.fromkeys(map(int, re.findall(r"\d{1,6}", _RANGE.sub(between, said)))))
