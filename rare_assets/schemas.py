"""The tables, one class each: the only place where a column is named, typed, constrained and described.

Storage casts to these classes, operators and asset checks validate with them, and the UI's column
panel and lineage are made from them (`rare_assets.catalog.metadata`). A column's `metadata["from"]` lists the
upstream columns it is computed from, as `asset.column`.
"""

from __future__ import annotations

from typing import NamedTuple

import dataframely as dy
import polars as pl


class Documents(dy.Schema):
    """One passage of the corpus a row."""

    doc_id = dy.String(
        primary_key=True,
        min_length=1,
        description="The source's `id`, or a hash of the text where the source has none. "
        "Unique in the whole corpus.",
    )
    text = dy.String(
        nullable=False,
        check={"not_blank": lambda c: c.str.strip_chars().str.len_chars() > 0},
        description="The passage as it stands in the source.",
    )
    title = dy.String(nullable=True, description="The source's `title`, if it has one.")
    question = dy.String(nullable=True, description="The source's `question`, if it has one.")
    scenario = dy.String(nullable=True, description="The source's `scenario`, if it has one.")
    answer = dy.String(
        nullable=True,
        description="The source's gold `answer`, if it has one; reasoning can be sampled against it.",
    )
    parent_id = dy.String(
        nullable=True,
        description="What the passage is part of: the file's path below the source, or the row's id.",
    )
    passage = dy.Int64(
        nullable=True, min=1, description="Number of the passage in its parent, from 1."
    )
    char_start = dy.Int64(
        nullable=True,
        min=0,
        description="Where the passage begins in its parent's text; null where a row was not cut.",
    )
    char_end = dy.Int64(
        nullable=True, min=0, description="Where it ends; null where a row was not cut."
    )
    text_hash = dy.String(
        nullable=False,
        min_length=1,
        description="Hash of the text; equal texts have equal hashes in every shard.",
        metadata={"from": ["documents.text"]},
    )
    source = dy.String(nullable=False, description="File and row it was read from, as `file:row`.")
    n_words = dy.Int64(
        nullable=False,
        min=1,
        description="Words in the text, as a person counts them in its language.",
        metadata={"from": ["documents.text"]},
    )


class DocumentsRejects(dy.Schema):
    """One row of a source file that could not be used, or the file as a whole."""

    file = dy.String(nullable=False, description="Source file.")
    row = dy.Int64(
        nullable=True, min=1, description="Row in the file, counted from 1; null: the whole file."
    )
    reason = dy.String(nullable=False, description="Why it was left out, one of a few fixed words.")
    detail = dy.String(nullable=True, description="What exactly was wrong, and the row shortened.")


class Questions(dy.Schema):
    """One question with its scenario, written by the teacher from one gold document, or the source's own."""

    question_id = dy.String(
        primary_key=True, min_length=1, description="`<doc_id>-q<number>`; unique in the corpus."
    )
    doc_id = dy.String(
        nullable=False,
        description="The gold document.",
        metadata={"from": ["documents.doc_id"]},
    )
    text_hash = dy.String(
        nullable=False,
        description="Hash of the gold document's text: its twins are never its negatives.",
        metadata={"from": ["documents.text_hash"]},
    )
    question = dy.String(
        nullable=False,
        check={"not_blank": lambda c: c.str.strip_chars().str.len_chars() > 0},
        description="Reasoning-intensive question that needs the gold document and stands on its own.",
        metadata={"from": ["documents.text"]},
    )
    scenario = dy.String(
        nullable=False,
        description="A situation in which somebody would ask the question; empty only where the source "
        "gave a question without one.",
        metadata={"from": ["documents.text", "documents.scenario"]},
    )
    origin = dy.String(
        nullable=True,
        check={"known": lambda c: c.is_in(["given", "written"])},
        description="`given`: the source's own question; `written`: the teacher's. Null in tables made "
        "before there were given ones.",
        metadata={"from": ["documents.question"]},
    )
    reference_answer = dy.String(
        nullable=True,
        description="What an answer is compared with: the source's, where it gave the question, or the "
        "teacher's own short one. Null if there is none.",
        metadata={"from": ["documents.answer", "documents.text"]},
    )
    question_type = dy.String(
        nullable=True, description="The type of question that was asked for; null where given."
    )
    length = dy.String(
        nullable=True, description="The length that was asked for; null where given."
    )
    wording = dy.String(
        nullable=True, description="The wording that was asked for; null where given."
    )
    persona = dy.String(
        nullable=True, description="Who was to ask; null where given, or where none was named."
    )
    extra = dy.String(
        nullable=True,
        description="JSON object of what a prompt of one's own asked for besides; null without.",
    )
    judged = dy.Struct(
        {
            name: dy.Bool(nullable=False)
            for name in ("stands_alone", "settled", "beyond_lookup", "one_thing", "language")
        },
        nullable=True,
        description="A judge's verdicts on the question; null where none was asked.",
    )
    model = dy.String(
        nullable=False,
        description="The teacher's name, as the endpoint gave it; `source` where the question is given.",
    )
    prompt_tokens = dy.Int64(
        nullable=False, min=0, description="Prompt tokens, all attempts together."
    )
    completion_tokens = dy.Int64(
        nullable=False, min=0, description="Completion tokens, all attempts together."
    )
    attempts = dy.Int64(
        nullable=False,
        min=0,
        description="Answers it took until one could be used; 0 where the question is given.",
    )


class TeacherRejects(dy.Schema):
    """One question or reasoning for which no attempt gave a usable answer."""

    question_id = dy.String(nullable=False, min_length=1, description="The question asked for.")
    doc_id = dy.String(nullable=False, description="The gold document.")
    reason = dy.String(nullable=False, description="Why the last answer could not be used.")
    detail = dy.String(nullable=True, description="The last raw answer, or the endpoint's message.")
    model = dy.String(nullable=False, description="The teacher's name.")
    prompt_tokens = dy.Int64(nullable=False, min=0, description="Paid for, all attempts together.")
    completion_tokens = dy.Int64(
        nullable=False, min=0, description="Paid for, all attempts together."
    )
    attempts = dy.Int64(nullable=False, min=0, description="Answers that were received.")


class HardNegatives(dy.Schema):
    """The BM25 hard negatives of one question."""

    question_id = dy.String(
        primary_key=True,
        min_length=1,
        description="The question.",
        metadata={"from": ["questions.question_id"]},
    )
    doc_id = dy.String(
        nullable=False,
        description="The gold document, never among the negatives.",
        metadata={"from": ["questions.doc_id"]},
    )
    query = dy.String(
        nullable=False,
        description="What was searched with.",
        metadata={"from": ["questions.question", "questions.scenario"]},
    )
    hard_negatives = dy.List(
        dy.String(nullable=False),
        nullable=False,
        description="Texts of the negatives, best first, all different.",
        metadata={"from": ["questions.question", "questions.scenario", "documents.text"]},
    )
    hard_negative_titles = dy.List(
        dy.String(nullable=True),
        nullable=True,
        description="Their titles; null for those that have none.",
        metadata={"from": ["documents.title"]},
    )
    negatives = dy.List(
        dy.Struct(
            {
                "doc_id": dy.String(nullable=False),
                "score": dy.Float64(nullable=False),
                "rank": dy.Int64(nullable=False, min=1),
                "origin": dy.String(nullable=False),
            }
        ),
        nullable=False,
        description="Where each negative comes from: document, BM25 score and rank (1 is best) in the "
        "ranking that put it highest, which `origin` names: by the `question`, or by the `gold` document's "
        "best terms.",
        metadata={"from": ["questions.question", "questions.scenario", "documents.doc_id"]},
    )
    gold_score = dy.Float64(
        nullable=True,
        description="BM25 score of the gold document for this query.",
        metadata={"from": ["questions.question", "documents.text"]},
    )
    gold_rank = dy.Int64(
        nullable=True,
        min=1,
        description="Rank of the gold document; null if it was not found within the depth searched.",
        metadata={"from": ["questions.question", "documents.text"]},
    )
    judged_relevant = dy.List(
        dy.String(nullable=False),
        nullable=False,
        description="Documents that would be negatives and were left out since they answer the "
        "question, best BM25 score first; empty where nothing was judged.",
        metadata={"from": ["questions.question", "questions.scenario", "documents.text"]},
    )
    extra_positives = dy.List(
        dy.String(nullable=False),
        nullable=True,
        description="Texts of `judged_relevant`, which are further positives (`relabel`); null where "
        "nothing was relabelled.",
        metadata={"from": ["hard_negatives.judged_relevant", "documents.text"]},
    )
    extra_positive_ids = dy.List(
        dy.String(nullable=False),
        nullable=True,
        description="Their documents.",
        metadata={"from": ["hard_negatives.judged_relevant"]},
    )


class HardNegativesRejects(dy.Schema):
    """One question that could not be searched with."""

    question_id = dy.String(nullable=False, min_length=1, description="The question.")
    doc_id = dy.String(nullable=False, description="The gold document.")
    reason = dy.String(nullable=False, description="Why it was left out.")
    detail = dy.String(nullable=True, description="What exactly was wrong.")


class Reasoning(dy.Schema):
    """One reasoned answer of the teacher, from the gold document shuffled among the negatives."""

    question_id = dy.String(
        primary_key=True,
        min_length=1,
        description="The question.",
        metadata={"from": ["questions.question_id"]},
    )
    sample_index = dy.Int64(
        primary_key=True,
        min=0,
        description="Number of the sample, from 0, where several were asked.",
    )
    doc_id = dy.String(
        nullable=False, description="The gold document.", metadata={"from": ["questions.doc_id"]}
    )
    text = dy.String(
        nullable=False,
        description="The gold document's text.",
        metadata={"from": ["documents.text"]},
    )
    title = dy.String(
        nullable=True,
        description="The gold document's title.",
        metadata={"from": ["documents.title"]},
    )
    question = dy.String(
        nullable=False, description="The question.", metadata={"from": ["questions.question"]}
    )
    scenario = dy.String(
        nullable=False, description="Its scenario.", metadata={"from": ["questions.scenario"]}
    )
    reference_answer = dy.String(
        nullable=True,
        description="What the answer is compared with; null if there is nothing.",
        metadata={"from": ["questions.reference_answer"]},
    )
    hard_negatives = dy.List(
        dy.String(nullable=False),
        nullable=False,
        description="Texts of the negatives, best first.",
        metadata={"from": ["hard_negatives.hard_negatives"]},
    )
    reasoning = dy.String(
        nullable=False,
        check={"not_blank": lambda c: c.str.strip_chars().str.len_chars() > 0},
        description="The teacher's chain of reasoning; never a copy of one document.",
        metadata={
            "from": [
                "documents.text",
                "questions.question",
                "questions.scenario",
                "hard_negatives.hard_negatives",
            ]
        },
    )
    answer = dy.String(
        nullable=True,
        description="The final answer, where the teacher set it apart from the reasoning.",
        metadata={"from": ["reasoning.raw_answer"]},
    )
    raw_answer = dy.String(
        nullable=False,
        description="The teacher's answer as it came; a chain sent apart stands in `<think>` tags.",
    )
    context_doc_ids = dy.List(
        dy.String(nullable=False),
        nullable=False,
        description="Documents in the order in which the teacher saw them.",
        metadata={"from": ["questions.doc_id", "hard_negatives.negatives"]},
    )
    gold_position = dy.Int64(
        nullable=True,
        min=0,
        description="0-based: `context_doc_ids[gold_position] == doc_id`; null where the gold document was "
        "not shown (`without_gold`).",
        metadata={"from": ["reasoning.context_doc_ids"]},
    )
    left_out = dy.List(
        dy.String(nullable=False),
        nullable=True,
        description="Negatives that the teacher was not shown, since they did not fit max_context_tokens.",
        metadata={"from": ["hard_negatives.negatives"]},
    )
    context = dy.List(
        dy.Struct(
            {
                "doc_id": dy.String(nullable=False),
                "title": dy.String(nullable=True),
                "text": dy.String(nullable=False),
            }
        ),
        nullable=True,
        description="The documents in the order in which the teacher saw them, title before text: with "
        "question and scenario all that its prompt was made from.",
        metadata={"from": ["documents.text", "documents.title", "hard_negatives.hard_negatives"]},
    )
    used_doc_ids = dy.List(
        dy.String(nullable=False),
        nullable=True,
        description="Documents that the teacher says it used; null if it did not say.",
        metadata={"from": ["reasoning.raw_answer", "reasoning.context_doc_ids"]},
    )
    gold_used = dy.Bool(
        nullable=True,
        description="Whether the gold document is among them; null if it did not say, or was not shown it.",
        metadata={"from": ["reasoning.used_doc_ids"]},
    )
    suspected_relevant = dy.List(
        dy.String(nullable=False),
        nullable=True,
        description="Negatives that it says it used, so that they may be relevant; null if it did not say.",
        metadata={"from": ["reasoning.used_doc_ids"]},
    )
    model = dy.String(nullable=False, description="The teacher's name, as the endpoint gave it.")
    finish_reason = dy.String(nullable=False, description="Why the teacher stopped writing.")
    prompt_tokens = dy.Int64(
        nullable=False, min=0, description="Prompt tokens, all attempts together."
    )
    completion_tokens = dy.Int64(
        nullable=False, min=0, description="Completion tokens, all attempts together."
    )
    attempts = dy.Int64(
        nullable=False, min=1, description="Answers it took until one could be used."
    )
    answer_correct = dy.Bool(
        nullable=True,
        description="Whether `answer` agrees with `reference_answer`; null where there is none, or where "
        "the teacher wrote it and only a judge could tell.",
        metadata={"from": ["reasoning.answer", "questions.reference_answer"]},
    )


class Table(NamedTuple):
    """A stored table: schemas of its rows and rejects, and the columns that make its identity.

    `identity` are the columns whose content downstream tables depend on; their hash tells a
    changed table from one that was merely written again. Those of `identity_if_given` count where a
    row has them, so that tables written before there were such columns keep their hash.
    """

    name: str
    schema: type[dy.Schema]
    rejects: type[dy.Schema]
    identity: tuple[str, ...]
    identity_if_given: tuple[str, ...] = ()

    def identity_of(self, rows: pl.DataFrame) -> tuple[str, ...]:
        """Return the columns that make these rows' identity."""
        given = (name for name in self.identity_if_given if rows[name].null_count() < rows.height)
        return (*self.identity, *given)


TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "documents",
            Documents,
            DocumentsRejects,
            ("doc_id", "text_hash", "title", "answer"),
            ("question", "scenario"),
        ),
        Table(
            "questions",
            Questions,
            TeacherRejects,
            ("question_id", "text_hash", "question", "scenario"),
            ("reference_answer",),
        ),
        Table(
            "hard_negatives", HardNegatives, HardNegativesRejects, ("question_id", "hard_negatives")
        ),
        Table(
            "reasoning", Reasoning, TeacherRejects, ("question_id", "sample_index", "raw_answer")
        ),
    )
}


class Produced(NamedTuple):
    """What an operator made of a shard: the table's rows and what could not be used."""

    rows: pl.DataFrame
    rejects: pl.DataFrame
