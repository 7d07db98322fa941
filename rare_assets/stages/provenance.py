"""What each table is made from: the inputs and settings that decide its content, by name.

Assets store it with what they write (`Provenance.made_from`); planning computes it again and takes a
shard for current only if nothing differs. Settings that cannot change content (how many requests
are in flight, how often a bad answer is tried again) are not part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rare_assets.operators.read_documents import READER_VERSION

if TYPE_CHECKING:
    import dagster as dg

    from rare_assets.corpus.source import Shard
    from rare_assets.operators.templates import Templates
    from rare_assets.retriever import IndexState
    from rare_assets.stages.hard_negatives import HardNegativesConfig
    from rare_assets.stages.questions import QuestionsConfig
    from rare_assets.stages.reasoning import ReasoningConfig

# Options of a run that decide how an answer is got, not what it is.
NOT_CONTENT = {"max_attempts", "mode", "refresh", "remine_after_growth", "retry_rejects"}

# Documents in the corpus when the oldest of a shard's negatives were mined: told, never compared.
MINED_FROM = "mined_from_documents"
# The share that it may grow by until they are mined anew, as of their run: told, never compared.
GROWTH = "remine_after_growth"
DEFAULT_GROWTH = 0.2

# How many verdicts the endpoint failed to give: never current, so that the next run asks for them.
UNANSWERED = "unanswered_verdicts"

# Why the file of a table of documents could not be read when the table was last made.
_UNREAD = "unread"


def options_of(config: dg.Config) -> str:
    """The content-deciding fields of a run's options, as canonical JSON."""
    fields: dict[str, Any] = config.model_dump()
    settled = getattr(config, "settled", None)
    if settled is not None:
        fields |= settled()
    return json.dumps(
        {name: value for name, value in fields.items() if name not in NOT_CONTENT}, sort_keys=True
    )


def completed(made_from: Mapping[str, str], config: type[dg.Config]) -> dict[str, str]:
    """Return a stored `made_from` with the options that it lacks at their defaults.

    An option that came after a table was written was at its default then.
    """
    if "options" not in made_from:
        return dict(made_from)
    return {**made_from, "options": _with_defaults(made_from["options"], config)}


@lru_cache(1000)
def _with_defaults(options: str, config: type[dg.Config]) -> str:
    """The JSON of options, with those that it lacks; thousands of shards have the same."""
    return json.dumps(json.loads(options_of(config())) | json.loads(options), sort_keys=True)


def documents_from(shard: Shard) -> dict[str, str]:
    """What `documents[shard]` is made from: the file as it is now, and the way rows are read."""
    made_from = {
        "file": shard.file,
        "rows": f"{shard.first_row}-{shard.first_row + shard.n_rows - 1}",
        "version": shard.version,
        "reader": READER_VERSION,
    }
    return made_from | ({"reading": shard.reading} if shard.reading else {})


def documents_without_file(made_from: Mapping[str, str], reason: str) -> dict[str, str]:
    """What a table is made from that stands for a file that can't be read: never current, so that the
    next run tries the file again."""
    return {**made_from, _UNREAD: reason}


def with_unanswered(made_from: Mapping[str, str], usage: Mapping[str, Any]) -> dict[str, str]:
    """Return what a table is made from, with the verdicts that it lacks, as its usage counts them."""
    return {**made_from, **({UNANSWERED: str(usage[UNANSWERED])} if UNANSWERED in usage else {})}


def was_read(made_from: Mapping[str, str]) -> bool:
    """Whether a table of documents holds what a file held, be it now or earlier."""
    return "version" in made_from


def questions_from(
    documents_hash: str,
    config: QuestionsConfig,
    templates: Templates,
    teacher: str,
    judge: str | None = None,
) -> dict[str, str]:
    """What `questions[shard]` is made from; a judge's prompt only where a judge was asked, its model only
    where it is another than the teacher's."""
    made_from = {
        "documents": documents_hash,
        "options": options_of(config),
        "prompt": templates.doc2query.fingerprint,
        "teacher": teacher,
    }
    if config.judge_questions:
        made_from["judge_prompt"] = templates.judge_question.fingerprint
        if judge not in (None, teacher):
            made_from["judge"] = str(judge)
    return made_from


def hard_negatives_from(
    questions_hash: str,
    config: HardNegativesConfig,
    index: IndexState,
    templates: Templates,
    teacher: str,
) -> dict[str, str]:
    """What `hard_negatives[shard]` is made from, with the state of the index that was searched; the
    judge only where one was asked."""
    made_from = {
        "questions": questions_hash,
        "options": options_of(config),
        "index": index.fingerprint,
        "bm25": index.bm25.fingerprint,
        MINED_FROM: str(index.n_documents),
        GROWTH: str(config.remine_after_growth),
    }
    if config.judge_relevance:
        made_from |= {
            "judge": teacher,
            "judge_prompt": templates.judge_relevance.fingerprint,
        }
    return made_from


def reasoning_from(
    documents_hash: str,
    questions_hash: str,
    hard_negatives_hash: str,
    config: ReasoningConfig,
    templates: Templates,
    teacher: str,
    judge: str | None = None,
) -> dict[str, str]:
    """What `reasoning[shard]` is made from; a judge as in `questions_from`."""
    made_from = {
        "documents": documents_hash,
        "questions": questions_hash,
        "hard_negatives": hard_negatives_hash,
        "options": options_of(config),
        "prompt": templates.reason_distill.fingerprint,
        "teacher": teacher,
    }
    if config.judge_answers:
        made_from["judge_prompt"] = templates.judge_answer.fingerprint
        if judge not in (None, teacher):
            made_from["judge"] = str(judge)
    return made_from


def what_differs(stored: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of the inputs that are not the same in two provenances, in the order of `now`."""
    names = [name for name in {**now, **stored} if name not in (MINED_FROM, GROWTH)]
    return [name for name in names if stored.get(name) != now.get(name)]
