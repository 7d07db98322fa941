"""Read a URL of this machine's own files as the path that it is."""

from __future__ import annotations


def as_path(place: str) -> str:
    """Return the path in a `file://` URL; any other path or URL as it is.

    Example:
        >>> as_path("file:///data/rare"), as_path("s3://bucket/rare"), as_path("rare")
        ('/data/rare', 's3://bucket/rare', 'rare')
    """
    if not place.startswith(("file://", "local://")):
        return place
    from fsspec.core import strip_protocol

    path: str = strip_protocol(place)
    return path
