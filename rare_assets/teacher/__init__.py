"""Asks any OpenAI-compatible endpoint, online or in batches, and keeps every answer, so that none is paid twice.

Knows nothing of RARE or Dagster. A teacher is given asks, and a function that makes something of an
answer or raises `Unusable`; it yields an outcome for each, as it comes. Answers lie in an `AnswerStore`,
by a hash of what was asked: asked again, they cost nothing.

Example:
    >>> import asyncio
    >>> from rare_assets.teacher import AnswerStore, Ask, OpenAITeacher
    >>> async def main():
    ...     asks = [Ask("salt", [{"role": "user", "content": "Why does salt melt ice?"}])]
    ...     url = "http://localhost:8000/v1"
    ...     async with AnswerStore("answers") as store:
    ...         async with OpenAITeacher(model="a-model", base_url=url, store=store) as teacher:
    ...             async for outcome in teacher.ask_all(asks, lambda ask, answer: answer.content):
    ...                 print(outcome.ask.key, "->", outcome.value)
    >>> asyncio.run(main())
    salt -> It lowers the freezing point of water.

`BatchTeacher` takes its place where answers may take a day and cost half, `EstimatingTeacher` where only
what it would cost is asked.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rare_assets.teacher.batch.teacher import BatchTeacher
    from rare_assets.teacher.degenerate import is_degenerate
    from rare_assets.teacher.endpoint import endpoint_name
    from rare_assets.teacher.estimating import COMPLETION_TOKENS, EstimatingTeacher
    from rare_assets.teacher.finish import is_whole, unfinished
    from rare_assets.teacher.health import Patience
    from rare_assets.teacher.interface import (
        ENDPOINT_FAULTS,
        NOT_ASKED,
        Answer,
        Ask,
        Outcome,
        Progress,
        Teacher,
        TeacherStopped,
        Unusable,
        Usage,
        Use,
    )
    from rare_assets.teacher.known import Memory
    from rare_assets.teacher.ledger import Ledger
    from rare_assets.teacher.local_server import CONTEXT_TOKENS, EMBEDDED_MODEL, EmbeddedServer
    from rare_assets.teacher.online import OpenAITeacher
    from rare_assets.teacher.places import Places
    from rare_assets.teacher.pricing import PriceError, Prices
    from rare_assets.teacher.reading import Parts, part, prose
    from rare_assets.teacher.store.answers import AnswerStore
    from rare_assets.teacher.structured import structured_value
    from rare_assets.teacher.tokens import CUT_FROM, is_cut, text_tokens
    from rare_assets.teacher.window import advice

# What others may use, by the module that has it; loaded at first use, since the endpoint's client alone
# takes most of a second to import.
_DOORS = {
    "batch.teacher": ("BatchTeacher",),
    "degenerate": ("is_degenerate",),
    "endpoint": ("endpoint_name",),
    "estimating": (
        "COMPLETION_TOKENS",
        "EstimatingTeacher",
    ),
    "finish": (
        "is_whole",
        "unfinished",
    ),
    "health": ("Patience",),
    "interface": (
        "ENDPOINT_FAULTS",
        "NOT_ASKED",
        "Answer",
        "Ask",
        "Outcome",
        "Progress",
        "Teacher",
        "TeacherStopped",
        "Unusable",
        "Usage",
        "Use",
    ),
    "known": ("Memory",),
    "ledger": ("Ledger",),
    "local_server": (
        "CONTEXT_TOKENS",
        "EMBEDDED_MODEL",
        "EmbeddedServer",
    ),
    "online": ("OpenAITeacher",),
    "places": ("Places",),
    "pricing": (
        "PriceError",
        "Prices",
    ),
    "reading": (
        "Parts",
        "part",
        "prose",
    ),
    "store.answers": ("AnswerStore",),
    "structured": ("structured_value",),
    "tokens": (
        "CUT_FROM",
        "is_cut",
        "text_tokens",
    ),
    "window": ("advice",),
}
_MODULE_OF = {name: module for module, names in _DOORS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


__all__ = [
    "COMPLETION_TOKENS",
    "CONTEXT_TOKENS",
    "CUT_FROM",
    "EMBEDDED_MODEL",
    "ENDPOINT_FAULTS",
    "NOT_ASKED",
    "Answer",
    "AnswerStore",
    "Ask",
    "BatchTeacher",
    "EmbeddedServer",
    "EstimatingTeacher",
    "Ledger",
    "Memory",
    "OpenAITeacher",
    "Outcome",
    "Parts",
    "Patience",
    "Places",
    "PriceError",
    "Prices",
    "Progress",
    "Teacher",
    "TeacherStopped",
    "Unusable",
    "Usage",
    "Use",
    "advice",
    "endpoint_name",
    "is_cut",
    "is_degenerate",
    "is_whole",
    "part",
    "prose",
    "structured_value",
    "text_tokens",
    "unfinished",
]
