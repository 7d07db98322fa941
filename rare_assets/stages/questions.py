"""Questions: the options of a shard's asking."""

from pydantic import Field

from rare_assets.stages.asking import AskingConfig


class QuestionsConfig(AskingConfig):
    """What is asked of the teacher for each document."""

    num_questions: int = Field(1, ge=1, description="Questions per document.")
    min_words: int = Field(
        20, ge=0, description="Documents of fewer words get no question: they go to the rejects."
    )
    seed: int | None = Field(None, description="Sampling seed. Default: none is sent.")
