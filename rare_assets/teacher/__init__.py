"""Ask any OpenAI-compatible endpoint, online or in batches, and keep every answer, so that none is paid twice.

Knows nothing of RARE or Dagster. Give a teacher asks, and a function that turns an answer into a value or
raises `Unusable`; it yields an outcome for each ask as it is done. An `AnswerStore` keeps the answers by a
hash of what was asked: the same ask costs nothing the second time.

Example:
    >>> import asyncio
    >>> from rare_assets.teacher import AnswerStore, Ask, EndpointOptions, OpenAITeacher
    >>> async def main():
    ...     asks = [Ask("salt", [{"role": "user", "content": "Why does salt melt ice?"}])]
    ...     endpoint = EndpointOptions(base_url="http://localhost:8000/v1")
    ...     async with AnswerStore("answers") as store:
    ...         async with OpenAITeacher(model="a-model", endpoint=endpoint, store=store) as teacher:
    ...             async for outcome in teacher.ask_all(asks, lambda ask, answer: answer.content):
    ...                 print(outcome.ask.key, "->", outcome.value)
    >>> asyncio.run(main())
    salt -> It lowers the freezing point of water.

Use `BatchTeacher` instead where answers may take a day and shall cost half, and `EstimatingTeacher` to
learn what asking would cost, without sending anything.
"""

from rare_assets.teacher.address import endpoint_name
from rare_assets.teacher.batch.teacher import BatchTeacher
from rare_assets.teacher.connections import import_client
from rare_assets.teacher.degenerate import is_degenerate
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
from rare_assets.teacher.options import EndpointOptions, Limits
from rare_assets.teacher.places import Places
from rare_assets.teacher.pricing import PriceError, Prices
from rare_assets.teacher.prose_objects import prose
from rare_assets.teacher.reading import Parts, part
from rare_assets.teacher.store.answers import AnswerStore
from rare_assets.teacher.structured import structured_value
from rare_assets.teacher.tokens import CUT_FROM, is_cut, text_tokens
from rare_assets.teacher.window import advice

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
    "EndpointOptions",
    "EstimatingTeacher",
    "Ledger",
    "Limits",
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
    "import_client",
    "is_cut",
    "is_degenerate",
    "is_whole",
    "part",
    "prose",
    "structured_value",
    "text_tokens",
    "unfinished",
]
