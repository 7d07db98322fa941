"""The options that every step which asks the teacher has."""

from typing import Any, Literal

import dagster as dg
from pydantic import Field

from rare_assets.resources.configurable import TeacherModel

# Where it is only foreseen what will be asked: tokens of a document, of a prompt's own wording, and of a
# judge's sentence with its verdict.
DOCUMENT_TOKENS = 200
PROMPT_TOKENS = 400
VERDICT_TOKENS = 50


class AskingConfig(dg.Config):
    """How the teacher is asked, whatever is asked of it."""

    max_attempts: int = Field(
        3, ge=1, description="Answers asked for until one can be used; then there is a reject."
    )
    temperature: float | None = Field(None, ge=0, description="Default: the endpoint's own.")
    max_tokens: int | None = Field(
        None, ge=1, description="Longest answer. Default: the endpoint's own."
    )
    refresh: bool = Field(
        False, description="Ask anew, whatever is stored. Every request is paid for again."
    )
    retry_rejects: bool = Field(
        False,
        description="Ask again, up to max_attempts times more, where no stored answer can be used; "
        "all others stay as they are. For a teacher that was mended.",
    )
    mode: Literal["online", "batch"] = Field(
        "online", description="batch: the endpoint's Batch API, at half the price, within a day."
    )

    def operator_options(self, teacher: TeacherModel) -> dict[str, Any]:
        """The options as an operator takes them; the embedded teacher bounds its own answers."""
        options = self.model_dump(exclude={"refresh", "retry_rejects", "mode"})
        return options | {"max_tokens": teacher.max_tokens(self.max_tokens)}
