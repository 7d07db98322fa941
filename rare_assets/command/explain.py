"""`rare-assets explain`: everything that made a row, from its source line to the files it went into."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rare_assets.command.target import Target
from rare_assets.exports.export import Export, stored_shards
from rare_assets.exports.format import Format
from rare_assets.exports.formats import FORMATS
from rare_assets.exports.options import ExportOptions
from rare_assets.exports.proof import ids_of, rows_of
from rare_assets.exports.shard_files import COPIES, SIDECAR
from rare_assets.operators.bm25_hard_neg import Considered, bm25_hard_neg
from rare_assets.retriever import IndexMissing
from rare_assets.schemas import TABLES
from rare_assets.stages.hard_negatives import HardNegativesConfig
from rare_assets.stages.order import AFTER_DOCUMENTS
from rare_assets.stages.provenance import completed
from rare_assets.storage.tables import ParquetTables, TableDamaged, TableMissing

# Of a text; raw answers are shown whole.
SHOWN_CHARS = 600
CANDIDATES_SHOWN = 40
DAMAGED_SHOWN = 5
OUTCOMES = {
    "taken": "hard negative",
    "gold": "the gold document",
    "twin_of_gold": "its text is the gold document's",
    "same_text": "its text ranks higher already",
    "same_parent": "of the gold document's own parent (same_parent)",
    "same_parent_holds_answer": "of the gold document's own parent, and holds the answer",
    "range_min": "ranks above range_min",
    "range_max": "ranks below range_max",
    "not_needed": "num_neg were found above",
    "max_score": "scores above max_score",
    "min_score": "scores below min_score",
    "absolute_margin": "scores too close to the gold (absolute_margin)",
    "relative_margin": "scores too close to the gold (relative_margin)",
    "near_duplicate_of_gold": "nearly the gold document's words",
    "near_duplicate_of_negative": "nearly the words of a negative above",
    "judged_relevant": "answers the question, says the judge",
    "judge_undecided": "no verdict of the judge",
}


class UnknownQuestion(Exception):
    """No table holds the question."""


class History(NamedTuple):
    """What is stored of a question, in the order in which it was made.

    `damaged` has what is told of each table that could not be read, by its name.
    """

    question_id: str
    shard: str
    document: dict[str, Any] | None
    question: dict[str, Any] | None
    mined: dict[str, Any] | None
    samples: list[dict[str, Any]]
    rejects: dict[str, list[dict[str, Any]]]
    made_from: dict[str, Mapping[str, str]]
    exported: list[str]
    damaged: dict[str, str]


def run_explain(target: Target, question_id: str) -> None:
    """Print the whole history of a question, of one that was rejected, too.

    Raises:
        UnknownQuestion: no shard has it.
        TableDamaged: some of its tables could not be read; all else was printed.
        StorageError: the storage can't be read.
    """
    resources = target.resources
    tables: ParquetTables = resources["storage"].tables()
    history = find(tables, question_id)
    console = Console()
    _print_source(console, history)
    _print_question(console, history)
    if history.mined is not None:
        _print_negatives(console, history)
        if history.question is not None and "documents" not in history.damaged:
            _rank_once_more(console, target, tables, history)
    elif _has_to_tell(history, "hard_negatives"):
        console.print("\n[bold]Hard negatives[/]")
        _print_rejects(console, history, "hard_negatives")
    _print_reasoning(console, history)
    _print_versions(console, history)
    where = "\n".join(f"  {each}" for each in history.exported) or "  in no file"
    console.print(f"\n[bold]Training files[/]\n{escape(where)}", soft_wrap=True)
    if history.damaged:
        raise TableDamaged(
            f"Not all was told: {', '.join(history.damaged)} of shard {history.shard!r} could not be "
            "read; run `rare-assets run`, which makes damaged tables again."
        )


def _rank_once_more(
    console: Console, target: Target, tables: ParquetTables, history: History
) -> None:
    """Print what became of each document that was ranked, where there is an index."""
    try:
        with target.resources["retriever"].open() as engine:
            config = _config_of(history.made_from["hard_negatives"])
            documents = tables.load("documents", history.shard)
            considered = candidates(history, engine, config, documents)
            is_same = engine.state().fingerprint == history.made_from["hard_negatives"]["index"]
        _print_candidates(console, considered, is_same)
    except IndexMissing as error:
        console.print(f"Candidates: {escape(str(error))}", soft_wrap=True)
    except TableDamaged as error:
        history.damaged["documents"] = str(error)
        console.print(f"Candidates: {escape(str(error))}", soft_wrap=True)


def find(tables: ParquetTables, question_id: str) -> History:
    """Read what is stored of a question. Raises UnknownQuestion."""
    unreadable: list[str] = []
    for shard in stored_shards(tables, "questions"):
        found: dict[str, list[dict[str, Any]]] = {}
        rejects = {}
        damaged: dict[str, str] = {}
        is_it = pl.col("question_id") == question_id
        for table in AFTER_DOCUMENTS:
            found[table] = _rows(tables, table, shard, is_it, damaged)
            if rejected := _rows(tables, f"{table}_rejects", shard, is_it, damaged):
                rejects[table] = rejected
        if not any(found.values()) and not rejects:
            unreadable += damaged.values()
            continue
        first = next((rows[0] for rows in found.values() if rows), None)
        doc_id = (first or next(iter(rejects.values()))[0])["doc_id"]
        documents = _rows(tables, "documents", shard, pl.col("doc_id") == doc_id, damaged)
        return History(
            question_id,
            shard,
            next(iter(documents), None),
            next(iter(found["questions"]), None),
            next(iter(found["hard_negatives"]), None),
            found["reasoning"],
            rejects,
            {
                table: stored.made_from
                for table in TABLES
                if (stored := tables.provenance_if_whole(table, shard)) is not None
            },
            list(_exported(tables, shard, question_id)),
            damaged,
        )
    raise UnknownQuestion(
        f"No table holds the question {question_id!r}. Ids stand in question_id of the tables, and of "
        f"the .ids.parquet files beside training files.{_told(unreadable)}"
    )


def _told(unreadable: list[str]) -> str:
    """Return what is said of tables that may hold the question; nothing if all could be read."""
    if not unreadable:
        return ""
    named = "\n".join(unreadable[:DAMAGED_SHOWN])
    more = len(unreadable) - DAMAGED_SHOWN
    return (
        f" But these tables could not be read; run `rare-assets run`, and ask again:\n{named}"
        f"{f'{chr(10)}And {more:,} more.' if more > 0 else ''}"
    )


def candidates(
    history: History, engine: Any, config: HardNegativesConfig, documents: pl.LazyFrame
) -> list[Considered]:
    """Rank the corpus once more for a question, and say what became of each document. Asks no model:
    the verdicts of a judge are those that are stored."""
    assert history.question is not None
    assert history.mined is not None
    relevant = set(history.mined["judged_relevant"])
    found: list[Considered] = []

    def is_relevant(pairs: pl.DataFrame) -> list[bool | None]:
        return [doc_id in relevant for doc_id in pairs["doc_id"]]

    asked = pl.DataFrame(
        [history.question], schema=TABLES["questions"].schema.create_empty().schema
    )
    bm25_hard_neg(
        asked,
        engine,
        **config.operator_options(),
        documents=documents.select("doc_id", "parent_id", "title", "text").collect(),
        is_relevant=is_relevant if config.judge_relevance else None,
        trace=lambda _, considered: found.extend(considered),
    )
    return found


def _config_of(made_from: Mapping[str, str]) -> HardNegativesConfig:
    """Return the options that a shard was mined with; one that it does not name was at its
    default."""
    stored = json.loads(completed(made_from, HardNegativesConfig)["options"])
    known = {
        name: value for name, value in stored.items() if name in HardNegativesConfig.model_fields
    }
    return HardNegativesConfig(**known)


def _rows(
    tables: ParquetTables, table: str, shard: str, wanted: pl.Expr, damaged: dict[str, str]
) -> list[dict[str, Any]]:
    """Return the rows of a table, or of its rejects; none of one that is damaged, which is noted by its name."""
    name, is_rejects = table.removesuffix("_rejects"), table.endswith("_rejects")
    if name in damaged:
        return []
    try:
        if tables.provenance(name, shard) is None:
            return []
        with tables.reading(name, shard, rejects=is_rejects):
            frame = (tables.scan_rejects if is_rejects else tables.scan)(name, shard)
            return frame.filter(wanted).collect().to_dicts()
    except TableMissing:
        return []
    except TableDamaged as error:
        damaged[table] = str(error)
        return []


def _exported(tables: ParquetTables, shard: str, question_id: str) -> Iterator[str]:
    """Return where a question's rows are among the training files: `messages/train/a.jsonl, row
    3`."""
    with Export(tables, None, ExportOptions()) as export:
        for name, each in FORMATS.items():
            written = export.written(name, shard)
            if written is None:
                continue
            for split, facts in written.splits.items():
                # A file that somebody took away has no rows.
                there = [file for file in facts["files"] if export.has([file])]
                if each.parts:
                    whole = len(there) == len(facts["files"])
                    if whole and question_id in ids_of(export, written, split)["question_id"]:
                        yield f"{name}/{split}"
                    continue
                for file in there:
                    place = file.removesuffix(SIDECAR if each.ids is None else each.extension)
                    for row in _rows_in(export, each, file, question_id):
                        yield f"{place}, row {row}"


def _rows_in(export: Export, each: Format, file: str, question_id: str) -> list[int]:
    """Return the numbers of a question's rows, from 0: by the sidecar, or by the rows' own ids."""
    if file.startswith(COPIES):
        return []
    if each.ids is None:
        if not file.endswith(SIDECAR):
            return []
        found = export.folder.scan(file).filter(pl.col("question_id") == question_id).collect()
        return found["row"].to_list()
    rows = rows_of(export, file)
    value = json.dumps(question_id, ensure_ascii=False)
    encoded = rows.select(pl.struct(pl.all()).struct.json_encode()).to_series()
    return encoded.str.contains(value, literal=True).arg_true().to_list()


def _shown(text: object) -> str:
    words = " ".join(str(text if text is not None else "-").split())
    return escape(words if len(words) <= SHOWN_CHARS else f"{words[:SHOWN_CHARS]} …")


def _print_source(console: Console, history: History) -> None:
    console.print(f"[bold]{escape(history.question_id)}[/], shard {escape(history.shard)}")
    document = history.document
    if document is None:
        said = history.damaged.get("documents") or "Its gold document is no longer stored."
        console.print(escape(said), soft_wrap=True)
        return
    console.print(
        f"\n[bold]Source[/]  {escape(document['source'])}\n"
        f"[bold]Gold document[/]  {escape(document['doc_id'])}, {document['n_words']:,} words, title: "
        f"{_shown(document['title'])}\n  {_shown(document['text'])}",
        soft_wrap=True,
    )


def _print_question(console: Console, history: History) -> None:
    row = history.question
    console.print("\n[bold]Question[/]")
    if row is None:
        _print_rejects(console, history, "questions")
        return
    asked_for = ("origin", "question_type", "length", "wording", "persona")
    told = [f"{name} {row[name]}" for name in asked_for if row.get(name) is not None]
    console.print(
        f"  scenario: {_shown(row['scenario'])}\n  question: {_shown(row['question'])}\n"
        f"  reference answer: {_shown(row.get('reference_answer'))}\n  {escape(_asked(row))}"
        f"{escape('; ' + ', '.join(told)) if told else ''}",
        soft_wrap=True,
    )


def _print_negatives(console: Console, history: History) -> None:
    assert history.mined is not None
    mined = history.mined
    console.print(
        f"\n[bold]Hard negatives[/]\n  searched with: {_shown(mined['query'])}\n  gold document: rank "
        f"{mined['gold_rank'] or 'not found'}, score {_number(mined['gold_score'])}",
        soft_wrap=True,
    )
    for negative, text in zip(mined["negatives"], mined["hard_negatives"], strict=True):
        console.print(
            f"  rank {negative['rank']}, score {_number(negative['score'])}, "
            f"{escape(negative['doc_id'])}: {_shown(text)[:200]}",
            soft_wrap=True,
        )


def _print_candidates(console: Console, considered: list[Considered], is_same: bool) -> None:
    table = Table("rank", "score", "found by", "document", "what became of it")
    for each in considered[:CANDIDATES_SHOWN]:
        table.add_row(
            str(each.rank),
            _number(each.score),
            each.origin,
            escape(each.doc_id),
            OUTCOMES.get(each.outcome, each.outcome),
            style="bold" if each.outcome == "taken" else None,
        )
    console.print("\n[bold]Candidates[/], ranked once more" + ("" if is_same else " now"))
    if not is_same:
        console.print("  The index has changed since they were mined: ranks may differ.")
    console.print(table)
    if (more := len(considered) - CANDIDATES_SHOWN) > 0:
        console.print(f"  and {more:,} more")


def _print_reasoning(console: Console, history: History) -> None:
    console.print("\n[bold]Reasoning[/]")
    # Of several samples, some may be there and others not.
    if not history.samples or _has_to_tell(history, "reasoning"):
        _print_rejects(console, history, "reasoning")
    for row in history.samples:
        order = ", ".join(
            f"{number}. {doc_id}{' (gold)' if number == _gold_number(row) else ''}"
            for number, doc_id in enumerate(row["context_doc_ids"], 1)
        )
        console.print(
            f"  shown: {escape(order)}\n  {escape(_asked(row))}, finish_reason "
            f"{escape(row['finish_reason'])}\n  answer: {_shown(row['answer'])}\n  agrees with the "
            f"reference: {row['answer_correct'] if row['answer_correct'] is not None else 'not known'}"
            f"\n  raw answer:\n{escape(row['raw_answer'])}",
            soft_wrap=True,
        )


def _gold_number(row: Mapping[str, Any]) -> int | None:
    return None if row["gold_position"] is None else row["gold_position"] + 1


def _has_to_tell(history: History, table: str) -> bool:
    """Return whether a table rejected the question, or it or its rejects could not be read."""
    return any(
        (table in history.rejects, table in history.damaged, f"{table}_rejects" in history.damaged)
    )


def _print_rejects(console: Console, history: History, table: str) -> None:
    if not _has_to_tell(history, table):
        console.print("  not made yet")
    for name in (table, f"{table}_rejects"):
        if said := history.damaged.get(name):
            console.print(f"  [red]not known[/]: {escape(said)}", soft_wrap=True)
    for reject in history.rejects.get(table, ()):
        asked = f", {_asked(reject)}" if "attempts" in reject else ""
        console.print(
            f"  [yellow]rejected: {escape(reject['reason'])}[/]{escape(asked)}\n{escape(reject['detail'] or '')}",
            soft_wrap=True,
        )


def _print_versions(console: Console, history: History) -> None:
    console.print("\n[bold]Made from[/]")
    for table, made_from in history.made_from.items():
        facts = ", ".join(f"{name} {value}" for name, value in made_from.items())
        console.print(f"  {table}: {escape(facts)}", soft_wrap=True)


def _asked(row: Mapping[str, Any]) -> str:
    return (
        f"{row['model']}, {row['attempts']} attempts, {row['prompt_tokens']:,} prompt and "
        f"{row['completion_tokens']:,} completion tokens"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
