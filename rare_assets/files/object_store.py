"""Object stores that are away for a while: half a minute is waited for, as when one is started anew."""

from __future__ import annotations

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


def _is_away(error: Exception) -> bool:
    from botocore.exceptions import (  # type: ignore[import-untyped]
        ClientError,
        EndpointConnectionError,
    )

    if isinstance(error, ClientError):
        answer = error.response.get("ResponseMetadata") or {}
        return answer.get("HTTPStatusCode") in _SERVER_ERRORS
    return isinstance(error, EndpointConnectionError)
