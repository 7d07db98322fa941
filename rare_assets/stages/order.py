"""The stages in their order, and which of them ask: for whatever goes over all of them."""

from rare_assets.stages import hard_negatives, questions, reasoning

_AFTER_DOCUMENTS = (questions, hard_negatives, reasoning)
# What is made of a shard's documents; each may ask the teacher or its judge.
AFTER_DOCUMENTS = tuple(stage.NAME for stage in _AFTER_DOCUMENTS)
# Those that ask the teacher whatever their options are.
ASKING = tuple(stage.NAME for stage in _AFTER_DOCUMENTS if stage.ASKS)
# The prompt that each asks with.
PROMPTS = {stage.NAME: stage.PROMPT for stage in _AFTER_DOCUMENTS}
