"""Put the marks of Markdown for the tags of Resiliparse's minimal HTML."""

from __future__ import annotations

import re

HEADINGS = tuple(f"h{level}" for level in range(1, 7))
# Around the number of an item that has one of its own.
_BEGIN, _END = "\ue0f0", "\ue0f1"
_NUMBER = re.compile(rf"{_BEGIN}(\d+){_END}\s*")
# Paragraphs are parted by blank lines already.
_MARKS = {
    **{heading: f"\n{'#' * level} " for level, heading in enumerate(HEADINGS, 1)},
    **{f"/{heading}": "\n" for heading in HEADINGS},
    **{"p": "", "/p": "", "br": "\n", "/li": ""},
}
# A heading without text would be a mark alone.
_NO_HEADING = re.compile(r"<h([1-6])>\s*</h\1>")
_LINES_OF_HEADING = re.compile(r"<h([1-6])>[^<]*<br>.*?</h\1>", re.DOTALL)
# From the beginning of a row of spaces, not again from each of them.
_BREAK = re.compile(r"(?:(?<!\s)\s+)?<br>\s*")
# What stands between an item's mark and its text.
_BEFORE_ITEM = re.compile(r"<li>[ \t]*\n\s*(?:<p>\s*|(?=[^\s<]))")
_CODE = re.compile(r"<pre>(.*?)</pre>", re.DOTALL)
_FENCES = re.compile(r"^[ \t]*(`{3,})", re.MULTILINE)
_MANY_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")


def numbered(number: str) -> str:
    """Return what stands at the beginning of an item that has a number of its own."""
    return f"{_BEGIN}{number}{_END}"


def marked(minimal: str) -> str:
    """Return the text with marks for its tags; any other `<` of the text is written `&lt;`."""
    if "<br>" in minimal:
        minimal = _LINES_OF_HEADING.sub(lambda found: _BREAK.sub(" ", found[0]), minimal)
        minimal = minimal.replace("<br>\n", "\n")
    minimal = _BEFORE_ITEM.sub("<li>", _NO_HEADING.sub("", minimal))
    fences = iter(_fences(minimal))
    lists: list[int | None] = []
    first, *tagged = minimal.split("<")
    # Code stays as it is, tabs and blank lines included.
    whole: list[str] = []
    parts, in_code = [_in_cells(first)], False
    fence = "```"
    for each in tagged:
        tag, _, text = each.partition(">")
        mark = _MARKS.get(tag)
        if tag == "pre":
            fence, in_code = next(fences, "```"), True
            whole.append(_with_few_lines([*parts, f"\n{fence}\n"]))
            parts = [text]
            continue
        if tag == "/pre":
            whole += parts
            parts, in_code, mark = [], False, f"\n{fence}"
        elif mark is None:
            mark, text = _list_mark(tag, text, lists)
        parts += (mark, text if in_code else _in_cells(text))
    return "".join(whole) + ("".join(parts) if in_code else _with_few_lines(parts))


def _in_cells(text: str) -> str:
    return text.replace("\t\t", " | ")


def _with_few_lines(parts: list[str]) -> str:
    """Return the joined parts without more than one blank line in a row."""
    return _MANY_LINES.sub("\n\n", "".join(parts))


def _fences(minimal: str) -> list[str]:
    """Return a fence for each piece of code, longer than any within it; none where three will do for all."""
    if "```" not in minimal:
        return []
    codes = [_FENCES.findall(code) for code in _CODE.findall(minimal)]
    return ["`" * max([3, *(len(fence) + 1 for fence in found)]) for found in codes]


def _list_mark(tag: str, text: str, lists: list[int | None]) -> tuple[str, str]:
    """Return the mark of a list's tag, and the text behind it.

    Args:
        tag: without its brackets.
        text: what stands up to the next tag.
        lists: the number of each open list's last item, None where it has dots.
    """
    if tag == "li":
        number = _NUMBER.match(text) if text.startswith(_BEGIN) else None
        text = text[number.end() :] if number else text
        if not lists or lists[-1] is None:
            return "- ", text
        lists[-1] = int(number[1]) if number else lists[-1] + 1
        return f"{lists[-1]}. ", text
    if tag in ("ul", "ol"):
        lists.append(None if tag == "ul" else 0)
    elif tag in ("/ul", "/ol"):
        if lists:
            lists.pop()
    else:
        return f"<{tag}>", text
    return ("" if lists else "\n"), text
