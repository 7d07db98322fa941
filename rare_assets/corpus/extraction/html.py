"""HTML to Markdown-like text: the main content, with headings, lists, tables and code."""

from __future__ import annotations

import codecs
import html
import re
from typing import Any

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from rare_assets.corpus.extraction import Unusable

# What is about the site and not about its subject.
_SKIPPED = [
    *("nav", "footer", "aside", "dialog", "form", "button", "noscript", "template", "iframe"),
    *('[role="navigation"]', '[role="banner"]', '[role="contentinfo"]', '[role="search"]'),
    *(
        "div.nav",
        "ul.nav",
        "#nav",
        ".navigation",
        "#navigation",
        "div.footer",
        "#footer",
        ".noprint",
    ),
    *('[role="dialog"]', ".cc-window", "#breadcrumbs", ".page-metadata", ".mw-jump-link"),
    *('[aria-modal="true"]', ".headerlink", ".sidebar", "#sidebar", ".breadcrumb", ".breadcrumbs"),
    *(".navbar", ".menu", "#menu", ".site-header", ".site-footer", ".sphinxsidebar", "div.related"),
    *(".mw-editsection", "#mw-navigation", "#toc", ".toc", ".navbox", ".catlinks", ".printfooter"),
]
_NOTICES = ("cookie", "consent", "gdpr", "newsletter-signup")
# A notice is short; what is long and speaks of cookies is content.
_NOTICE_CHARACTERS = 2_000
_MAIN = ('main, [role="main"]', "article")
# Of the whole page's text, what the main part has at least.
_MAIN_SHARE = 0.3
# A main part that has so many characters is content, whatever stands beside it.
_MUCH_TEXT = 2_000
_CHARSET = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w:.-]+)""", re.IGNORECASE)
_XML = re.compile(rb"""\A\s*<\?xml[^>]+encoding\s*=\s*["']([\w:.-]+)""", re.IGNORECASE)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
)
_WIDE_BOMS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Where a page declares itself, as browsers look for it.
_HEAD_BYTES = 4096
# Browsers take these names for Windows' own code page.
_LATIN = {"iso8859-1", "ascii", "latin_1"}

_CELL_BEGIN = re.compile(r"(<t[dh]\b[^>]*>)\s*<p\b[^>]*>", re.IGNORECASE)
_CELL_END = re.compile(r"</p>\s*(</t[dh]>)", re.IGNORECASE)
# Paragraphs are parted by blank lines already.
_MARKS = {
    **{f"h{level}": f"\n{'#' * level} " for level in range(1, 7)},
    **{f"/h{level}": "\n" for level in range(1, 7)},
    **{"p": "", "/p": "", "br": "\n", "/li": "", "pre": "\n```\n", "/pre": "\n```"},
}
_MANY_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")


def extract(content: bytes) -> tuple[str, str | None]:
    """Return the main text of a page, with the marks of Markdown, and its title (None without one).

    Raises:
        Unusable: it is not in the encoding that it declares, or has no text.
    """
    # A cell's one paragraph would stand on a line of its own.
    page = _CELL_END.sub(r"\1", _CELL_BEGIN.sub(r"\1", decoded(content)))
    tree = HTMLTree.parse(page)
    title = " ".join((tree.title or "").split()) or None
    if tree.body is None:
        raise Unusable("no_text", "the page has no body")
    _drop_notices(tree)
    _keep_main(tree)
    text = as_text(tree, skipped=_SKIPPED) or as_text(tree)
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
    return _MANY_LINES.sub("\n\n", html.unescape(_marked(plain))).strip()


def decoded(content: bytes) -> str:
    """Return a page's characters by its byte order mark, else its declaration, else as UTF-8.

    Raises:
        Unusable: `not_utf8`, if it is not in that encoding, or declares an unknown one.
    """
    for bom, encoding in (*_BOMS, *_WIDE_BOMS):
        if content.startswith(bom):
            return _decoded(content, encoding).lstrip("\ufeff")
    head = content[:_HEAD_BYTES]
    declared = _CHARSET.search(head) or _XML.search(head)
    encoding = declared[1].decode() if declared else "utf-8"
    try:
        name = codecs.lookup(encoding).name
    except LookupError as error:
        raise Unusable("not_utf8", f"it declares an unknown charset: {encoding}") from error
    if name.startswith(("utf-16", "utf-32")):  # it could be read thus far, so it is not
        name = "utf-8"
    return _decoded(content, "cp1252" if name in _LATIN else name)


def _decoded(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unusable(
            "not_utf8",
            f"byte {error.start} is not {encoding}; declare the page's charset in a meta tag",
        ) from error


def _drop_notices(tree: Any) -> None:
    """Take out cookie banners and their like, and page heads without the page's own heading."""
    found = ", ".join(
        f'[{name}*="{word}" i]' for word in _NOTICES for name in ("class", "id", "aria-label")
    )
    for node in tree.body.query_selector_all(found):
        if len(node.text) < _NOTICE_CHARACTERS and not node.query_selector("h1, main, article"):
            node.decompose()
    for node in tree.body.query_selector_all("header"):
        if not node.query_selector("h1"):
            node.decompose()


def _keep_main(tree: Any) -> None:
    """Take out what stands beside the one main part, where the page says which that is."""
    for selector in _MAIN:
        found = tree.body.query_selector_all(selector)
        if len(found) == 1 and _is_most(found[0], tree.body):
            node = found[0]
            while node != tree.body:
                parent = node.parent
                for sibling in list(parent.child_nodes):
                    if sibling != node:
                        sibling.decompose()
                node = parent
            return


def _is_most(node: Any, body: Any) -> bool:
    characters = len(node.text)
    return characters >= _MUCH_TEXT or characters >= _MAIN_SHARE * len(body.text)


def _marked(minimal: str) -> str:
    """Put the marks of Markdown for tags; any other `<` of the text is written `&lt;`."""
    lists: list[int | None] = []
    first, *tagged = minimal.split("<")
    parts = [first]
    for each in tagged:
        tag, _, text = each.partition(">")
        mark = _MARKS.get(tag)
        parts += (_list_mark(tag, lists) if mark is None else mark, text)
    return "".join(parts).replace("\t\t", " | ")


def _list_mark(tag: str, lists: list[int | None]) -> str:
    """Return the mark of a list's tag; `lists` has the number of each open list's last item, None where it has dots."""
    if tag == "li":
        if not lists or lists[-1] is None:
            return "- "
        lists[-1] += 1
        return f"{lists[-1]}. "
    if tag in ("ul", "ol"):
        lists.append(None if tag == "ul" else 0)
    elif tag in ("/ul", "/ol"):
        if lists:
            lists.pop()
    else:
        return f"<{tag}>"
    return "" if lists else "\n"
