import pytest

from rare_assets.operators.answers import require_whole
from rare_assets.operators.refusals import is_refusal
from rare_assets.teacher.interface import Unusable
from rare_assets_tests.support.doubles import answer


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but I cannot assist with this request.",
        "Sorry, I can't answer.",
        "I am really sorry, I am unable to do this.",
        "I apologize, but I cannot provide that information.",
        "I cannot fulfill this request.",
        "Unfortunately, I can't help.",
        "I'm unable to discuss this topic.",
        "As an AI language model, I have no opinion.",
        "  \n**I will not answer** that.",
    ],
)
def test_a_refusal_is_recognised(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "The core problem is whether salt lowers the freezing point.",
        "I'm sorry for the driver: the salt ran out. It melts ice by forming brine.",
        "I can answer this from the second document.",
        "Sorry sights aside, the bridge held.",
        "I cannot answer this at once. " + "First, look at the phase diagram of brine. " * 10,
        "",
    ],
)
def test_an_answer_is_not_taken_for_a_refusal(text):
    assert not is_refusal(text)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer("", refusal="not allowed"), "refused"),
        (answer("Half of", refusal="not allowed"), "refused"),
        (answer("Half of", finish_reason="content_filter"), "content_filter"),
        (answer("Half of", finish_reason="length"), "cut"),
        (answer("Half of", finish_reason="error"), "cut"),
        (answer("Half of", finish_reason="SAFETY"), "content_filter"),
        (answer(" \n"), "empty"),
        (answer("", thinking="A chain and no answer"), "empty"),
        (answer("I can't help with that."), "refused"),
    ],
)
def test_what_is_not_a_whole_answer_is_unusable(given, reason):
    with pytest.raises(Unusable) as caught:
        require_whole(given)
    assert caught.value.reason == reason


def test_a_whole_answer_passes():
    for word in ("stop", "end_turn", "EOS"):
        require_whole(answer("Salt makes brine.", finish_reason=word))
