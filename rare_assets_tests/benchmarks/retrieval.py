"""Pace of both retrieval engines, beside the bare Elasticsearch client and a miner that sorts all.

    python -m rare_assets_tests.benchmarks.retrieval --passages 10000 100000 --english 50000

prints a table for each size, on a machine that does nothing else meanwhile; `--passages 10000
--english 0` is a short run. Passages and questions are made from a seed, so two runs do the same
work. Without `--elasticsearch` a node is started as for the tests, and left out with a note where
that is not possible. Each sync runs in a process of its own, whose peak memory is the one reported.
What is compared:

- loading: `sync` beside `helpers.parallel_bulk` into an index of the same mapping and settings;
- mining: `bm25_hard_neg`, plain and with the defaults, beside `msearch` that fetches ids, text hashes
  and scores of as many hits a query as mining's first search does, with as many queries a request
  and requests in flight, as one would write it and once with stored fields switched off as mining
  has them; texts and deeper searches are mining's alone. A search by the best terms of a document
  stands beside `msearch` for as many terms, which are given there and looked up here. And beside a miner that weights the query
  by BM25, too, scores every document of the corpus and sorts them all, as DataFlow's does with gensim;
- a sync after 1 % of the passages changed, in shards of 1 % of the corpus and in one a tenth of it,
  the median of seven changes there and back beside the mean of a full load before and one after;
- the top 10 of both engines, on made-up passages and on English ones: what comes with Python and its
  installed packages (`corpora.english`), searched with sentences of it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from rich.console import Console
from rich.table import Table

from rare_assets.operators.bm25_hard_neg import bm25_hard_neg
from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever
from rare_assets.retriever.embedded.engine import EmbeddedRetriever
from rare_assets.retriever.english import analyzed, english_terms
from rare_assets.retriever.interface import BEST_TERMS, Bm25, Retriever
from rare_assets_tests.benchmarks.corpora import (
    Shards,
    english,
    passages,
    questions_about,
    sentences_of,
    with_changes,
)
from rare_assets_tests.support.elasticsearch_node import ElasticsearchNode, Unavailable

PLAIN: dict[str, Any] = {"relative_margin": 0, "range_min": 0}
HITS = 18  # what the retriever asks Elasticsearch for on mining's first, shallow search
THREADS, QUERIES_AT_ONCE, DOCUMENTS_AT_ONCE = 4, 100, 500  # ElasticsearchRetriever's own defaults
GOLDS_AT_ONCE = 1_000  # that mining asks for in one call
SHARE = 0.01
SEARCHED_BY_SORTING = 200
ROUNDS = 5
CHANGES = 7

GOLD_GOAL = 0.8
BULK_GOAL, MINING_GOAL, EMBEDDED_GOAL, CHANGE_GOAL, COMMON_GOAL = 0.8, 0.9, 1000, 0.05, 0.99
JUDGED_FROM = 100_000  # passages; with fewer, what a sync does once weighs too much


class Row(NamedTuple):
    """A figure and what it is held against; `met` is None where there is no goal."""

    what: str
    value: str
    ratio: str = ""
    met: bool | None = None


class Synced(NamedTuple):
    """A sync: seconds until readers had it, and until what it removed was gone from the server."""

    seconds: float
    settled_seconds: float
    peak_mb: float
    n_indexed: int


class SortingMiner:
    """BM25 by one matrix over the whole corpus: query weighted as a document is, every document
    scored, all of them sorted for every query."""

    def __init__(self, documents: pl.DataFrame, bm25: Bm25) -> None:
        import numpy as np

        terms = [english_terms(text) for text in documents["text"]]
        self._numbers: dict[str, int] = {}
        for of in terms:
            for term in of:
                self._numbers.setdefault(term, len(self._numbers))
        self._bm25, self._doc_ids = bm25, documents["doc_id"].to_list()
        bags = [np.unique([self._numbers[t] for t in of], return_counts=True) for of in terms]
        present = np.bincount(np.concatenate([bag[0] for bag in bags]).astype(int))
        self._idf = np.log1p((len(bags) - present + 0.5) / (present + 0.5))
        self._mean_length = np.mean([len(of) for of in terms])
        self._columns = np.concatenate([bag[0] for bag in bags]).astype(int)
        self._values = np.concatenate([self._weights(*bag) for bag in bags])
        self._starts = np.cumsum([0, *(len(bag[0]) for bag in bags[:-1])])

    def _weights(self, numbers: Any, counts: Any) -> Any:
        k1, b = self._bm25.k1, self._bm25.b
        norm = k1 * (1 - b + b * counts.sum() / self._mean_length)
        return self._idf[numbers.astype(int)] * counts / (counts + norm)

    def mine(self, query: str, gold: str, num_neg: int = 3) -> list[str]:
        """Ids of the best-ranked documents but the gold."""
        import numpy as np

        known = [self._numbers[term] for term in english_terms(query) if term in self._numbers]
        numbers, counts = np.unique(np.array(known, int), return_counts=True)
        weighted = np.zeros(len(self._numbers))
        weighted[numbers] = self._weights(numbers, counts)
        scores = np.add.reduceat(self._values * weighted[self._columns], self._starts)
        ranked = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        best = (self._doc_ids[row] for row in ranked)
        return [doc_id for doc_id, _ in zip((d for d in best if d != gold), range(num_neg))]  # noqa: B905


def embedded(folder: str) -> Retriever:
    return EmbeddedRetriever(folder)


def elasticsearch(url: str, index: str) -> Retriever:
    return ElasticsearchRetriever(url, index)


def sync_apart(engine: Callable[[], Retriever], shards: Shards) -> Synced:
    """Sync in a fresh process, so that its peak memory is the sync's own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send_sync, args=(engine, shards, theirs))
    process.start()
    theirs.close()
    try:
        synced: Synced = ours.recv()
    finally:
        process.join()
    return synced


def _send_sync(engine: Callable[[], Retriever], shards: Shards, pipe: Any) -> None:
    pipe.send(sync_here(engine, shards))


def sync_here(engine: Callable[[], Retriever], shards: Shards) -> Synced:
    """Sync in this process."""
    retriever = engine()
    started = time.perf_counter()
    report = retriever.sync(shards.contents, shards.read, Bm25(), lambda _: None)
    retriever.close()
    settled_seconds = time.perf_counter() - started
    return Synced(report.seconds, settled_seconds, peak_mb(), report.n_indexed)


def peak_mb() -> float:
    """Peak resident memory of this process."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        # Unlike getrusage's, it does not count what the parent had before the exec.
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextlib.contextmanager
def node(url: str | None) -> Iterator[str | None]:
    """URL of the named or else a started Elasticsearch, None if none can be started."""
    if url:
        yield url
        return
    try:
        started = ElasticsearchNode(java_options="-Xms1g -Xmx1g")
    except Unavailable as error:
        print(f"without Elasticsearch: {error}", file=sys.stderr)
        yield None
        return
    try:
        started.start()
        yield started.url
    finally:
        started.close()


def in_flight(work: Callable[[Any], Any], items: Iterable[Any]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(work, items):
            pass


class BareClient:
    """The same load and the same queries by the plain client, with nothing around them."""

    def __init__(self, url: str, index: str, like: str) -> None:
        from elasticsearch import Elasticsearch

        self._client = Elasticsearch(url.split(","), request_timeout=120)
        (made,) = self._client.indices.get(index=like).values()
        kept = ("analysis", "similarity", "number_of_shards", "number_of_replicas")
        settings = {k: v for k, v in made["settings"]["index"].items() if k in kept}
        mappings = {k: v for k, v in made["mappings"].items() if k != "_meta"}
        self._client.indices.create(
            index=index, settings=settings | {"refresh_interval": "-1"}, mappings=mappings
        )
        self._index = index

    def load(self, shards: Shards) -> None:
        from elasticsearch.helpers import parallel_bulk

        def actions() -> Iterator[dict[str, Any]]:
            for key, (content_hash, _) in shards.contents.items():
                extra = {"shard": key, "content_hash": content_hash, "version": content_hash}
                for row in shards.read(key).collect().iter_rows(named=True):
                    yield {"_index": self._index, "_id": row["doc_id"], "_source": row | extra}

        for done, item in parallel_bulk(
            self._client, actions(), thread_count=THREADS, chunk_size=DOCUMENTS_AT_ONCE
        ):
            assert done, item
        self._client.indices.refresh(index=self._index)

    def search(self, queries: Sequence[str | list[str]], **fields: Any) -> None:
        """Ids and text hashes of each query's best; `fields` say what else of a hit is read. A query is
        a text, or a list of terms."""

        def ask(batch: Sequence[str | list[str]]) -> None:
            searches: list[dict[str, Any]] = []
            for query in batch:
                searches += [
                    {},
                    {
                        "query": {"match": {"text": {"query": query}}}
                        if isinstance(query, str)
                        else {"bool": {"should": [{"term": {"text": term}} for term in query]}},
                        "size": HITS,
                        "docvalue_fields": ["doc_id", "text_hash"],
                        "track_total_hits": False,
                        **fields,
                    },
                ]
            answer = self._client.msearch(index=self._index, searches=searches)
            assert all("error" not in item for item in answer["responses"])

        in_flight(
            ask,
            [queries[i : i + QUERIES_AT_ONCE] for i in range(0, len(queries), QUERIES_AT_ONCE)],
        )


class Layout(NamedTuple):
    """A corpus cut into shards, as it is and after a change, and places for two indexes of it."""

    where: str
    engine: Callable[[], Retriever]
    another: Callable[[], Retriever]
    before: Shards
    after: Shards


def layouts(
    documents: pl.DataFrame, folder: Path, engine: Callable[[str], Callable[[], Retriever]]
) -> list[Layout]:
    """Two cuts; the change is a whole shard of the first, a tenth of a shard of the second."""
    changed = with_changes(documents, SHARE)
    made = []
    for n_shards, where in ((100, "a shard of that size"), (10, "a ten times larger shard")):
        rows = len(documents) // n_shards
        before = Shards.write(folder / f"{n_shards}", documents, rows)
        after = Shards.write(folder / f"{n_shards}-changed", changed, rows)
        engines = engine(f"{n_shards}"), engine(f"{n_shards}-again")
        made.append(Layout(where, *engines, before, after))
    return made


def load_rows(name: str, loads: Sequence[Synced]) -> Iterator[Row]:
    fastest = min(loads)
    yield Row(f"{name}: load", f"{fastest.n_indexed / fastest.seconds:,.0f} documents/s")
    yield Row(f"{name}: peak memory of the load", f"{fastest.peak_mb:,.0f} MB")


def change_rows(name: str, cuts: Sequence[Layout], loads: Sequence[Synced]) -> Iterator[Row]:
    """Sync each layout's changes there and back; the median beside the time of two full loads, before
    and after, since a machine's pace changes."""
    for layout, full in zip(cuts, loads, strict=True):
        turns = itertools.islice(itertools.cycle([layout.after, layout.before]), CHANGES)
        changes = [sync_apart(layout.engine, turn) for turn in turns]
        seconds = statistics.median(change.seconds for change in changes)
        settled = statistics.median(change.settled_seconds for change in changes)
        again = sync_apart(layout.another, layout.before)
        share = seconds / statistics.mean([full.seconds, again.seconds])
        yield Row(
            f"{name}: sync after 1 % changed, in {layout.where}",
            f"{seconds:.2f} s, all removed in {settled:.2f} s",
            f"{share:.1%} of the load",
            share < CHANGE_GOAL if full.n_indexed >= JUDGED_FROM else None,
        )


def best_terms(documents: pl.DataFrame, golds: pl.DataFrame) -> list[list[str]]:
    """The terms of each gold document that `search_like` searches for: how often a document has a term,
    times its idf."""
    terms = [english_terms(text) for text in documents["text"]]
    n = Counter(term for of in terms for term in set(of))

    def best(text: str) -> list[str]:
        counts = Counter(english_terms(text))
        weights = {
            term: round(count * math.log1p((len(terms) - n[term] + 0.5) / (n[term] + 0.5)), 6)
            for term, count in counts.items()
        }
        return sorted(weights, key=lambda term: (-weights[term], term))[:BEST_TERMS]

    return [best(text) for text in golds["query"]]


def golds_of(questions: pl.DataFrame, documents: pl.DataFrame) -> pl.DataFrame:
    """`question_id, query`: each question with its gold document's text."""
    texts = documents.select("doc_id", query="text")
    return questions.select("question_id", "doc_id").join(texts, on="doc_id", maintain_order="left")


def search_like_at_first(engine: Callable[[], Retriever], golds: pl.DataFrame) -> None:
    """Search by the golds' terms as a run does that has met none of them: in calls of as many as mining makes."""
    analyzed.cache_clear()
    with contextlib.closing(engine()) as retriever:
        for some in golds.iter_slices(GOLDS_AT_ONCE):
            retriever.search_like(some, depth=16)


def mining(retriever: Retriever, questions: pl.DataFrame) -> dict[str, Callable[[], Any]]:
    """A search alone and the whole operator."""
    asked = questions.select("question_id", query="question")
    return {
        "search, top 16": lambda: retriever.search(asked, depth=16),
        "mining, plain top 3": lambda: bm25_hard_neg(questions, retriever, **PLAIN),
        "mining, defaults": lambda: bm25_hard_neg(questions, retriever),
    }


def rates_in_turn(
    works: Mapping[str, Callable[[], Any]], n: int
) -> Iterator[tuple[str, float, float]]:
    """Best rate of each work of `n` queries, and the median over the rounds of its rate as a share
    of the first's in the same round, so that what else a machine does weighs on both."""
    rounds = [{what: n / timed(work) for what, work in works.items()} for _ in range(ROUNDS)]
    first = next(iter(works))
    for what in works:
        shares = (rates[what] / rates[first] for rates in rounds)
        yield what, max(rates[what] for rates in rounds), statistics.median(shares)


def in_common(one: Retriever, other: Retriever, questions: pl.DataFrame) -> float:
    """Share of the top 10 that two retrievers have in common."""
    asked = questions.select("question_id", query="question")
    hits = [retriever.search(asked, depth=10) for retriever in (one, other)]
    both = hits[0].join(hits[1], on=["question_id", "doc_id"], how="semi")
    return len(both) / max(map(len, hits))


def measure(n: int, n_questions: int, url: str | None) -> Iterator[Row]:
    """The figures of a corpus of that size."""
    documents = passages(n)
    questions = questions_about(documents, n_questions)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cuts = layouts(
            documents, folder / "embedded", lambda cut: partial(embedded, f"{folder}/{cut}")
        )
        loads = [sync_apart(layout.engine, layout.before) for layout in cuts]
        yield from load_rows("embedded", loads)
        own = cuts[0].engine()
        own.search(questions[:100].select("question_id", query="question"), depth=16)
        for what, work in mining(own, questions).items():
            rate = len(questions) / timed(work)
            met = rate >= EMBEDDED_GOAL if n == JUDGED_FROM else None
            yield Row(f"embedded: {what}", f"{rate:,.0f} queries/s", "", met)
        miner = SortingMiner(documents, Bm25())
        some = questions.head(SEARCHED_BY_SORTING).select("question", "doc_id").rows()
        rate = len(some) / timed(lambda: [miner.mine(*question) for question in some])
        yield Row("whole-corpus sort: mining, plain top 3", f"{rate:,.0f} queries/s")
        if url:
            index = f"rare-benchmark-{uuid.uuid4().hex[:8]}"
            stack.callback(delete, url, index)
            yield from measure_elasticsearch(documents, questions, folder, url, index, own)
        yield from change_rows("embedded", cuts, loads)


def measure_elasticsearch(
    documents: pl.DataFrame,
    questions: pl.DataFrame,
    folder: Path,
    url: str,
    index: str,
    own: Retriever,
) -> Iterator[Row]:
    """Elasticsearch's figures, in turn with the bare client's so that both meet a warm node."""
    cuts = layouts(
        documents,
        folder / "elasticsearch",
        lambda cut: partial(elasticsearch, url, f"{index}-{cut}"),
    )
    asked = questions["question"].to_list()
    warm = partial(elasticsearch, url, f"{index}-warm")
    for shards in (cuts[0].before, cuts[0].after):
        sync_apart(warm, shards)
    with contextlib.closing(warm()) as retriever:
        for work in mining(retriever, questions.head(2_000)).values():
            work()

    loads, bare_loads = [], []
    for number, layout in enumerate(cuts):
        loads.append(sync_apart(layout.engine, layout.before))
        bare = BareClient(url, f"{index}-bare-{number}", f"{index}-100")
        bare_loads.append(timed(partial(bare.load, layout.before)))
    yield from load_rows("Elasticsearch", loads)
    ratio = min(bare_loads) / min(loads).seconds
    yield Row(
        "bare client: parallel_bulk",
        f"{len(documents) / min(bare_loads):,.0f} documents/s",
        f"load is {ratio:.0%} of it",
        ratio >= BULK_GOAL,
    )
    with contextlib.closing(cuts[0].engine()) as served:
        works = {
            f"bare client: msearch, top {HITS}": lambda: bare.search(asked, _source=False),
            "bare client: the same, no stored field read": lambda: bare.search(
                asked, stored_fields="_none_"
            ),
            **{f"Elasticsearch: {what}": work for what, work in mining(served, questions).items()},
        }
        golds = golds_of(questions, documents)
        terms = best_terms(documents, golds)
        by_gold: dict[str, Callable[[], Any]] = {
            f"bare client: msearch for {BEST_TERMS} terms": lambda: bare.search(
                terms, _source=False
            ),
            "bare client: the same terms, no stored field read": lambda: bare.search(
                terms, stored_fields="_none_"
            ),
            "Elasticsearch: search by the gold's terms": partial(
                search_like_at_first, cuts[0].engine, golds.select("question_id", "query")
            ),
        }
        for works_in_turn, goal in ((works, MINING_GOAL), (by_gold, GOLD_GOAL)):
            for what, rate, ratio in rates_in_turn(works_in_turn, len(asked)):
                met = ratio >= goal if what.startswith("Elasticsearch") else None
                yield Row(what, f"{rate:,.0f} queries/s", f"{ratio:.0%} of msearch", met)
        yield Row("top 10 in common", f"{in_common(own, served, questions):.2%}")
    yield from change_rows("Elasticsearch", cuts, loads)


def measure_english(documents: pl.DataFrame, n_questions: int, url: str) -> Iterator[Row]:
    """How far both engines rank English alike, and mining on it."""
    questions = sentences_of(documents, n_questions)
    words = documents["text"].str.count_matches(" ") + 1
    yield Row("words in a passage, on average", f"{words.mean():.1f}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        index = f"rare-benchmark-{uuid.uuid4().hex[:8]}"
        stack.callback(delete, url, index)
        shards = Shards.write(folder / "documents", documents, -(-len(documents) // 10))
        engines = [embedded(f"{folder}/index"), elasticsearch(url, index)]
        for engine in engines:
            stack.callback(engine.close)
            engine.sync(shards.contents, shards.read, Bm25(), lambda _: None)
        share = in_common(*engines, questions)
        yield Row("top 10 in common", f"{share:.2%}", "", share >= COMMON_GOAL)
        bare = BareClient(url, f"{index}-bare", index)
        bare.load(shards)
        asked = questions["question"].to_list()
        works = {
            f"bare client: msearch, top {HITS}": lambda: bare.search(asked, _source=False),
            **{
                f"Elasticsearch: {what}": work
                for what, work in mining(engines[1], questions).items()
            },
        }
        for what, rate, ratio in rates_in_turn(works, len(asked)):
            yield Row(what, f"{rate:,.0f} queries/s", f"{ratio:.0%} of msearch")


def delete(url: str, index: str) -> None:
    from elasticsearch import Elasticsearch

    with Elasticsearch(url.split(",")) as client:
        for name in client.indices.get(index=f"{index}*", expand_wildcards="all"):
            client.indices.delete(index=name, ignore_unavailable=True)


def table(title: str, rows: Iterable[Row]) -> Table:
    shown = Table("measured", title=title, title_justify="left")
    for column in ("", "ratio", "goal"):
        shown.add_column(column, justify="right")
    for row in rows:
        met = {True: "met", False: "missed", None: ""}[row.met]
        shown.add_row(row.what, row.value, row.ratio, met)
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each size of corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--english", type=int, default=50_000, help="at most; 0: leave it out")
    parser.add_argument("--questions", type=int, default=5_000)
    parser.add_argument("--elasticsearch", metavar="URL", help="instead of a node of its own")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    with node(options.elasticsearch) as url:
        for n in options.passages:
            console.print(table(f"{n:,} passages", measure(n, options.questions, url)))
        if url and options.english:
            documents = english(options.english)
            rows = measure_english(documents, options.questions, url)
            console.print(table(f"{len(documents):,} passages of English", rows))


if __name__ == "__main__":
    main()
