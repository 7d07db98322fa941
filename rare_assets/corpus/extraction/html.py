"""HTML to Markdown-like text: the main content, with headings, lists, tables and code."""

from __future__ import annotations

import html
import re
from typing import Any

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from rare_assets.corpus.extraction import Unusable
from rare_assets.corpus.extraction.charsets import decoded
from rare_assets.corpus.extraction.formulas import in_a_line, with_powers
from rare_assets.corpus.extraction.marks import HEADINGS, marked, numbered
from rare_assets.corpus.extraction.site_parts import drop_site_parts, names_in, skipped

# A pattern that begins with a letter of one case is found several times as fast.
_CELL_BEGIN = re.compile(r"(<[tT][dDhH]\b[^>]*>)\s*<[pP]\b[^>]*>")
_CELL_END = re.compile(r"</[pP]>\s*(</[tT][dDhH]>)")
# The text of a cell that is a line: what is longer is laid out by the table.
_CELL_CHARACTERS = 300
# To look from a node at what is around it takes as long as the page is: of a larger one only the beginning.
_MOST_BLOCKS = 300
# Resiliparse leaves out figures, which hold tables and code on many sites.
_FIGURE, _CAPTION = re.compile(r"<(/?)figure\b"), re.compile(r"<(/?)figcaption\b")
# Tags that few pages have, and links at a heading's end or beginning: looked for at once, since each look at the
# page takes its time.
_RARE = re.compile(
    r"""<(math|td|script\stype=.?math/tex|ol\s[^>]*start|/a>\s*</h[1-6]|h[1-6][^>]*>\s*<a)\b""",
    re.IGNORECASE,
)
# As MediaWiki writes a formula.
_DISPLAYED = re.compile(r"\{\\displaystyle (.*)\}", re.DOTALL)
_SOFT_HYPHEN = "\u00ad"


def extract(content: bytes) -> tuple[str, str | None]:
    """Return the main text of a page, with the marks of Markdown, and its title (None without one).

    Raises:
        Unusable: it is not in the encoding that it declares, or has no text.
    """
    # A cell's one paragraph would stand on a line of its own.
    page = _CELL_END.sub(r"\1", _CELL_BEGIN.sub(r"\1", decoded(content)))
    if "<fig" in page:
        page = _CAPTION.sub(r"<\1p", _FIGURE.sub(r"<\1div", page))
    tree = HTMLTree.parse(with_powers(page))
    title = " ".join((tree.title or "").split()) or None
    if tree.body is None:
        raise Unusable("no_text", "the page has no body")
    names = names_in(page)
    drop_site_parts(tree, page, names)
    _write_out(tree, page)
    text = as_text(tree, skipped=skipped(page, names)) or as_text(tree)
    if not text:
        raise Unusable("empty_text", "the page has no text")
    return text, title


def as_text(tree: Any, skipped: list[str] | None = None) -> str:
    """Return a page, or what is left of it, as text with the marks of Markdown."""
    plain = extract_plain_text(
        tree,
        preserve_formatting="minimal_html",
        main_content=False,
        alt_texts=False,
        skip_elements=skipped or [],
    )
    return html.unescape(marked(plain.replace(_SOFT_HYPHEN, ""))).strip()


def _write_out(tree: Any, page: str) -> None:
    """Put into the text what tags say in other ways: formulas, the numbers of lists, lines within a cell."""
    body = tree.body
    rare = set(_RARE.findall(page))
    if "aria-hidden" in page:
        # What is shown and not read aloud stands there twice, or is an ornament.
        for node in body.query_selector_all('[aria-hidden="true"]'):
            if not node.query_selector("h1, main, article, p"):
                node.decompose()
    if "math" in rare:
        for node in body.query_selector_all("math"):
            if tex := node.query_selector('annotation[encoding="application/x-tex"]'):
                node.text = _DISPLAYED.sub(r"\1", tex.text.strip())
            elif node.query_selector("msup, msub, mfrac, msubsup, munderover"):
                node.text = html.unescape(in_a_line(node))
    if any(tag.startswith("script") for tag in rare):
        for node in body.query_selector_all('script[type^="math/tex"]'):
            formula = tree.create_element("span")
            formula.text = node.text
            node.replace_with(formula)
    if any(tag.startswith(("/a", "h")) for tag in rare):
        # Signs that link to the heading itself.
        for link in body.query_selector_all(", ".join(f"{heading} a" for heading in HEADINGS)):
            if not any(map(str.isalnum, link.text)):
                link.decompose()
    if any(tag.startswith("ol") for tag in rare):
        for item in body.query_selector_all("ol[start] > li:first-child"):
            number = item.parent.getattr("start") or ""
            if number.isdecimal() and len(number) < 10:
                item.prepend(tree.create_text_node(numbered(number)))
    if "td" in rare or "TD" in rare:
        _put_cells_on_a_line(tree)


def _put_cells_on_a_line(tree: Any) -> None:
    """Put what a short cell has on several lines on one, so that a row stays one."""
    blocks = tree.body.query_selector_all("td br, th br, td p, td li")
    for block in blocks[:_MOST_BLOCKS]:
        cell = block.parent
        while cell is not None and cell.tag not in ("td", "th", "body"):
            cell = cell.parent
        # None where its cell has been put on a line.
        if cell is None or cell.tag == "body" or len(cell.text) >= _CELL_CHARACTERS:
            continue
        if not cell.query_selector("table, pre, h1, h2, h3"):
            for part in cell.query_selector_all("br, p, li, div"):
                mark = "; " if part.tag == "li" and part.next_element_sibling else " "
                part.after(tree.create_text_node(mark))
            cell.text = " ".join(cell.text.split())
