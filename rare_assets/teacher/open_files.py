"""Fit the requests in flight among the files that this process may have open: each has a connection."""

from __future__ import annotations

import sys

# To be had for each connection: those of other teachers, and what else a run has open.
_FILES_EACH = 4
_FILES_BESIDE = 256


def connections_within(wanted: int) -> int:
    """Return how many of so many connections fit, and raise this process' own limit as far as it takes and may be.

    An answer that comes when no file can be opened any more is paid for and can't be stored.

    Args:
        wanted: connections, at least 1.
    """
    if sys.platform == "win32":
        return wanted
    import resource

    needed = _FILES_EACH * wanted + _FILES_BESIDE
    limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return wanted
    raised = needed if highest == resource.RLIM_INFINITY else min(needed, highest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, highest))
    except (ValueError, OSError):  # the system has a limit below that of the process
        raised = limit
    return wanted if raised >= needed else max(1, min(wanted, raised // _FILES_EACH))
