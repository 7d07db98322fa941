"""The pools in which steps take a place."""

from rare_assets.settings import Settings


def _index_pool() -> str:
    """The pool of the steps that work on the index: that of Elasticsearch only where there is one, so
    that a limit which spares its server holds up no embedded index.

    Settings that can't be used fail the run, with their own error, and never the loading.
    """
    try:
        return "elasticsearch" if Settings().elasticsearch_url else "corpus_index"
    except ValueError:
        return "corpus_index"


# Of the steps that ask the teacher, and of those that work on the index.
TEACHER_POOL, INDEX_POOL = POOLS = ("teacher", _index_pool())
