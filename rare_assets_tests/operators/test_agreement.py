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


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        (r"-\frac{1}{2}", r"\frac{1}{2}"),
        (r"-\sqrt{2}", r"\sqrt{2}"),
        ("-x", "x"),
        ("2+3i", "2-3i"),
        (r"\frac{a}{b}", r"\frac{b}{a}"),
        ("2^3", "2*3"),
        ("5-3", "5+3"),
        ("–5", "5"),
        ("‑5", "5"),
        ("- 5", "5"),
        ("- 5 kg", "5 kg"),
        ("-$5", "$5"),
        ("F = -kx", "F = kx"),
        ("F = - kx", "F = kx"),
        ("F = kx + mg", "F = kx - mg"),
        (r"e^{-\lambda t}", r"e^{\lambda t}"),
        ("from -∞ to 0", "from ∞ to 0"),
        ("$x < 5$", "$x > 5$"),
        ("p<0.05", "p>0.05"),
        (r"p \leq 0.05", "p < 0.05"),
        ("≥18", "18"),
        ("18+", "18"),
        ("±5 kg", "5 kg"),
        ("AB+", "AB-"),
        ("AB-", "AB"),
        ("O+", "O-"),
        ("O+", "O"),
        ("K+", "K-"),
        ("Ca²⁺", "Ca"),
        ("C++", "C#"),
        ("C#", "C"),
        ("C++", "C"),
        ("€5", "£5"),
        ("$5", "€5"),
        ("A ∪ B", "A ∩ B"),
        ("10³", "103"),
        ("2³", "23"),
        ("10³ cells", "103 cells"),
        ("1½", "11/2"),
        ("(A) and (C)", "A"),
        ("A) and C", "A"),
        ("B) is wrong, C) is right", "B"),
        ("(C) -5", "5"),
        (r"(C) -\frac{1}{2}", r"(C) \frac{1}{2}"),
        ("Python 3.10", "Python 3.1"),
        ("It needs Python 3.10 or later", "It needs Python 3.1 or later"),
        ("v3.10", "v3.1"),
        ("192.168.1.10", "192.168.1.1"),
    ],
)
def test_signs_and_operators_tell_answers_apart(given, gold):
    assert not answers_agree(given, gold)
    assert not answers_agree(gold, given)


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        ("‑5", "-5"),
        ("- 5 kg", "−5 kg"),
        ("F = - kx", "F = −kx"),
        ("-€5", "€-5"),
        ("+5 V", "5 V"),
        ("10³", "10^3"),
        ("10³ cells", "10^{3} cells"),
        ("5 cm²", "5 cm2"),
        ("5 cm^2", "5 cm²"),
        ("Ca²⁺", "Ca2+"),
        ("Na^{+}", "Na+"),
        ("AB+", "(AB+)"),
        ("C♯", "C#"),
        ("p ≤ 0.05", r"$p \le 0.05$"),
        ("p <= 0.05", "p≤0.05"),
        ("½", "1/2"),
        ("5", "$5"),
        ("5", "€5"),
        ("$5", r"\$5"),
        ("$5$", "€5"),
        ("well-known", "well known"),
        ("well‑known", "well-known"),
        ("pre- and post-war", "pre and post war"),
        ("Vor- und Nachteile", "Vor und Nachteile"),
        ("range 5-10", "range 5–10"),
        ("range 5 - 10", "range 5-10"),
        ("1914-18", "1914/18"),
        ("2024-01-05", "2024/1/5"),
        ("05.10.2024", "5.10.2024"),
        ("Helium – a gas – rises", "Helium, a gas, rises"),
        ("- helium\n- neon", "helium, neon"),
        ("-helium\n-neon", "helium, neon"),
        ("+ helium\n+ neon", "helium, neon"),
        ("- 5 apples\n- 3 pears", "5 apples, 3 pears"),
        ("> Helium", "helium"),
        ("COVID-19", "COVID–19"),
        ("X-ray", "x ray"),
        ("A -> B", "A → B"),
        ("3.10", "3.1"),
        ("3.10 kg", "3.1 kg"),
        ("Python 3.10", "python v3.10"),
        ("Python 3.0", "Python 3"),
        ("A) sin (x)", "A"),
        ("B) Hepatitis (b)", "B"),
        ("A. Vitamin C.", "A"),
        ("(C) -5", "C"),
        (r"(C) \frac{1}{2}", r"\frac{1}{2}"),
        ("B) Both (A) and (C)", "B"),
        ("“B”", "B"),
    ],
)
def test_marks_that_are_no_signs_do_not_count(given, gold):
    assert answers_agree(given, gold)
    assert answers_agree(gold, given)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "mark",
    [
        *(
            " ",
            "\n",
            "-",
            "- ",
            "a- ",
            "\n- ",
            "+",
            "1",
            "1.",
            "1,",
            ".",
            "^",
            "^{",
            "²",
            "<",
            "=",
            "$",
        ),
        *("> ", "\\", "(", "A) ", "python 1", "a"),
    ],
)
def test_rows_of_marks_take_no_longer_than_other_text(mark):
    assert not answers_agree("x" + mark * 100_000 + "y", "Helium")
    assert not answers_agree(mark * 100_000, "Helium")
