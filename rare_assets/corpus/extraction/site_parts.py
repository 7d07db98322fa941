"""Take out of a page what is about the site and not about its subject: menus, notices, footers."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from rare_assets.corpus.extraction.kept_parts import (
    FOOTERS,
    KEEPABLE,
    KEPT,
    LINK_CHARACTERS,
    MANY_LINKS,
    MENUS,
    MOST_LOOKS,
    is_head,
    is_menu,
    keep_parts,
    words_of,
)

_NOTICES = ("cookie", "consent", "gdpr", "newsletter-signup")
# A notice is short; what is long and speaks of cookies is content.
_NOTICE_CHARACTERS = 2_000
_MAIN = ('main, [role="main"]', "article")
# Of the whole page's text, what the main part has at least.
_MAIN_SHARE = 0.3
# A main part that has so many characters is content, whatever stands beside it.
_MUCH_TEXT = 2_000

# What holds a page's subject is no part of the site, whatever it is called.
_SUBJECT = "h1, main, article, pre"
# As pages are written today; a pattern that begins with its letters is found fast.
_NAMED = [
    re.compile(rf"""{name}\s*=\s*["']?([^"'<>]+)""") for name in ("class", "id", "CLASS", "ID")
]
_SAFE = re.compile(r"-?[A-Za-z_][\w-]*", re.ASCII)
# Left out wherever they are, by tag, role, class or id.
_SKIPPED = (
    *("nav", "footer", "aside", "dialog", "form", "button", "noscript", "template", "iframe"),
    *(".noprint", ".cc-window", "#breadcrumbs", ".page-metadata", ".mw-jump-link", ".headerlink"),
    *("div.nav", "ul.nav", "#nav", ".navigation", "#navigation", "div.footer", "#footer"),
    *(".sidebar", "#sidebar", ".breadcrumb", ".breadcrumbs", "div.related", ".sphinxsidebar"),
    *(".navbar", ".menu", "#menu", ".site-header", ".site-footer"),
    *(
        ".mw-editsection",
        ".mw-cite-backlink",
        "#mw-navigation",
        "#toc",
        ".toc",
        ".navbox",
        ".catlinks",
        ".printfooter",
    ),
)
_SKIPPED_ROLES = (
    *('[role="navigation"]', '[role="banner"]', '[role="contentinfo"]', '[role="search"]'),
    *('[role="dialog"]', '[aria-modal="true"]'),
)
_LOOKS = 4
_FOOTER_CHARACTERS = 600
# A row of links without a name: so many, each short, and nothing else but what stands between them.
_FEWEST_LINKS = 3
_ROW_SHARE = 0.7
_LEGAL = re.compile(r"\s*(?:©|\(c\)|copyright\b)", re.IGNORECASE)
_LEGAL_CHARACTERS = 300

_ASKED = re.compile(
    r"accept|agree|allow|got it|\bok\b|okay|reject|decline|dismiss|understand|preferences|settings|akzeptier"
    r"|zustimm|einverstanden|verstanden|ablehn|accepter|refuser|aceptar|rechazar|accett|rifiut|aceitar"
    r"|accepteren|同意|接受",
    re.IGNORECASE,
)
_USED = re.compile(
    r"\b(?:we|sites?|websites?|wir|seite|webseite|website|site|nous|utilizamos|usamos)\b[^.]{0,60}\bcookies\b"
    r".*(?:experience|continu|brows|privacy|policy|consent|tracking|analy|datenschutz|erlebnis|expérience)",
    re.IGNORECASE | re.DOTALL,
)
_BANNER_CHARACTERS = 1_000
_MOST_CHILDREN = 100
_DEPTH = 12


def names_in(page: str) -> set[str]:
    """Return the classes and ids of a page."""
    values = {value for pattern in _NAMED for value in pattern.findall(page)}
    return {name for value in values for name in value.split()}


def skipped(page: str, names: set[str]) -> list[str]:
    """Return selectors of what is left out wherever it is, of those that a page can have: each takes its time."""
    found = [each for each in _SKIPPED if not (name := _name_in(each)) or name in names]
    return [
        *(f"{each}:not([{KEPT}])" if each in KEEPABLE else each for each in found),
        *(_SKIPPED_ROLES if "role=" in page or "aria-modal" in page else ()),
    ]


@cache
def _name_in(selector: str) -> str:
    return selector.replace("#", ".").partition(".")[2]


def drop_site_parts(tree: Any, page: str, names: set[str]) -> None:
    """Take out of a page what is about the site.

    Args:
        tree: the page, which has a body.
        page: what it was parsed from.
        names: its classes and ids.
    """
    keep_parts(tree.body, page)
    _drop_notices(tree, page, names)
    if "ookie" in page:
        _drop_banners(tree.body, _DEPTH)
    _keep_main(tree)
    _drop_named(tree, page, names)
    _drop_rows_of_links(tree)


def _drop_notices(tree: Any, page: str, names: set[str]) -> None:
    """Take out cookie banners and their like, and page heads without the page's own heading."""
    found = [
        f'[class~="{name}"], [id="{name}"]'
        for name in sorted(names)
        if any(word in name.lower() for word in _NOTICES) and "\\" not in name
    ]
    if any(word in page for word in ("ookie", "onsent")):
        found += [f'[aria-label*="{word}" i]' for word in _NOTICES]
    for node in tree.body.query_selector_all(", ".join(found)) if found else ():
        if len(node.text) < _NOTICE_CHARACTERS and not node.query_selector("h1, main, article"):
            node.decompose()
    # A page with more of them has them in its sections.
    for node in tree.body.query_selector_all("header")[:MOST_LOOKS]:
        if not is_head(node):
            node.decompose()


def _drop_banners(node: Any, depth: int) -> None:
    """Take out short parts that ask to accept cookies, whatever they are called."""
    # A banner is among the first or the last.
    children = _some(node.first_element_child, "next_element_sibling")
    if len(children) == _MOST_CHILDREN:
        children += _some(node.last_element_child, "previous_element_sibling")
    for child in children:
        if child.parent is None:
            continue
        text = child.text
        if "ookie" not in text or child.tag in ("main", "article", "pre", "p", "table"):
            continue
        if len(text) < _BANNER_CHARACTERS and not child.query_selector(_SUBJECT):
            asks = child.query_selector_all('button, a, input, [role="button"]')
            if _USED.search(text) or any(
                _ASKED.search(each.text or each.getattr("value") or "") for each in asks
            ):
                child.decompose()
        elif depth:
            _drop_banners(child, depth - 1)


def _some(node: Any, following: str) -> list[Any]:
    """Return a node and at most a hundred of those that follow it."""
    found: list[Any] = []
    while node is not None and len(found) < _MOST_CHILDREN:
        found.append(node)
        node = getattr(node, following)
    return found


def _keep_main(tree: Any) -> None:
    """Take out what stands beside the one main part, where the page says which that is."""
    for selector in _MAIN:
        found = tree.body.query_selector_all(selector)
        if len(found) == 1 and _is_most(found[0], tree.body):
            node = found[0]
            heading = None if node.query_selector("h1") else tree.body.query_selector("h1")
            if heading and not heading.closest("header, nav, a"):
                node.prepend(heading)
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


def _drop_named(tree: Any, page: str, names: set[str]) -> None:
    """Take out menus and footers by the words of their classes and ids, where they are no more than that."""
    left = _LOOKS * len(page)
    for words, is_one in ((MENUS, is_menu), (FOOTERS, _is_footer)):
        wanted = [name for name in names if _SAFE.fullmatch(name) and words & words_of(name)]
        if not wanted:
            continue
        selector = ", ".join(f".{name}, #{name}" for name in sorted(wanted))
        for node in tree.body.query_selector_all(selector)[:MOST_LOOKS]:
            if node.query_selector(_SUBJECT):
                continue
            left -= 10 * len(node.text)
            if left < 0:
                return
            if is_one(node):
                node.decompose()


def _is_footer(node: Any) -> bool:
    return len(node.text) < _FOOTER_CHARACTERS


def _drop_rows_of_links(tree: Any) -> None:
    """Take out rows of links before the page's heading, and beside the part that it stands in."""
    node = tree.body.query_selector("h1")
    if node is None:
        return
    own, behind = len(node.text), False
    while node != tree.body:
        parent = node.parent
        # Behind the heading itself links are the page's subject.
        behind = behind or len(node.text) > 2 * own + 100
        for sibling in _beside(node, behind=behind):
            if _is_row_of_links(sibling) or (behind and _is_legal(sibling)):
                sibling.decompose()
        node = parent
    last = tree.body.last_element_child
    if last is not None and _is_legal(last):
        last.decompose()


def _is_legal(node: Any) -> bool:
    text = node.text
    return len(text) < _LEGAL_CHARACTERS and _LEGAL.match(text) is not None


def _beside(node: Any, *, behind: bool) -> list[Any]:
    """Return the elements before a node, and those behind it where they are wanted."""
    before = _some(node.previous_element_sibling, "previous_element_sibling")
    return before + (_some(node.next_element_sibling, "next_element_sibling") if behind else [])


def _is_row_of_links(node: Any) -> bool:
    links = node.query_selector_all("a")
    if len(links) < _FEWEST_LINKS:
        return False
    text = node.text.strip()
    if len(text) > len(links) * LINK_CHARACTERS:
        return False
    if len(links) > MANY_LINKS:
        return True
    letters = sum(map(str.isalnum, text))
    linked = sum(sum(map(str.isalnum, link.text)) for link in links)
    return linked >= _ROW_SHARE * letters
