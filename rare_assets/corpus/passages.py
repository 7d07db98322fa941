"""Cut a long text into passages: at headings, then paragraphs, then sentences.

A text that fits is left whole. Else a section that fits is a passage of its own, and one that does not is
cut at its own headings. Where there are none left, it is halved, again and again, at the boundary whose
first characters have the smallest hash. So a boundary depends on what stands around it and not on how many
words came before, and one changed sentence changes the passages that it touches and no others.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

import regex

from rare_assets.text.words import SpacedWords, count_units, sets_no_blanks

# A shorter passage joins its neighbour where both fit into one.
FEW_WORDS = 20
# How many words stand between two places of a text.
_Count = Callable[[int, int], int]
HEADING_PATH = " > "
# So many characters at its beginning decide how early a boundary is cut at.
_HASHED = 32

# What stands behind backticks on their line holds none, else they are code within a text.
_FENCE_BEGIN = r"(?:`{3,}(?=[^`\n]*$)|~{3,})"
_FENCE = rf"^ {{0,3}}(?P<mark>{_FENCE_BEGIN})[^\n]*(?:\n.*?^ {{0,3}}(?P=mark)[`~]*[ \t\r]*$|.*\Z)"
# Within a list or a quotation a fence stands deeper, or behind the mark; it is one if it is closed, not too far below.
_MARKS = r"(?:[ \t]*(?:[-*+>]|\d{1,9}[.)])[ \t]+)"


def _inner_fence(name: str) -> str:
    return (
        rf"^(?:{_MARKS}+[ \t]*|[ \t]+)(?P<{name}>{_FENCE_BEGIN})[^\n]*\n"
        rf"(?:[^\n]*\n){{0,200}}?[ \t>]*(?P={name})[`~]*[ \t\r]*$"
    )


# A page's own data, and what is hidden, may have lines like headings.
_FRONT = r"\A(?:---[ \t\r]*\n(?=[\w#'\"-]).*?\n(?:---|\.\.\.)|\+{3}[ \t\r]*\n.*?\n\+{3})[ \t\r]*$"
_COMMENT = r"^ {0,3}<!--(?:(?!-->)[^\n])*\n(?:[^\n]*\n){0,500}?[^\n]*-->[^\n]*"
_ATX = r"^ {0,3}(?P<hashes>#{1,6})(?:[ \t]+(?P<atx>[^\n]*)|\r)?$"


_LINE = r"[^\S\n]*+\S[^\n]*+"


def _markdown(*, inner: bool) -> re.Pattern[str]:
    """Return a pattern of a text's blocks. `inner`: fences may stand within lists, which each line is looked at for."""

    def starts(name: str) -> str:
        """Return what a line is that begins or goes on a paragraph: no fence and no heading."""
        no_fence = rf"(?!{_inner_fence(name)})" if inner else ""
        return rf"(?! {{0,3}}(?:{_FENCE_BEGIN}|#{{1,6}}(?:[ \t\r]|$))){no_fence}"

    fence = f"{_FENCE}|{_inner_fence('inner')}" if inner else _FENCE
    setext = rf"^(?P<setext>{starts('inner_1')}{_LINE})\n {{0,3}}(?P<under>=+|-+)[ \t\r]*$"
    paragraph = rf"^{starts('inner_2')}{_LINE}(?:\n{starts('inner_3')}{_LINE})*"
    return re.compile(
        rf"(?P<whole>{_FRONT}|{_COMMENT})|(?P<fence>{fence})|{_ATX}|{setext}|{paragraph}",
        re.MULTILINE | re.DOTALL,
    )


_MARKDOWN, _FLAT_MARKDOWN = _markdown(inner=True), _markdown(inner=False)
# One of them stands in a text with a fence within a list.
_INNER_FENCES = (" ```", "\t```", " ~~~", "\t~~~")
_TITLE = re.compile(
    r"^title[ \t]*[:=][ \t]*(?P<quote>[\"']?)(.+?)(?P=quote)[ \t\r]*$", re.MULTILINE
)
_PLAIN = re.compile(rf"^{_LINE}(?:\n{_LINE})*", re.MULTILINE)
# Of a list, a table or code each line stands for itself.
_ITEM = re.compile(r"^(?:[ \t]*(?:[-*+|]|\d+[.)])[ \t]?| {4}|\t)", re.MULTILINE)
# No sentence ends behind them. One that does is joined to the next, which harms less than one cut in two.
_ABBREVIATION = re.compile(
    r"(?:\b(?:[^\W\d_]|Dr|Mr|Mrs|Ms|Mme|Mlle|Prof|Sr|Sra|Dra|St|Fig|Figs|Eq|Eqs|Sec|Ch|No|Vol|vs|cf|al|approx|Vgl"
    r"|vgl|bzw|bspw|sog|ca|ggf|Hr|Fr|Nr|Abb|Tab|Kap|Abs|Inc|Ltd|Co|Jr|Jan|Feb|Mar|Apr|Aug|Sept?|Oct|Okt|Nov|Dec|Dez)"
    r"|e\.g|i\.e|(?<![\w.:,/-])\d{1,2})\.\s*\Z"
)
# A short word before a number: "pp. 3", "Art. 5".
_BEFORE_NUMBER = re.compile(r"\b[^\W\d_]{1,4}\.\s*\Z")
_OPENING = regex.compile(r"[\p{Ps}\p{Pi}]+\Z")
# From the beginning of a row of spaces, not again from each of them.
_CLOSING = re.compile(r"(?<![ \t])[ \t]+(?:#+[ \t]*)?\Z")


class Cutting(NamedTuple):
    """How texts are cut: text files into passages of at most so many words (0: never), rows where they are, too."""

    passage_words: int = 300
    split_rows: bool = False

    def words(self, *, text_file: bool) -> int:
        """Return how many words a passage of such a row has at most; 0 where a row is not cut."""
        return self.passage_words if text_file or self.split_rows else 0


class Passage(NamedTuple):
    """The place of a passage in its text, without white space at both ends, and the headings above it.

    `words` is how many it has; None where the text is in a script that sets no blanks between them.
    """

    start: int
    end: int
    headings: tuple[str, ...]
    words: int | None

    @property
    def title(self) -> str | None:
        """The heading path, as in "Deployment > Rollback"; None if there is none."""
        return HEADING_PATH.join(self.headings) or None


class _Block(NamedTuple):
    """A paragraph, a list, a table, code or a heading; `level` is 0 but for a heading's."""

    start: int
    end: int
    words: int
    level: int
    heading: str
    is_code: bool


class _Piece(NamedTuple):
    """A part of a text; `opens` if it is headings alone, which belong to what follows."""

    start: int
    end: int
    words: int
    headings: tuple[str, ...]
    opens: bool = False


def cut(text: str, max_words: int, *, markdown: bool) -> list[Passage]:
    """Return the passages of a text in order; none where all of it is one.

    Args:
        text: the whole text.
        max_words: words in a passage at most; characters in Chinese, Japanese, Thai and their like.
        markdown: headings and code fences are told by their marks.

    >>> text = "# Ice\\n\\nIt melts at zero degrees.\\n\\n# Salt\\n\\nIt lowers the melting point."
    >>> [(passage.title, passage.words) for passage in cut(text, 8, markdown=True)]
    [('Ice', 7), ('Salt', 7)]
    """
    spaced = None if sets_no_blanks(text) else SpacedWords(text)
    count = spaced.between if spaced else lambda start, end: count_units(text[start:end])
    if count(0, len(text)) <= max_words:
        return []
    blocks = list(_blocks(text, count, markdown=markdown))
    cutter = _Cutter(text, max_words, count)
    pieces = _joined(list(cutter.section(blocks, ())), max_words)
    passages = []
    for piece in pieces:
        start, end = _trimmed(text, piece.start, piece.end)
        words = spaced.between(start, end) if spaced else None
        passages.append(Passage(start, end, piece.headings, words))
    return passages


def first_heading(text: str) -> str | None:
    """Return the first heading of level 1 of a Markdown text; None without one.

    >>> first_heading("## Melting\\n\\n# Ice #\\n")
    'Ice'
    """
    for line in _markdown_of(text).finditer(text):
        if line["hashes"] == "#" and (line["atx"] or "").strip():
            return _CLOSING.sub("", line["atx"].strip()) or None
    return None


def _markdown_of(text: str) -> re.Pattern[str]:
    """Return the pattern of a text's blocks, which looks for fences within lists only where there can be one."""
    return _MARKDOWN if any(fence in text for fence in _INNER_FENCES) else _FLAT_MARKDOWN


def front_title(text: str) -> str | None:
    """Return the title that a Markdown text gives itself in the data before it; None without one.

    >>> front_title("---\\ntitle: 'Ice'\\n---\\n\\nIt melts.")
    'Ice'
    """
    front = re.match(_FRONT, text, re.MULTILINE | re.DOTALL)
    found = _TITLE.search(front[0]) if front else None
    return found[2].strip() if found else None


def _blocks(text: str, count: _Count, *, markdown: bool) -> Iterator[_Block]:
    for found in (_markdown_of(text) if markdown else _PLAIN).finditer(text):
        start, end = found.span()
        if found.lastindex is None:  # a paragraph
            yield _Block(start, end, count(start, end), 0, "", False)
            continue
        level, heading = 0, ""
        if found["hashes"]:
            level, heading = len(found["hashes"]), found["atx"] or ""
        elif found["setext"]:
            level, heading = (1 if found["under"][0] == "=" else 2), found["setext"]
        heading = _CLOSING.sub("", heading.strip())
        fence = found["fence"] is not None or found["whole"] is not None
        yield _Block(start, end, count(start, end), level, heading, fence)


class _Cutter:
    def __init__(self, text: str, max_words: int, count: _Count) -> None:
        self._text = text
        self._max_words = max_words
        self._count = count

    def section(self, blocks: list[_Block], above: tuple[str, ...]) -> Iterator[_Piece]:
        """Cut a section, whose own heading is its first block if it has one."""
        headings = above
        if blocks[0].level and blocks[0].heading:
            headings = (*above, blocks[0].heading)
        words = sum(block.words for block in blocks)
        if words <= self._max_words:
            opens = all(block.level for block in blocks)
            yield _Piece(blocks[0].start, blocks[-1].end, words, headings, opens)
            return
        level = min((block.level for block in blocks[1:] if block.level), default=0)
        if not level:
            yield from self._body(blocks, headings)
            return
        starts = [n for n, block in enumerate(blocks) if n and block.level == level]
        yield from self.section(blocks[: starts[0]], above)
        within = headings if 0 < blocks[0].level < level else above
        for start, end in zip(starts, [*starts[1:], len(blocks)], strict=True):
            yield from self.section(blocks[start:end], within)

    def _body(self, blocks: list[_Block], headings: tuple[str, ...]) -> Iterator[_Piece]:
        """Halve what has no headings at block boundaries, and one large block at its sentences.

        A heading of its own stays with the block that follows.
        """
        own = 2 if blocks[0].level else 1
        if len(blocks) <= own:
            units = list(self._within(blocks[-1]))
            if len(blocks) == 2:
                _, end, words = units[0]
                units[0] = (blocks[0].start, end, blocks[0].words + words)
            yield from self._halved(units, headings)
            return
        groups = [blocks[:own], *([block] for block in blocks[own:])]
        spans = [(some[0].start, some[-1].end, sum(b.words for b in some)) for some in groups]
        by_start = {some[0].start: some for some in groups}
        for start, end, words in self._pieces(spans):
            if words > self._max_words and (large := by_start[start])[-1].end == end:
                yield from self._body(large, headings)
            else:
                yield _Piece(start, end, words, headings)

    def _halved(
        self, units: list[tuple[int, int, int]], headings: tuple[str, ...]
    ) -> Iterator[_Piece]:
        for start, end, words in self._pieces(units):
            if words <= self._max_words:
                yield _Piece(start, end, words, headings)
            else:
                yield from (
                    _Piece(*span, headings) for span in self._pieces(list(self._words(start, end)))
                )

    def _pieces(self, units: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
        """Halve consecutive units until each part fits or is one unit."""
        todo = [(0, len(units))]
        upto = [0, *accumulate(words for _, _, words in units)]
        priorities = _Minima([self._priority(start) for start, _, _ in units])
        least = self._max_words // 3
        while todo:
            first, last = todo.pop()
            words = upto[last] - upto[first]
            if words <= self._max_words or last - first == 1:
                yield units[first][0], units[last - 1][1], words
                continue
            balanced = (
                bisect_left(upto, upto[first] + least, first + 1, last),
                bisect_right(upto, upto[last] - least, first + 1, last),
            )
            inner = (first + 1, last)
            at = priorities.first_least(*(balanced if balanced[0] < balanced[1] else inner))
            todo += [(at, last), (first, at)]

    def _priority(self, start: int) -> int:
        return zlib.crc32(self._text[start : start + _HASHED].encode("utf-8", "surrogatepass"))

    def _within(self, block: _Block) -> Iterator[tuple[int, int, int]]:
        """Return the lines of a list, a table or code, else the sentences."""
        part = self._text[block.start : block.end]
        n_lines = part.count("\n") + 1
        if block.is_code or (n_lines > 1 and 2 * len(_ITEM.findall(part)) >= n_lines):
            lengths: Iterable[int] = (len(line) for line in part.splitlines(keepends=True))
        else:
            lengths = map(len, _sentences(part))
        at = block.start
        for length in lengths:
            yield at, at + length, self._count(at, at + length)
            at += length

    def _words(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Return the words of a sentence that is too long, or its characters."""
        for found in re.finditer(r"\S+", self._text[start:end]):
            at, until = start + found.start(), start + found.end()
            words = self._count(at, until)
            if words <= 1:
                yield at, until, words
            else:
                yield from ((n, n + 1, 1) for n in range(at, until))


class _Minima:
    """Tells the first of the least values of any stretch, without looking at each value of a long one."""

    _CHUNK = 1024

    def __init__(self, values: list[int]) -> None:
        self._values = values
        chunks = range(0, len(values), self._CHUNK)
        self._minima = [min(values[n : n + self._CHUNK]) for n in chunks]

    def first_least(self, start: int, end: int) -> int:
        """Return the place of the first of the least values from one place until before another."""
        whole = range(-(-start // self._CHUNK), end // self._CHUNK)
        if not whole:
            least = min(self._values[start:end])
        else:
            before = self._values[start : whole.start * self._CHUNK]
            behind = self._values[whole.stop * self._CHUNK : end]
            least = min(*before, *behind, *self._minima[whole.start : whole.stop])
        return self._values.index(least, start, end)


def _sentences(text: str) -> list[str]:
    """Return the sentences, each with the white space behind it; a line may end within one."""
    from icu4py.breakers import SentenceBreaker

    found: list[str] = []
    at = 0
    for part in SentenceBreaker(text.replace("\n", " ").replace("\r", " "), "root"):
        as_it_stands = text[at : at + len(part)]
        at += len(part)
        goes_on = found and (
            _ABBREVIATION.search(found[-1])
            or (as_it_stands[:1].isdigit() and _BEFORE_NUMBER.search(found[-1]))
        )
        if goes_on:
            found[-1] += as_it_stands
            continue
        # An opening bracket belongs to what it opens.
        if found and (opening := _OPENING.search(found[-1])) and opening.start():
            found[-1], as_it_stands = found[-1][: opening.start()], opening[0] + as_it_stands
        found.append(as_it_stands)
    return found


def _joined(pieces: list[_Piece], max_words: int) -> list[_Piece]:
    """Join each piece of few words to a neighbour: the one below it if it is a section's beginning."""
    joined: list[_Piece] = []
    for piece, below in zip(pieces, [*pieces[1:], None], strict=True):
        begins = piece.opens and below and piece.words + below.words <= max_words
        if not begins or (joined and joined[-1].opens):
            while joined and _belong(joined, piece, max_words):
                piece = _both(joined.pop(), piece)
        joined.append(piece)
    return joined


def _belong(before: list[_Piece], piece: _Piece, max_words: int) -> bool:
    last = before[-1]
    if last.words + piece.words > max_words:
        return False
    return min(last.words, piece.words) < FEW_WORDS


def _both(first: _Piece, second: _Piece) -> _Piece:
    headings = first.headings if first.words >= second.words else second.headings
    opens = first.opens and second.opens
    return _Piece(first.start, second.end, first.words + second.words, headings, opens)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
