"""What is missing or has changed: which stages of which shards `rare-assets run` materializes, and why.

Everything is read from the tables' footers (rows only of a shard that has rejects) and what the last
sync noted of the negatives, no event log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import dagster as dg
import polars as pl

from rare_assets.checks.gate import why_blocked
from rare_assets.checks.judgement import StoredShard
from rare_assets.operators.answers import retryable
from rare_assets.operators.templates import load_templates
from rare_assets.resources.configurable import FIRST_WAIT, teacher_of
from rare_assets.resources.dataset import UNNAMED, Dataset
from rare_assets.retriever import (
    Bm25,
    IndexDamaged,
    IndexMissing,
    IndexState,
)
from rare_assets.stages import documents, hard_negatives, questions, reasoning
from rare_assets.stages.corpus_index import shards_to_index
from rare_assets.stages.hard_negatives import HardNegativesConfig
from rare_assets.stages.options import Options
from rare_assets.stages.order import AFTER_DOCUMENTS
from rare_assets.stages.provenance import completed, what_differs
from rare_assets.stages.questions import QuestionsConfig
from rare_assets.stages.reasoning import ReasoningConfig
from rare_assets.stages.standing import is_within_growth, standing
from rare_assets.storage.tables import TableDamaged, TableMissing
from rare_assets.teacher import ENDPOINT_FAULTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rare_assets.corpus.shards import Shard
    from rare_assets.resources.configurable import Bm25Retriever, TeacherModel
    from rare_assets.storage.tables import ParquetTables


class Stale(NamedTuple):
    """A stage of a shard that is to be materialized, and why: `missing`, `damaged`, or what has
    changed."""

    stage: str
    why: str


INDEX_CHANGED = Stale(hard_negatives.NAME, "index")


class Planner:
    """Compares what is stored with what would be stored now."""

    def __init__(
        self,
        tables: ParquetTables,
        retriever: Bm25Retriever,
        teacher: TeacherModel,
        options: Options,
        redo_all: bool = False,
        dataset: Dataset = UNNAMED,
    ) -> None:
        self.tables = tables
        self.dataset = dataset
        self.retriever = retriever
        self.options = options
        self.redo_all = redo_all
        self.teacher = teacher
        self.writer, self.reasoner, self.judge = (
            teacher_of(teacher, questions.NAME).name,
            teacher_of(teacher, reasoning.NAME).name,
            teacher_of(teacher, "judge").name,
        )
        self.templates = load_templates(teacher.prompts_folder)
        # What the last sync noted of the negatives, and the index that it is true of.
        self._standing: tuple[str, dict[str, str]] | None = None

    @property
    def teachers(self) -> str:
        """Who is asked: one model, or that of each stage."""
        if self.writer == self.reasoner == self.judge:
            return self.writer
        return f"questions by {self.writer}, reasoning by {self.reasoner}, judged by {self.judge}"

    def without_redoing(self) -> Planner:
        """Return the same planner, for what is missing or has changed alone."""
        return Planner(
            self.tables, self.retriever, self.teacher, self.options, dataset=self.dataset
        )

    def documents(self, shard: Shard) -> Stale | None:
        """Return why a shard's documents must be read (again), or None."""
        return self._compare(documents.NAME, shard.key, documents.made_from(shard))

    def index(self, registered: list[str]) -> str | None:
        """Return why the index must be synced, or None."""
        state = None
        why = "missing"
        try:
            state = self._index_state()
        except IndexDamaged:
            why = "damaged"
        except IndexMissing:
            pass
        try:
            wanted = shards_to_index(self.tables, registered, state.shards if state else {})
        except TableDamaged:
            # The sync itself refuses, and says which table.
            return documents.NAME
        options = self.options.corpus_index
        if state is None:
            return why
        if self.redo_all:
            return "asked for"
        analyzer = options.settled_analyzer(self.tables, state.engine)
        if analyzer is None or state.bm25 != Bm25(options.k1, options.b, analyzer):
            return "options"
        changed = {shard: content.content_hash for shard, content in wanted.contents.items()}
        return None if changed == dict(state.shards) else documents.NAME

    def index_state(self) -> IndexState | None:
        """Return what the index holds, or None if there is none that is whole.

        Raises:
            StorageError, ElasticsearchError: it can't be told.
        """
        try:
            return self._index_state()
        except IndexMissing:
            return None

    def _index_state(self) -> IndexState:
        with self.retriever.open(first_wait=FIRST_WAIT) as engine:
            return engine.state()

    def asked(self, shard: str, index: IndexState) -> list[Stale]:
        """Return the stages after the documents that must be made for a shard, given the synced
        index.

        A stage that is made again may change what the next ones are made from, so the rest
        follows it; where nothing changes, stored answers make that free.
        """
        stale = self.questions(shard)
        if stale:
            return [stale, *(Stale(stage, questions.NAME) for stage in AFTER_DOCUMENTS[1:])]
        return self.after_questions(shard, index)

    def questions(self, shard: str) -> Stale | None:
        """Return why a shard's questions must be asked for, given its documents (None without
        them)."""
        read = self.tables.provenance_if_whole(documents.NAME, shard)
        if read is None:
            return None
        made_from = questions.made_from(
            read.content_hash,
            self.options.questions,
            self.templates,
            self.writer,
            self.judge,
        )
        stale = self._compare(questions.NAME, shard, made_from, QuestionsConfig)
        if stale is None and self._has_grown_long_enough(shard):
            return Stale(questions.NAME, documents.NAME)
        return stale

    def _has_grown_long_enough(self, shard: str) -> bool:
        """Return True if a document was left out as too short that is not, as words are counted
        now.

        The number of words is no part of a document's identity: it follows from the text.
        """
        stored = self.tables.provenance_if_whole(questions.NAME, shard)
        if stored is None or not stored.n_rejects:
            return False
        left_out = self.tables.scan_rejects(questions.NAME, shard).filter(
            pl.col("reason") == "too_short"
        )
        long_enough = self.tables.scan(documents.NAME, shard).filter(
            pl.col("n_words") >= self.options.questions.min_words
        )
        found = left_out.join(long_enough, on="doc_id", how="semi").head(1).collect()
        return not found.is_empty()

    def after_questions(self, shard: str, index: IndexState) -> list[Stale]:
        """Return the stages after the questions that must be made, given the questions and the
        index."""
        read = self.tables.provenance_if_whole(documents.NAME, shard)
        asked = self.tables.provenance_if_whole(questions.NAME, shard)
        if read is None or asked is None:
            return []
        stale = self._compare(
            hard_negatives.NAME,
            shard,
            hard_negatives.made_from(
                asked.content_hash,
                self.options.hard_negatives,
                index,
                self.templates,
                self.judge,
            ),
            HardNegativesConfig,
        )
        if stale == INDEX_CHANGED and self._negatives_stand(shard, index):
            stale = None
        if stale:
            return [stale, Stale(reasoning.NAME, hard_negatives.NAME)]
        mined = self.tables.provenance(hard_negatives.NAME, shard)
        assert mined is not None
        stale = self._compare(
            reasoning.NAME,
            shard,
            reasoning.made_from(
                {
                    documents.NAME: read.content_hash,
                    questions.NAME: asked.content_hash,
                    hard_negatives.NAME: mined.content_hash,
                },
                self.options.reasoning,
                self.templates,
                self.reasoner,
                self.judge,
            ),
            ReasoningConfig,
        )
        if stale and self._is_blocked(hard_negatives.NAME, shard, "negatives_found"):
            # Mined anew, in case that it was the index, before anything is paid on top.
            return [
                Stale(hard_negatives.NAME, "negatives"),
                Stale(reasoning.NAME, hard_negatives.NAME),
            ]
        return [stale] if stale else []

    def _negatives_stand(self, shard: str, index: IndexState) -> bool:
        """Return True if mining again, where only the index has changed, would keep all
        negatives."""
        if self._standing is None or self._standing[0] != index.fingerprint:
            self._standing = index.fingerprint, standing(self.tables, index)
        stored = self.tables.provenance_if_whole(hard_negatives.NAME, shard)
        return (
            stored is not None
            and self._standing[1].get(shard) == stored.content_hash
            and is_within_growth(
                stored.made_from, index, self.options.hard_negatives.remine_after_growth
            )
        )

    def _compare(
        self,
        table: str,
        shard: str,
        now: Mapping[str, str],
        config: type[dg.Config] = dg.Config,
    ) -> Stale | None:
        """Return why a stored table must be made again: it is missing, damaged, made from something
        else, lacks what the endpoint failed to answer, or was stopped by its check; else None.

        The latter is made again, from stored answers, so that its check stops what follows again.
        """
        try:
            stored = self.tables.provenance(table, shard)
        except TableDamaged:
            return Stale(table, "damaged")
        if stored is None:
            return Stale(table, "missing")
        if self.redo_all:
            return Stale(table, "asked for")
        changed = what_differs(completed(stored.made_from, config), now)
        if changed:
            return Stale(table, ", ".join(changed))
        try:
            if stored.n_rejects and self._has_endpoint_faults(table, shard):
                return Stale(table, "faults of the endpoint")
            if stored.n_rejects and (
                self._is_blocked(table, shard) or self._is_to_be_retried(table, shard)
            ):
                return Stale(table, "rejects")
        except (TableDamaged, TableMissing):
            return Stale(table, "damaged")
        return None

    def _has_endpoint_faults(self, table: str, shard: str) -> bool:
        """Return True if any reject is one that the endpoint never answered, and may answer now."""
        reasons = self.tables.load_rejects(table, shard).select(
            pl.col("reason").is_in(ENDPOINT_FAULTS).any()
        )
        return bool(reasons.collect().item())

    def _is_to_be_retried(self, table: str, shard: str) -> bool:
        """Return True if rejects are asked for again, and some could be mended by that."""
        options = getattr(self.options, table, None)
        if not getattr(options, "retry_rejects", False):
            return False
        return not retryable(self.tables.scan_rejects(table, shard)).head(1).collect().is_empty()

    def _is_blocked(self, table: str, shard: str, check: str = "rejects") -> bool:
        if check == "rejects":
            self.tables.load_rejects(table, shard)
        stored = StoredShard(table, shard, self.tables, dataset=self.dataset)
        return why_blocked(stored, check) is not None
