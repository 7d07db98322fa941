"""Find in a page what is about its subject, though its tag or its name says that it is beside it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

# An attribute of what is about the subject.
KEPT = "data-about-the-subject"
# Selectors of what may hold the subject: a form around a whole page, a remark, the dishes of a restaurant.
_WRAPPERS = (
    *(".sidebar", "#sidebar", ".navigation", "#navigation", "#nav", "div.nav", ".navbar"),
    "div.related",
)
_CARDS = (".menu", "#menu")
KEEPABLE = {"form", "aside", *_CARDS, *_WRAPPERS}
MENUS = {
    *("nav", "navbar", "navi", "navigation", "navmenu", "menu", "menubar", "topnav", "sidenav", "mainnav"),
    *("subnav", "topbar", "sidebar", "dropdown", "pagination", "pager", "related", "masthead", "toc", "contents"),
}  # fmt: skip
FOOTERS = {
    *("breadcrumb", "breadcrumbs", "ad", "ads", "advert", "advertisement", "sponsored"),
    *("footer", "colophon", "copyright", "share", "sharing", "social", "sharedaddy", "addtoany", "addthis"),
    *("onetrust", "usercentrics", "didomi", "osano", "truste", "iubenda", "klaro", "termly"),
}  # fmt: skip
# Around them nothing is about the subject, and within them a remark or a head may be.
_SCOPES = "main, article, section"
_BESIDE = MENUS | FOOTERS | {
    *("author", "authors", "bio", "newsletter", "subscribe", "signup", "promo", "promotion", "cta", "banner"),
    *("recommended", "recommendations", "popular", "trending", "latest", "recent", "widget", "widgets"),
    *("comments", "tags", "categories", "teaser", "teasers", "donate", "site"),
}  # fmt: skip
_NOTES = {
    "footnote",
    "footnotes",
    "endnotes",
    "warning",
    "caution",
    "danger",
    "note",
    "tip",
    "admonition",
}
_LEAD = re.compile(
    r"\s*(?:related(?! to|ly)|about the author|written by|read (?:more|next|also)|more from|you (?:may|might) also"
    r"|recommended (?:for|reading|articles)|(?:recent|latest|popular) (?:posts|news|articles|stories|comments)"
    r"|share (?:this|on)|follow us|subscribe|newsletter|advertisement|sponsored|table of contents|on this page)",
    re.IGNORECASE,
)
_FIELDS = 'input[type="email"], input[type="search"], input[type="password"]'
_ASKS = f"form, {_FIELDS}"
_HEADINGS = "h2, h3, h4, h5, h6"
_PROPER = 'h1, main, [role="main"], article'
_SHARE, _MUCH_TEXT = 0.3, 2_000
_CARD_SHARE = 0.3
# Each look takes its time, the longer the more parts a page has: no more of them are looked at.
MOST_LOOKS = 300
# Of a menu's text, what its links have at least.
LINK_SHARE = 0.6
MANY_LINKS = 300
LINK_CHARACTERS = 80
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def keep_parts(body: Any, page: str) -> None:
    """Give the parts of a page that are about its subject an attribute that says so."""
    left = 4 * len(page)
    whole = len(body.text), len(body.query_selector_all(_PROPER))
    wrappers = ", ".join(("form", *_CARDS, *_WRAPPERS))
    for selector, is_kept in (
        (wrappers, _holds_subject),
        ("aside", _is_remark),
    ):
        for node in body.query_selector_all(selector)[:MOST_LOOKS]:
            left -= len(node.text)
            if left < 0:
                return
            if is_kept(node, whole):
                node.setattr(KEPT, "")


def _holds_subject(node: Any, whole: tuple[int, int]) -> bool:
    """Say whether a form, or what is called a menu or the like, is the page's subject or around it."""
    n_characters, n_all = whole
    characters, n_own = len(node.text), len(node.query_selector_all(_PROPER))
    share = characters / max(n_characters, 1)
    is_form = node.tag == "form"
    if not is_form and is_menu(node):
        return False
    if n_own and n_own == n_all:
        return share >= _SHARE or characters >= _MUCH_TEXT
    if is_form:
        if share < 0.5 or (n_all > n_own and characters < _MUCH_TEXT):
            return False
        return characters >= _MUCH_TEXT or _is_written(node)
    return _is_card(node) or (share >= 0.5 and characters >= _MUCH_TEXT and not n_all)


def _is_written(node: Any) -> bool:
    """Say whether a form has text of its own, and asks for no address, search or password."""
    return node.query_selector("p, li, table, h2, h3") and not node.query_selector(_FIELDS)


def _is_card(node: Any) -> bool:
    """Say whether what is called a menu is one of dishes: with headings, and few links."""
    named = {node.id or "", *(node.class_name or "").split()}
    if "menu" not in named or node.tag in ("ul", "ol", "nav", "header"):
        return False
    if not node.query_selector(f"{_HEADINGS}, dl, table") or not node.query_selector(
        "p, li, td, dd"
    ):
        return False
    return share_of_links(node, len(node.text.strip())) < _CARD_SHARE


def is_head(node: Any) -> bool:
    """Say whether a page's head, or one within its main part, is about the subject, and no menu."""
    if node.query_selector("h1"):
        return True
    if not node.closest(_SCOPES) or _words_of_node(node) & _BESIDE or node.query_selector(_ASKS):
        return False
    text = node.text.strip()
    if not node.query_selector(_HEADINGS):
        return bool(text) and not is_menu(node)
    # A heading may well be a link.
    n_linked = sum(len(link.text) for link in node.query_selector_all("li a, nav a"))
    return n_linked < LINK_SHARE * len(text)


def _is_remark(node: Any, _: tuple[int, int]) -> bool:
    """Say whether an aside is a remark or a note on the subject, and not about the site."""
    words = _words_of_node(node)
    if words & _NOTES:
        return not words & FOOTERS
    part = node.closest(_SCOPES)
    if not part or words & _BESIDE or node.query_selector(_ASKS):
        return False
    if _LEAD.match(node.text) or is_menu(node):
        return False
    # Beside the article stands what is not about it.
    return bool(part.tag != "main" or not part.query_selector("article"))


def _words_of_node(node: Any) -> frozenset[str]:
    return words_of(f"{node.id or ''} {node.class_name or ''}")


@lru_cache(4096)
def words_of(name: str) -> frozenset[str]:
    """Return the words of a class or an id, as in `main-nav` or `siteFooter`."""
    return frozenset(word.lower() for word in _WORD.findall(name))


def is_menu(node: Any) -> bool:
    """Say whether a part is hardly more than links."""
    return share_of_links(node, len(node.text.strip())) >= LINK_SHARE


def share_of_links(node: Any, characters: int) -> float:
    """Return which share of a part's characters its links have."""
    found = node.query_selector_all("a")
    if len(found) > MANY_LINKS:  # each look takes its time
        return float(characters < LINK_CHARACTERS * len(found))
    return sum(len(link.text) for link in found) / max(characters, 1)
