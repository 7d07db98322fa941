"""Settings that are paths or URLs, as people and logs may see them: never the text of the setting whole.

What is good is listed: scheme, host, port and path. Whatever else a URL holds may be a secret. Where a
text can be read in two ways, since a password has a character that it should have encoded, it is not
shown at all beyond its scheme.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "…"
_REMOVED = "[hidden]"
_AUTHORITY = re.compile(r"[^/?#\\]*")
# Where a file name or pattern ends and what is appended to a URL begins.
_APPENDED = re.compile(r"[?&#;][A-Za-z_][\w.~-]*=")
# Several nodes; a comma inside of a password has no scheme behind it.
_NEXT = re.compile(r",(?=\s*[A-Za-z][A-Za-z0-9+.-]*://)")
# Shorter pieces of a password would be found in words.
_PIECE = 3


def shown(setting: object) -> str:
    """Return a path or URL without what may be a secret: user, password, query, fragment.

    >>> shown("https://user:password@host:9200/index?token=1")
    'https://host:9200/index'
    """
    text = str(setting)
    scheme, found, rest = text.rpartition("://") if text.count("://") > 1 else text.partition("://")
    if not found:
        scheme, rest = "", text
    rest, is_clear = _without_user(rest, is_url=bool(found))
    if not is_clear:
        return f"{_plain(scheme)}{found}{HIDDEN}"
    ends = re.search(r"[?#]", rest) if found else _APPENDED.search(rest)
    return f"{_plain(scheme)}{found}{rest[: ends.start()] if ends else rest}"


def shown_all(setting: str) -> str:
    """Return several URLs with commas between them, each as `shown`.

    >>> shown_all("http://user:password@a:9200,http://b:9200")
    'http://a:9200,http://b:9200'
    """
    return ",".join(shown(url) for url in urls_of(setting))


def urls_of(setting: str) -> list[str]:
    """Return the URLs of a setting that may hold several, with commas between them."""
    return [url for each in _NEXT.split(setting) if (url := each.strip().strip(","))]


def is_clear(url: str) -> bool:
    """Return True if a URL can be read in one way only: no password with a character that ends
    it."""
    return HIDDEN not in shown(url) or HIDDEN in url


def without_secrets(message: object, *settings: str | None) -> str:
    """Return a message in which nothing of the settings stands but what `shown` shows of them.

    Libraries repeat what they were given, whole or in part, encoded or decoded.

    Args:
        message: of an error or a log.
        settings: texts that may hold a secret, as a URL with a password.
    """
    text = str(message)
    for setting in filter(None, settings):
        for url in (setting, *urls_of(setting)):
            text = text.replace(url, shown(url))
        secrets = {form for secret in _secrets(setting) for form in _forms(secret)}
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, _REMOVED)
    return text


def _without_user(rest: str, *, is_url: bool) -> tuple[str, bool]:
    """Return what follows user and password, and whether that is sure."""
    authority = _AUTHORITY.match(rest)
    assert authority is not None
    strict = rest
    if "@" in authority[0] and (is_url or ":" in authority[0]):
        strict = rest[authority[0].rindex("@") + 1 :]
    before, at, sloppy = rest.rpartition("@")
    if not at or not (":" in before or (is_url and "@" in authority[0])):
        sloppy = rest
    return strict, strict == sloppy


def _plain(scheme: str) -> str:
    """Return a scheme, or a chain of them, as fsspec takes it; without a whole URL before it."""
    return scheme if re.fullmatch(r"[A-Za-z0-9+.:-]*", scheme) else HIDDEN


def _secrets(setting: str) -> set[str]:
    """Return the parts of a setting that `shown` leaves out, as long as they are worth hiding."""
    found: set[str] = set()
    for url in {setting, *urls_of(setting)}:
        if shown(url) == url:
            continue
        found.add(url)
        rest = url.partition("://")[2] or url
        before, at, _ = rest.rpartition("@")
        if at:
            found.add(before)
            user, colon, password = before.partition(":")
            secret = password if colon else user
            found |= {secret, *_pieces(secret)}
        appended = re.search(r"[?#].*", rest, re.DOTALL)
        if appended:
            found.add(appended[0])
            for pair in re.split(r"[?#&;]", appended[0]):
                name, _, value = pair.partition("=")
                found |= {value or name, *_pieces(value or name)}
    return {secret for secret in found if len(secret) >= _PIECE}


def _pieces(secret: str) -> list[str]:
    """Return the words of a secret, of which a library may take one for a port, a host or a
    path."""
    words = re.split(r"[^A-Za-z0-9]+", secret) + re.split(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9]+", secret)
    return [word for word in words if len(word) > _PIECE]


def _forms(secret: str) -> set[str]:
    decoded = unquote(secret)
    return {secret, decoded, quote(decoded, safe=""), quote(decoded), quote(secret, safe="")}


def shown_fields(
    fields: Iterable[tuple[str | None, Any]],
) -> Iterator[tuple[str | None, Any]]:
    """Return fields for a repr, each text as `shown_all`: a path or name stays as it is."""
    return ((name, shown_all(v) if isinstance(v, str) and v else v) for name, v in fields)
