"""Object stores that are away for a while, or whose certificates can't be told.

Half a minute is waited for one that is away, as when it is started anew.
"""

from __future__ import annotations

import os
import sys

# What Polars reads with: it gives up after 20 seconds by itself, s3fs after some 40 (see `wait_while_away`).
POLARS_OPTIONS = {"max_retries": 30, "retry_timeout_ms": 60_000, "retry_max_backoff_ms": 4_000}
_SERVER_ERRORS = range(500, 600)
_patient = False


def wait_while_away() -> None:
    """Have s3fs, where it is used, repeat requests that met no server or an error of the server's own.

    By itself it does so for other errors alone; botocore, below it, gives up after some 8 seconds. Other stores'
    packages wait by themselves.
    """
    global _patient
    core = sys.modules.get("s3fs.core")
    if core is None or _patient:
        return
    _patient = True
    # Somebody else's, in the same process, stays.
    others = core.CUSTOM_ERROR_HANDLER
    core.set_custom_error_handler(lambda error: _is_away(error) or others(error))


def unreadable_authorities(url: str) -> str:
    """Name the file of certificate authorities that S3 is to be reached with, in brackets, if it can't be read;
    nothing for a path of this machine.

    Botocore says what is wrong with it, and neither which file nor which variable names it.
    """
    import ssl

    named = os.environ.get("AWS_CA_BUNDLE")
    if not named or "://" not in url:
        return ""
    try:
        ssl.create_default_context(cafile=named)
    except OSError as error:
        return f" (AWS_CA_BUNDLE is {named}: {error.strerror or error})"
    return ""


def _is_away(error: Exception) -> bool:
    from botocore.exceptions import (  # type: ignore[import-untyped]
        ClientError,
        EndpointConnectionError,
    )

    if isinstance(error, ClientError):
        answer = error.response.get("ResponseMetadata") or {}
        return answer.get("HTTPStatusCode") in _SERVER_ERRORS
    return isinstance(error, EndpointConnectionError)
