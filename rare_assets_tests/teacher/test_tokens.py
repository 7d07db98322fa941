import pytest

from rare_assets.teacher.interface import Ask
from rare_assets.teacher.tokens import estimated_prompt_tokens, is_cut, tokens_of

ASK = Ask("k", ({"role": "user", "content": "x" * 400},))


@pytest.mark.parametrize(
    ("usage", "prompt", "completion"),
    [
        ({"prompt_tokens": 90, "completion_tokens": 40, "total_tokens": 130}, 90, 40),
        # Reasoning within the completion, as OpenAI counts it.
        ({"prompt_tokens": 90, "completion_tokens": 40, "total_tokens": 130, "completion_tokens_details": {"reasoning_tokens": 30}}, 90, 40),
        # Beside it: more than there is room for, or told by the total, or only by the total.
        ({"prompt_tokens": 90, "completion_tokens": 40, "completion_tokens_details": {"reasoning_tokens": 300}}, 90, 340),
        ({"prompt_tokens": 90, "completion_tokens": 40, "total_tokens": 160, "completion_tokens_details": {"reasoning_tokens": 30}}, 90, 70),
        ({"prompt_tokens": 90, "completion_tokens": 40, "total_tokens": 160, "reasoning_tokens": 30}, 90, 70),
        ({"prompt_tokens": 90, "completion_tokens": 40, "total_tokens": 500}, 90, 410),
        ({"promptTokenCount": 90, "candidatesTokenCount": 40, "thoughtsTokenCount": 30, "totalTokenCount": 160}, 90, 70),
        # Anthropic counts what its cache held beside the input.
        ({"input_tokens": 10, "output_tokens": 40, "cache_read_input_tokens": 70, "cache_creation_input_tokens": 10}, 90, 40),
        ({"inputTokens": 90, "outputTokens": 40, "totalTokens": 130}, 90, 40),
    ],
)  # fmt: skip
def test_tokens_are_counted_as_each_server_tells_them(usage, prompt, completion):
    assert tokens_of(usage, "An answer.", ASK) == (prompt, completion, False)


def test_what_is_not_told_is_estimated_by_the_bytes_of_the_text():
    for usage in (None, {}, {"prompt_tokens": None, "completion_tokens": None}, "many"):
        assert tokens_of(usage, "x" * 40, ASK) == (101, 10, True)
    chinese = Ask("k", ({"role": "user", "content": "\N{CJK UNIFIED IDEOGRAPH-51B0}" * 400},))
    assert estimated_prompt_tokens(chinese) == 301


@pytest.mark.parametrize(
    ("said", "prompt", "cut"),
    [
        (2048, "Salt melts ice. " * 2_500, True),
        (9_000, "Salt melts ice. " * 2_500, False),
        (6_000, "Salt melts ice. " * 2_500, False),
        (100, "Salt melts ice. " * 100, False),  # too short to tell
        (1_000, "Salt" + " " * 20_000 + "melts" + "-" * 20_000 + "ice. " * 400, False),
    ],
)
def test_a_prompt_of_which_few_tokens_were_read_was_cut(said, prompt, cut):
    assert is_cut(said, prompt) == cut
