"""Cut a long text into passages: at headings, then paragraphs, then sentences.

A text that fits is left whole. Else a section that fits is a passage of its own, and one that does not is
cut at its own headings. Where there are none left, it is halved, again and again, at the boundary whose
first characters have the smallest hash. So a boundary depends on what stands around it and not on how many
words came before, and one changed sentence changes the passages that it touches and no others.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

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
_ATX = r"^ {0,3}(?P<hashes>#{1,6})(?:[ \t]+(?P<atx>[^\n]*)|\r)?$"
_STARTS = rf"(?! {{0,3}}(?:{_FENCE_BEGIN}|#{{1,6}}(?:[ \t\r]|$)))"
_LINE = r"[^\S\n]*+\S[^\n]*+"
_SETEXT = rf"^(?P<setext>{_STARTS}{_LINE})\n {{0,3}}(?P<under>=+|-+)[ \t\r]*$"
_PARAGRAPH = rf"^{_STARTS}{_LINE}(?:\n{_STARTS}{_LINE})*"
_MARKDOWN = re.compile(
    rf"(?P<fence>{_FENCE})|{_ATX}|{_SETEXT}|{_PARAGRAPH}", re.MULTILINE | re.DOTALL
)
_PLAIN = re.compile(rf"^{_LINE}(?:\n{_LINE})*", re.MULTILINE)
# Of a list, a table or code each line stands for itself.
_ITEM = re.compile(r"^(?:[ \t]*(?:[-*+|]|\d+[.)])[ \t]?| {4}|\t)", re.MULTILINE)
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|St|Fig|Eq|No|Vol|vs|cf|al|approx|z\.B|d\.h|bzw)|e\.g|i\.e)\.\s*\Z"
)
_CLOSING = re.compile(r"[ \t]+#+[ \t]*\Z|[ \t]+\Z")


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
    start: int
    end: int
    words: int
    headings: tuple[str, ...]


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
    for line in _MARKDOWN.finditer(text):
        if line["hashes"] == "#" and (line["atx"] or "").strip():
            return _CLOSING.sub("", line["atx"].strip()) or None
    return None


def _blocks(text: str, count: _Count, *, markdown: bool) -> Iterator[_Block]:
    for found in (_MARKDOWN if markdown else _PLAIN).finditer(text):
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
        fence = found["fence"] is not None
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
            yield _Piece(blocks[0].start, blocks[-1].end, words, headings)
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
        """Halve what has no headings at block boundaries, and one large block at its sentences."""
        if len(blocks) == 1:
            units = list(self._within(blocks[0]))
            yield from self._halved(units, headings)
        else:
            spans = [(block.start, block.end, block.words) for block in blocks]
            by_start = {block.start: block for block in blocks}
            for start, end, words in self._pieces(spans):
                if words > self._max_words and (large := by_start[start]).end == end:
                    yield from self._body([large], headings)
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
        upto = [0]
        for _, _, words in units:
            upto.append(upto[-1] + words)
        while todo:
            first, last = todo.pop()
            words = upto[last] - upto[first]
            if words <= self._max_words or last - first == 1:
                yield units[first][0], units[last - 1][1], words
                continue
            least = self._max_words // 3
            inner = range(first + 1, last)
            balanced = [
                n for n in inner if upto[n] - upto[first] >= least and upto[last] - upto[n] >= least
            ]
            at = min(balanced or inner, key=lambda n: (self._priority(units[n][0]), n))
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


def _sentences(text: str) -> list[str]:
    """Return the sentences, each with the white space behind it; a line may end within one."""
    from icu4py.breakers import SentenceBreaker

    found: list[str] = []
    at = 0
    for part in SentenceBreaker(text.replace("\n", " ").replace("\r", " "), "root"):
        as_it_stands = text[at : at + len(part)]
        at += len(part)
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] += as_it_stands
        else:
            found.append(as_it_stands)
    return found


def _joined(pieces: list[_Piece], max_words: int) -> list[_Piece]:
    """Join each piece of few words to a neighbour: the one below it if it is a section's beginning."""
    joined: list[_Piece] = []
    for piece in pieces:
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
    return _Piece(first.start, second.end, first.words + second.words, headings)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
