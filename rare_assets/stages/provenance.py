"""Compare what a stored table was made from with what it would be made from now.

Each stage names its inputs (`made_from` in its module): what decides its content, by name. Assets store
them with what they write (`Provenance.made_from`); planning computes them again and takes a shard for
current only if nothing differs. Settings that cannot change content (how many requests are in flight,
how often a bad answer is tried again) are not part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg

    from rare_assets.operators.templates import PromptTemplate

# Options of a run that decide how an answer is got, not what it is.
NOT_CONTENT = {"max_attempts", "mode", "refresh", "remine_after_growth", "retry_rejects"}

# Recorded for people, never compared: documents in the corpus when the oldest of a shard's negatives were
# mined, and the share that it may grow by until they are mined anew.
MINED_FROM = "mined_from_documents"
GROWTH = "remine_after_growth"


def options_of(config: dg.Config) -> str:
    """Return the content-deciding fields of a run's options, as canonical JSON.

    A new option changes no stored table: see `completed`.

    >>> from rare_assets.stages.reasoning import ReasoningConfig
    >>> options_of(ReasoningConfig(n=2)) == options_of(ReasoningConfig(n=2, max_attempts=5))
    True
    """
    fields: dict[str, Any] = config.model_dump()
    settled = getattr(config, "settled", None)
    if settled is not None:
        fields |= settled()
    return json.dumps(
        {name: value for name, value in fields.items() if name not in NOT_CONTENT}, sort_keys=True
    )


def judged_by(prompt: PromptTemplate, judge: str | None, teacher: str) -> dict[str, str]:
    """Name the prompt of a judge that was asked, and its model where that is another than the teacher's."""
    apart = {} if judge in (None, teacher) else {"judge": str(judge)}
    return {"judge_prompt": prompt.fingerprint, **apart}


def completed(made_from: Mapping[str, str], config: type[dg.Config]) -> dict[str, str]:
    """Return a stored `made_from` with the options that it lacks at their defaults.

    An option that came after a table was written was at its default then.
    """
    if "options" not in made_from:
        return dict(made_from)
    return {**made_from, "options": _with_defaults(made_from["options"], config)}


@lru_cache(1000)
def _with_defaults(options: str, config: type[dg.Config]) -> str:
    """Return the JSON of options, with those that it lacks; thousands of shards have the same."""
    return json.dumps(json.loads(options_of(config())) | json.loads(options), sort_keys=True)


def what_differs(stored: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Name the inputs that are not the same in two provenances, in the order of `now`.

    >>> what_differs({"documents": "1a", "teacher": "m"}, {"documents": "2b", "teacher": "m"})
    ['documents']
    """
    names = [name for name in {**now, **stored} if name not in (MINED_FROM, GROWTH)]
    return [name for name in names if stored.get(name) != now.get(name)]
