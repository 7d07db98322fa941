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
_TAG = re.compile(r"<(/?)(p|h[1-6]|ul|ol|li|pre|br|blockquote|table|tr|td|th|div)\b[^>]*>")
_MANY_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")


def extract(content: bytes) -> tuple[str, str | None]:
    """Return the main text of a page and its title.

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
    """Return a page's characters by its byte order mark, else its declaration, else as UTF-8."""
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
    lists: list[int | None] = []

    def mark(found: re.Match[str]) -> str:
        closing, tag = found[1], found[2]
        if tag == "li":
            if closing or not lists:
                return "" if closing else "- "
            number = lists[-1]
            if number is None:
                return "- "
            lists[-1] = number + 1
            return f"{number + 1}. "
        if tag in ("ul", "ol"):
            if not closing:
                lists.append(None if tag == "ul" else 0)
            elif lists:
                lists.pop()
            return "\n" if not lists else ""
        if tag == "pre":
            return "\n```" if closing else "\n```\n"
        if tag[0] == "h":
            return "\n" if closing else f"\n{'#' * int(tag[1])} "
        return "\n" if tag == "br" else ""

    return _TAG.sub(mark, minimal).replace("\t\t", " | ")
