"""Prompts that an endpoint cut, told from the token counts that are stored."""

import pytest

PASSAGE = (
    "The brine in the pores freezes at a lower temperature than water does, so the road stays wet. "
)


def reasoned(number, said, times=30, attempts=1):
    return {
        "question_id": f"d{number}-q0",
        "doc_id": f"d{number}",
        "text": PASSAGE * times + str(number),
        "hard_negatives": [PASSAGE * times, PASSAGE * (times + number)],
        "prompt_tokens": said * attempts,
        "attempts": attempts,
    }


@pytest.mark.parametrize(
    ("rows", "cut"),
    [
        ([reasoned(n, 2_100 + 5 * n) for n in range(4)], 0),
        ([reasoned(n, 1_900 + 70 * n) for n in range(4)], 0),  # fewer tokens than four bytes each
        ([reasoned(n, 700) for n in range(2)], 2),
        ([reasoned(0, 700, attempts=3), reasoned(1, 2_300)], 1),
        ([reasoned(n, 2_048) for n in range(4)], 4),  # the same whatever their length
        ([reasoned(n, 2_048) for n in range(2)], 0),
        ([reasoned(n, 5, times=1) for n in range(4)], 0),  # too short to tell
    ],
)
def test_prompts_that_were_cut_are_told_by_their_tokens(stored, rows, cut):
    stored.write("reasoning", *rows)
    judgement = stored.judge("reasoning", "prompts_read_whole")
    assert judgement.metadata["cut_prompts"] == cut
    assert judgement.passed == (cut == 0)
    assert judgement.severity.value == "WARN"
