"""What all processes that make runs import, once for them all in the process that they are forked from.

Nothing in here starts a thread, or opens a file that stays open or a database: a fork would have it without
its thread, or twice. Polars starts threads as it is imported: each process imports it, and what uses it, itself.
"""

import os

from rare_assets.resources.processes import imports_uncollected

# NumPy's library for matrices starts a thread for each further core as it is imported, and each looks for work in
# vain for a tenth of a second. What tells languages multiplies nothing that would need them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

with imports_uncollected():
    import fsspec  # noqa: F401
    import openai  # noqa: F401
    import regex  # noqa: F401

    # Dataframely imports it, for what nobody asks here.
    import sqlalchemy.dialects.mssql  # noqa: F401
    import upath.implementations.local  # noqa: F401

    # Without Polars, and milliseconds to import.
    import rare_assets.resources.dataset
    import rare_assets.resources.partitions  # noqa: F401
    from rare_assets.resources.dagster_internals import import_sqlite_storage, read_migrations
    from rare_assets.teacher import import_client
    from rare_assets.text.language import load_identifier

    import_client()
    import_sqlite_storage()
    read_migrations()
    load_identifier()
