# ruff: noqa: RUF001

import pytest

from rare_assets.operators.agreement import answers_agree


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        ("Helium", "helium"),
        ("  the Helium. ", "Helium"),
        ("An apple, a day", "apple day"),
        ("**Helium**", "helium"),
        ("The answer is helium.", "helium"),
        ("Final answer: helium", "Helium"),
        ("So, the correct answer is: the noble gas helium!", "Noble gas: Helium"),
        ("3.0", "3"),
        ("1,000", "1000"),
        ("0.50", ".5"),
        ("\\boxed{42}", "42"),
        ("$42$", "42"),
        ("The answer is \\boxed{42}.", "42.0"),
        ("\N{MINUS SIGN}3", "-3"),
        ("50 %", "50%"),
        ("3 m", "3.0 m"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "b"),
        ("**B**", "B"),
        ("Option B", "B"),
        ("The correct option is (B)", "B"),
        ("B) Helium", "B"),
        ("B", "B. Helium"),
        ("B: helium", "(B) Helium"),
        ("Helium", "B) Helium"),
        ("A", "a"),
        ("A. A small dose", "A"),
        ("COVID-19", "covid 19"),
        ("\N{FULLWIDTH DIGIT FOUR}2", "42"),
        ("Yes, since the trial ended early.", "yes"),
        ("**Yes.** The trial ended early.", "Yes"),
        ("The answer is no: nobody was asked.", "No."),
        ("maybe \N{EM DASH} the groups were small", "maybe"),
        ("Nein, der Versuch lief weiter.", "nein"),
        ("是，因为试验结束了。", "是"),
    ],
)
def test_answers_that_differ_in_form_alone_agree(given, gold):
    assert answers_agree(given, gold)
    assert answers_agree(gold, given)


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        ("Helium", "Neon"),
        ("not helium", "helium"),
        ("helium or neon", "helium"),
        ("3", "-3"),
        ("3", "3.1"),
        ("1,000", "1"),
        ("1/2", "12"),
        ("2 and 1", "1 and 2"),
        ("50%", "50"),
        ("C", "B"),
        ("C) Helium", "B"),
        ("C) Helium", "B) Helium"),
        ("A. Smith", "A. Jones"),
        ("A small dose", "A"),
        ("Be careful", "B"),
        ("I", "l"),
        ("", "B"),
        ("", ""),
        ("...", "!"),
        ("the answer", "B"),
        ("Yes and no", "yes"),
        ("Yes, but only in the second group, and no in the first.", "yes"),
        ("No, the trial ended.", "yes"),
        ("Yes, since the trial ended.", "Yes, since it rained."),
        ("Helium, neon and argon", "Helium"),
    ],
)
def test_answers_that_differ_in_content_do_not_agree(given, gold):
    assert not answers_agree(given, gold)
    assert not answers_agree(gold, given)
