import pytest

from rare_assets.teacher.finish import is_whole, unfinished
from rare_assets_tests.support.doubles import answer


@pytest.mark.parametrize(
    "word",
    [
        *("stop", "STOP", "Stop", " stop ", "FinishReason.STOP", "FINISH_REASON_STOP"),
        *("tool_calls", "function_call", "end_turn", "stop_sequence", "tool_use", "COMPLETE"),
        *("eos", "eos_token", "eosFound", "stopStringFound", "endoftext", "FINISH"),
    ],
)
def test_an_end_of_its_own_is_whole_however_it_is_written(word):
    assert is_whole(word)
    assert unfinished(answer("A", finish_reason=word)) is None


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        *((word, "cut") for word in ("length", "MAX_TOKENS", "model_length", "max_output_tokens")),
        *((word, "cut") for word in ("error", "abort", "insufficient_system_resource", "load")),
        *((word, "cut") for word in ("pause_turn", "FinishReason.MAX_TOKENS", "time_limit", "?")),
        *((word, "cut") for word in ("stopped_by_user", "unfinished", "not_finished", "ERROR")),
        ("content_filter", "content_filter"),
        ("content_filter: RECITATION", "content_filter"),
        ("FINISH_REASON_SAFETY", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("refusal", "content_filter"),
    ],
)
def test_every_other_word_is_some_way_of_having_been_stopped(word, reason):
    assert not is_whole(word)
    unusable = unfinished(answer("A", finish_reason=word))
    assert unusable.reason == reason
    assert word in unusable.detail
