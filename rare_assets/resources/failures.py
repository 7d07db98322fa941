"""Failures of a run that a person can mend: a sentence on the page instead of a stack."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from rare_assets.files.stored_bytes import StorageDamaged, StorageError
from rare_assets.retriever import ElasticsearchError, IndexConflict, IndexMissing, NoAnalyzer
from rare_assets.storage.tables import TableMissing

# What another try of the same step can't mend.
_LASTING = (IndexConflict, IndexMissing, NoAnalyzer, StorageDamaged, TableMissing)


@contextmanager
def failures_told() -> Iterator[None]:
    """Turn errors of storage and index into a dg.Failure that says what their message says.

    Assets use it as a `with` statement: of a decorated function, Dagster would link the decorator's file.
    """
    try:
        yield
    except _LASTING as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    except (StorageError, ElasticsearchError) as error:
        raise dg.Failure(str(error)) from None


def why_step_failed(failure: Any) -> str:
    """Return what a step's failure (`event.step_failure_data`) says to a person, or "".

    Its `dg.Failure`'s own words, or the message of the exception that caused all others.
    """
    if failure.user_failure_data and failure.user_failure_data.description:
        return str(failure.user_failure_data.description)
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    return "" if error is None else str(error.message).strip()
