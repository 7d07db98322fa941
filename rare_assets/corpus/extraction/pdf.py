"""PDF to Markdown-like text: columns one after the other, paragraphs whole, headings, no running heads."""

from __future__ import annotations

import ctypes
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

from rare_assets.corpus.extraction import Unusable
from rare_assets.corpus.extraction.pdf_headings import Face, is_heading, levels_of

# PDFium puts it where a word was divided at a line's end.
_DIVIDED = "\ufffe"
_HYPHENS = "-\u2010\u2011\u00ad" + _DIVIDED
_LIGATURES = (*range(0xFB00, 0xFB07), 0xA0)
_AS_LETTERS = {
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in _LIGATURES},
    # Where a font does not tell its letters, these are the numbers of its shapes.
    **dict.fromkeys((*range(9), *range(14, 32), 127)),
}
# Lines at a page's top and bottom that may be running heads or page numbers.
_EDGE_LINES = 2
# Of the pages, those that have a line at the same edge: then it is a running head.
_RUNNING_SHARE = 0.4
_PAGE_NUMBER = re.compile(
    r"\W*(?:(?:page|seite|p\.)\s*)?(?:\d{1,4}|[ivxlc]{1,7})(?:\s*(?:of|von|/)\s*\d{1,4})?\W*", re.I
)
_SECTION_NUMBER = re.compile(r"(?:\d{1,2}|[A-Z])(?:\.\d{1,2}){0,5}\.?")
_NO_TITLES = {"", "anonymous", "untitled", "unspecified", "document"}
_UNSPACED = "\u2e80"
# From the beginning of a word, not again from each letter of it.
_WORD_BEFORE = re.compile(r"(?<![^\W\d_])[^\W\d_]+\Z")
_WORD_AFTER = re.compile(r"\A[^\W\d_]+")
# Before them a hyphen stands for the rest of a word: "pre- and post-war".
_CONJUNCTIONS = {"and", "or", "to", "und", "oder", "bis", "et", "ou", "y", "o", "e"}
# Of Hebrew, Arabic and their kin.
_RIGHT = "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
_FROM_RIGHT = re.compile(_RIGHT)
_WORDS_FROM_RIGHT = re.compile(rf"{_RIGHT}+(?:\W+{_RIGHT}+)*")


class _Line(NamedTuple):
    """Text that stands together on one line: `top` and `bottom` grow downwards from the page's top.

    `face` is how its letters look; None where they differ, or where several cells stand side by side.
    """

    left: float
    top: float
    right: float
    bottom: float
    text: str
    face: Face | None

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def row(self) -> int:
        """Which of the rows of a page, each of four points, it stands on."""
        return round(self.bottom / 4)


class _Paragraph(NamedTuple):
    """Lines of text that belong together; `level` is 0 but for letters of a heading."""

    lines: list[str]
    level: int


def extract(content: bytes) -> tuple[str, str | None]:
    """Return a file's text and the title that it gives itself.

    Raises:
        Unusable: it is encrypted, broken or has pictures alone.
    """
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            raise Unusable("encrypted", "protected by a password") from error
        raise Unusable("broken_file", f"not a PDF that can be read: {error}") from error
    pages = [_lines(document[number]) for number in range(len(document))]
    if not any(pages):
        raise Unusable(
            "no_text_layer", f"{len(pages)} pages of pictures and no text; recognise the text first"
        )
    pages = list(_without_running_heads(pages))
    levels = levels_of((line.face, line.text) for page in pages for line in page if line.face)
    paragraphs: list[_Paragraph] = []
    for page in pages:
        found = list(_paragraphs(_in_reading_order(page), levels))
        if paragraphs and found and _is_continued(paragraphs[-1], found[0]):
            paragraphs[-1].lines.extend(found.pop(0).lines)
        paragraphs += found
    divided = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)+")
    known = Counter(divided.findall("\n".join("\n".join(each.lines) for each in paragraphs)))
    text = "\n\n".join(_as_text(paragraph, known) for paragraph in paragraphs)
    title = " ".join((document.get_metadata_dict().get("Title") or "").split())
    # What programs write that were told no title.
    return text, None if title.strip("()").lower() in _NO_TITLES else title


def _lines(page: Any) -> list[_Line]:
    """Return the lines of a page in the file's order, parted where a gap is as wide as between columns."""
    text_page = page.get_textpage()
    n = text_page.count_chars()
    if n <= 0:
        return []
    height = page.get_height()
    # The box of a font's letters is as high for an a as for a g, so a row has one bottom.
    box = pdfium.FS_RECTF()
    place = ctypes.byref(box)
    lines: list[_Line] = []
    run: list[tuple[float, float, float, float, str]] = []
    numbers: list[int] = []

    def finish() -> None:
        text = _spelt(run).translate(_AS_LETTERS).strip()
        if text:
            inked = [each for each in run if not each[4].isspace()] or run
            lines.append(
                _Line(
                    min(each[0] for each in inked),
                    min(each[1] for each in inked),
                    max(each[2] for each in inked),
                    max(each[3] for each in inked),
                    text,
                    _face(text_page, numbers),
                )
            )
        run.clear()
        numbers.clear()

    for i, character in enumerate(_characters(text_page, n)):
        if character in "\r\n":
            finish()
            continue
        if not pdfium.FPDFText_GetLooseCharBox(text_page.raw, i, place) or box.right <= box.left:
            if run:
                run.append((run[-1][2], run[-1][1], run[-1][2], run[-1][3], character))
            continue
        here = (box.left, height - box.top, box.right, height - box.bottom, character)
        if run:
            size = max(run[0][3] - run[0][1], here[3] - here[1], 6.0)
            if here[0] - run[-1][2] > 1.5 * size or run[-1][2] - here[0] > 3 * size:
                finish()
        run.append(here)
        if not character.isspace():
            numbers.append(i)
    finish()
    return lines


def _spelt(run: list[tuple[float, float, float, float, str]]) -> str:
    """Return the text of characters; Arabic words that PDFium leaves as they are drawn begin with their first letter."""

    def from_first(found: re.Match[str]) -> str:
        drawn = run[found.start()][0] < run[found.end() - 1][0]
        return found[0][::-1] if drawn else found[0]

    return _WORDS_FROM_RIGHT.sub(from_first, "".join(character for *_, character in run))


def _face(text_page: Any, numbers: list[int]) -> Face | None:
    """Return the face of a line's characters, told by the first and the last; None where these differ."""
    faces = set()
    matrix, name = pdfium.FS_MATRIX(), ctypes.create_string_buffer(256)
    for number in {*numbers[:1], *numbers[-1:]}:
        pdfium.FPDFText_GetMatrix(text_page.raw, number, ctypes.byref(matrix))
        size = pdfium.FPDFText_GetFontSize(text_page.raw, number) * math.hypot(matrix.b, matrix.d)
        pdfium.FPDFText_GetFontInfo(text_page.raw, number, name, len(name), None)
        faces.add(Face.of(size, name.value.decode("utf-8", "replace")))
    return faces.pop() if len(faces) == 1 else None


def _characters(text_page: Any, n: int) -> str:
    """Return the `n` characters of a page, blanks for those of which the font does not tell what they are."""
    buffer = (ctypes.c_ushort * (n + 1))()
    written = pdfium.FPDFText_GetText(text_page.raw, 0, n, buffer)
    units = bytes(buffer)[: 2 * n].decode("utf-16-le", "replace")
    # Those are left out there, and some characters take two units: then their places can't be told by number.
    if written != n + 1 or len(units) != n:
        codes = [pdfium.FPDFText_GetUnicode(text_page.raw, i) for i in range(n)]
        units = "".join(chr(code) if code else " " for code in codes)
    return units


class _Edge(NamedTuple):
    """A line of a page's first or last rows; `apart` if a wider gap parts it from the text."""

    place: str
    line: _Line
    apart: bool
    outermost: bool

    @property
    def row(self) -> tuple[str, int]:
        return self.place, self.line.row

    def keys(self, page: int) -> set[tuple[object, ...]]:
        """Return what is equal on each page for a running head: the text, but for one number that counts the pages."""
        text = self.line.text
        keys: set[tuple[object, ...]] = {(self.place, text)}
        if self.apart or (self.outermost and text[-1] not in ".,;:!?"):
            for found in re.finditer(r"\d{1,6}", text):
                before, after = text[: found.start()], text[found.end() :]
                keys.add((self.place, before, int(found[0]) - page, after))
        return keys


def _without_running_heads(pages: list[list[_Line]]) -> Iterator[list[_Line]]:
    edges = [_edges(page) for page in pages]
    seen = Counter(
        key
        for number, page in enumerate(edges)
        for key in {key for edge in page for key in edge.keys(number)}
    )
    # A second page is the first that can repeat anything; odd and even pages may differ.
    often = max(2.0, _RUNNING_SHARE * len(pages))
    times = {
        (number, edge): max(seen[key] for key in edge.keys(number))
        for number, page in enumerate(edges)
        for edge in page
    }
    # A book's heads change with its chapters and stay where they are.
    repeated = {(number, edge.row) for (number, edge), n in times.items() if n > 1 and edge.apart}
    heights = Counter(row for _, row in repeated)
    for number, (page, edge) in enumerate(zip(pages, edges, strict=True)):
        size = median(line.height for line in page) if page else 0.0
        gone = {
            each.line
            for each in edge
            if times[number, each] >= often
            # A slide's title stays where it is, too, and is larger.
            or (each.apart and heights[each.row] >= often and each.line.height <= 1.15 * size)
        }
        left = Counter(each.row for each in edge if each.line not in gone)
        gone |= {
            each.line
            for each in edge
            # A number beside other text is a table's.
            if len(page) > 1 and left[each.row] == 1 and _PAGE_NUMBER.fullmatch(each.line.text)
        }
        yield [line for line in page if line not in gone]


def _edges(page: list[_Line]) -> list[_Edge]:
    """Return the lines of the first and the last rows of a page."""
    by_row: dict[int, list[_Line]] = {}
    for line in page:
        by_row.setdefault(line.row, []).append(line)
    rows = sorted(by_row)
    pitch = median([after - before for before, after in pairwise(rows)] or [0])
    found = []
    for place, inwards in (("top", rows), ("bottom", rows[::-1])):
        near = inwards[: _EDGE_LINES + 1]
        gaps = [abs(inner - outer) > 1.3 * pitch for outer, inner in pairwise(near)]
        for n, row in enumerate(inwards[:_EDGE_LINES]):
            found += [_Edge(place, line, any(gaps[n:]), n == 0) for line in by_row[row]]
    return found


def _in_reading_order(lines: list[_Line]) -> list[_Line]:
    """Put columns one after the other; lines across them part what is above from what is below."""
    rows = _rows(lines)
    gutter = _gutter(rows)
    if gutter is None:
        return [_merged(row) for row in rows]
    from_right = _is_from_right(lines)
    ordered: list[_Line] = []
    left: list[_Line] = []
    right: list[_Line] = []
    for row in rows:
        if any(line.left < gutter < line.right for line in row):
            ordered += [*_one_by_one(left, right, from_right), _merged(row)]
            left, right = [], []
        else:
            left += [line for line in row if line.right <= gutter]
            right += [line for line in row if line.right > gutter]
    return [*ordered, *_one_by_one(left, right, from_right)]


def _one_by_one(left: list[_Line], right: list[_Line], from_right: bool) -> list[_Line]:
    first, second = (right, left) if from_right else (left, right)
    return [*_in_reading_order(first), *_in_reading_order(second)]


def _rows(lines: list[_Line]) -> list[list[_Line]]:
    """Return lines that stand side by side, from top to bottom, each row from left to right."""
    rows: list[list[_Line]] = []
    for line in sorted(lines, key=lambda line: line.bottom):
        if rows and line.bottom - rows[-1][0].bottom < 0.4 * min(line.height, rows[-1][0].height):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.left) for row in rows]


def _merged(row: list[_Line]) -> _Line:
    """Return what stands side by side, from left to right, as one line."""
    text = " ".join(line.text for line in row)
    if len(row) > 1 and _is_from_right(row):
        row = _as_read_from_right(row)
        # A change of direction parts a line without a gap.
        text = row[0].text + "".join(
            (" " if before.left - after.right > 0.1 * after.height else "") + after.text
            for before, after in pairwise(row)
        )
    return _Line(
        min(line.left for line in row),
        min(line.top for line in row),
        max(line.right for line in row),
        max(line.bottom for line in row),
        text,
        row[-1].face if len(row) == 1 or _is_numbered(row) else None,
    )


def _is_from_right(lines: list[_Line]) -> bool:
    """Return True if most letters of some lines are read from right to left."""
    text = "".join(line.text for line in lines)
    letters = sum(letter.isalpha() for letter in _FROM_RIGHT.findall(text))
    return letters > 0 and 2 * letters > sum(character.isalpha() for character in text)


def _as_read_from_right(row: list[_Line]) -> list[_Line]:
    """Return a row from right to left; words in between that go from left to right are one line, in their order."""
    read: list[_Line] = []
    others: list[_Line] = []
    for line in sorted(row, key=lambda line: line.right, reverse=True):
        other = not _FROM_RIGHT.search(line.text) and any(map(str.isalnum, line.text))
        # What is further apart is a table's next cell.
        if others and not (other and others[-1].left - line.right < line.height):
            read.append(_merged(others[::-1]))
            others = []
        (others if other else read).append(line)
    return [*read, _merged(others[::-1])] if others else read


def _is_numbered(row: list[_Line]) -> bool:
    """Return True for a section's number and its heading; cells of a table are none."""
    return (
        len(row) == 2
        and row[0].face == row[1].face
        and _SECTION_NUMBER.fullmatch(row[0].text) is not None
    )


def _gutter(rows: list[list[_Line]]) -> float | None:
    """Return where two columns of text are parted, if there are any; cells of a table are too narrow for it."""
    if len(rows) < 3:
        return None
    start, end = min(row[0].left for row in rows), max(row[-1].right for row in rows)
    width = end - start
    best: tuple[int, float] | None = None
    for edge in sorted({round(line.left) for row in rows for line in row}):
        at = edge - 2.0
        if not start + 0.2 * width < at < end - 0.2 * width:
            continue
        whole = [row for row in rows if not any(line.left < at < line.right for line in row)]
        across = len(rows) - len(whole)
        before = [each for row in whole if (each := [x for x in row if x.right <= at])]
        after = [each for row in whole if (each := [x for x in row if x.left >= at])]
        if min(len(before), len(after)) < 3 or across > 0.35 * len(rows):
            continue
        if not (_fills(before, at - start) and _fills(after, end - at)):
            continue
        if best is None or across < best[0]:
            best = (across, at)
    return best[1] if best else None


def _fills(rows: list[list[_Line]], width: float) -> bool:
    """Return True if the rows are about as wide as their column, without wide gaps."""
    widths = sorted(row[-1].right - row[0].left for row in rows)
    return widths[len(widths) // 2] >= 0.6 * width


def _paragraphs(lines: list[_Line], levels: dict[Face, int]) -> Iterator[_Paragraph]:
    """Group lines: a paragraph ends at a wider gap, at another kind of letters and before an indent."""
    if _is_from_right(lines):
        # Seen in a mirror, an indent and a last line's end are where they are in other scripts.
        lines = [line._replace(left=-line.right, right=-line.left) for line in lines]
    paragraph: list[_Line] = []
    level = 0
    pitch = _pitch(lines)
    for line in lines:
        of_line = levels.get(line.face, 0) if line.face else 0
        if paragraph and (of_line != level or _begins(line, paragraph, level, pitch)):
            yield _Paragraph([each.text for each in paragraph], level)
            paragraph = []
        paragraph.append(line)
        level = of_line
    if paragraph:
        yield _Paragraph([each.text for each in paragraph], level)


def _begins(line: _Line, paragraph: list[_Line], level: int, pitch: float) -> bool:
    """Return True if a line begins another paragraph than the one before, which has letters like it."""
    last = paragraph[-1]
    gap = line.bottom - last.bottom
    if level:  # the lines of a heading may stand in the middle
        return not 0 <= gap <= 1.25 * line.height
    if gap < -pitch:  # the next column
        return not _goes_on(last.text, line.text)
    edge = min(each.left for each in paragraph)
    indented = line.left > edge + 0.8 * line.height and last.left <= edge + 1
    widest = max(each.right - edge for each in (*paragraph, line))
    ended = last.right < edge + 0.6 * widest and not _unfinished(last.text)
    return gap > 1.25 * pitch or indented or ended


def _pitch(lines: list[_Line]) -> float:
    """Return how far lines of a paragraph are apart: behind full ones, where no paragraph ends."""
    edge = max((line.right for line in lines), default=0.0)
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for before, after in pairwise(lines):
        gap = after.bottom - before.bottom
        if gap > 0.5 * before.height:
            gaps[before.right > before.left + 0.9 * (edge - before.left)].append(gap)
    found = sorted(gaps[True] if len(gaps[True]) > 2 else gaps[True] + gaps[False])
    return found[len(found) // 2] if found else 12.0


def _unfinished(text: str) -> bool:
    return bool(text) and (text[-1] in _HYPHENS + "," or text[-1].isalpha())


def _goes_on(before: str, after: str) -> bool:
    """Return True if a line of a paragraph goes on behind the end of its page or column."""
    return before[-1:] in _HYPHENS or (_unfinished(before) and after[:1].islower())


def _is_continued(last: _Paragraph, first: _Paragraph) -> bool:
    """Return True if a page's last paragraph goes on with the next page's first one."""
    return not (last.level or first.level) and _goes_on(last.lines[-1], first.lines[0])


def _as_text(paragraph: _Paragraph, known: Counter[str]) -> str:
    text = _joined(paragraph.lines, known)
    return f"{'#' * paragraph.level} {text}" if paragraph.level and is_heading(text) else text


def _joined(lines: Iterable[str], known: Counter[str]) -> str:
    """Join a paragraph's lines; a word divided at a line's end is one again, unless its hyphen is its own."""
    text = ""
    for line in lines:
        if text and text[-1] in _HYPHENS and text[-2:-1].isalnum() and line[0].isalnum():
            begun, ending = _WORD_BEFORE.search(text[:-1]), _WORD_AFTER.search(line)
            hyphen = "-"  # as in "1990-1995"
            if begun and ending:
                hyphen = _hyphen(text[: begun.start()], begun[0], ending[0], known)
            text = f"{text[:-1]}{hyphen}{line}"
        else:
            # Scripts like Chinese set no blank where a line ends.
            blank = "" if text and text[-1] >= _UNSPACED and line[0] >= _UNSPACED else " "
            text = f"{text}{blank}{line}" if text else line

    def within(found: re.Match[str]) -> str:
        before = found.string[: found.start()][-1:]
        return f"{found[1]}{_hyphen(before, found[1], found[2], known)}{found[2]}"

    # PDFium has joined some lines by itself and left its mark.
    text = re.sub(rf"([^\W\d_]+){_DIVIDED}\s*([^\W\d_]+)", within, text)
    return " ".join(text.replace(_DIVIDED, "-").replace("\u00ad", "").split())


def _hyphen(before: str, begun: str, ending: str, known: Counter[str]) -> str:
    """Return what becomes of a hyphen at a line's end: nothing where it only divides the word.

    Args:
        before: what stands before the word.
        begun: the word's letters before the hyphen.
        ending: its letters behind it.
        known: words of the file that have a hyphen.
    """
    if ending in _CONJUNCTIONS:
        return "- "
    in_compound = before[-1:] in tuple(_HYPHENS) or begun.lower() == "self"
    own = in_compound or f"{begun}-{ending}" in known or not ending[0].islower()
    return "-" if own else ""
