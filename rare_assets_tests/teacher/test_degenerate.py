import random

import pytest

from rare_assets.teacher.degenerate import is_degenerate

SENTENCE = "Salt lowers the freezing point of water, so the ice on the road melts into brine. "
PROSE = " ".join(
    f"Step {number}: the {random.Random(number).choice(['ice', 'brine', 'road', 'salt', 'truck'])} of "
    f"case {random.Random(-number).randrange(10**6)} takes part {number % 7} of the heat it gives."
    for number in range(80)
)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 4_000,
        "!" * 400,
        "\N{CJK UNIFIED IDEOGRAPH-51B0}" * 2_000,
        "the " * 300,
        SENTENCE * 300,
        SENTENCE * 10,
        "Wait, let me check.\n" * 40,
        PROSE + SENTENCE * 100,
        SENTENCE * 100 + PROSE,
        "\N{CJK UNIFIED IDEOGRAPH-51B0}\N{CJK UNIFIED IDEOGRAPH-4F1A}\N{CJK UNIFIED IDEOGRAPH-878D}"
        "\N{CJK UNIFIED IDEOGRAPH-5316}\N{CJK UNIFIED IDEOGRAPH-5417}\N{CJK UNIFIED IDEOGRAPH-5417}"
        "\N{IDEOGRAPHIC FULL STOP}" * 300,
    ],
)
def test_one_thing_again_and_again_is_degenerate(text):
    assert is_degenerate(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        SENTENCE,
        SENTENCE * 3,
        PROSE,
        "\n".join(f"| {n} | item {n} | {n * 3} |" for n in range(200)),
        PROSE + "\n" + "-" * 200 + "\n" + PROSE,
    ],
)
def test_prose_and_tables_are_not(text):
    assert not is_degenerate(text)
