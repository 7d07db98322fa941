"""The pools in which steps take a place."""

import dagster as dg

from rare_assets.settings import Settings


def _index_pool() -> str:
    """Return the pool of the steps that work on the index: that of Elasticsearch only where there
    is one, so that a limit which spares its server holds up no embedded index.

    Settings that can't be used fail the run, with their own error, and never the loading.
    """
    try:
        return "elasticsearch" if Settings().elasticsearch_url else "corpus_index"
    except ValueError:
        return "corpus_index"


# Of the steps that ask the teacher, and of those that work on the index; a corpus with a name has its own.
POOLS = {"teacher": "teacher", "index": _index_pool()}


def free_pool_slots(instance: dg.DagsterInstance) -> None:
    """Give back the places in pools that runs which have ended have left taken.

    The daemon does so, but without one the steps that need a place would wait for it forever.
    """
    storage = instance.event_log_storage
    for run_id in storage.get_concurrency_run_ids():
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            storage.free_concurrency_slots_for_run(run_id)
