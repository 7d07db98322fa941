import pytest

from rare_assets.operators.agreement import answers_agree

# Pairs that math-verify takes for equal as well, or that only their notation keeps apart.
EQUAL = [
    (r"\boxed{\frac{3}{4}}", "3/4"),
    (r"\boxed{\boxed{\dfrac{3}{4}}}", r"$\frac34$"),
    (r"The answer is $\boxed{\tfrac{3}{4}}$.", "0.75"),
    (r"\text{(C)}", "C"),
    (r"\boxed{\text{(C)}}", "(c)"),
    (r"\mathbf{B}", "B"),
    (r"\boxed{\textbf{(B)}\ 12}", "B"),
    ("1{,}000", "1000"),
    (r"1\,000", "1,000"),
    (r"\$1{,}000{,}000", "1000000"),
    ("1e-3", "0.001"),
    ("1E3", "1000"),
    (r"3 \times 10^{-3}", "0.003"),
    (r"2.5\cdot10^{4}", "25,000"),
    (r"\frac12", "0.5"),
    (r"2\frac{1}{2}", "5/2"),
    (r"-\frac{1}{2}", "-0.5"),
    (r"\frac{-1}{2}", "-0.5"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    (r"\sqrt[3]{27}", "3"),
    (r"\left(\frac{1}{2}\right)^2", "1/4"),
    (r"50\%", "0.5"),
    ("x = 5", "5"),
    (r"30^\circ", "30"),
    (r"2\pi r", r"r \cdot 2 \pi"),
    ("(x+1)^2", "x^2+2x+1"),
    ("\N{MINUS SIGN}4", "-4"),
    (r"10^{-2}", "0.01"),
    ("5 m", "5m"),
]
DIFFERENT = [
    (r"\frac{3}{4}", r"\frac{4}{3}"),
    (r"\text{(C)}", "B"),
    ("1{,}000", "1{,}001"),
    ("1e-3", "1e3"),
    ("12 apples", "12 pears"),
    ("It melts at 5 degrees in 1990", "It melts at 6 degrees in 1990"),
    (r"50\%", "50"),
    (r"\sqrt{2}", "1.414"),
    ("x^2", "x^3"),
    ("1/0", "1"),
    (r"10^{10^{10}}", "1"),
    (r"9^{9^{9^{9}}}", r"9^{9^{9^{8}}}"),
    ("5 m", "5 s"),
    ("(1,2)", "(2,1)"),
    ("x = 5", "x = 6"),
    ("", "0"),
    ("pi", "3.14"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_answers_that_only_notation_keeps_apart_agree(one, other):
    assert answers_agree(one, other)
    assert answers_agree(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_answers_of_other_values_do_not(one, other):
    assert not answers_agree(one, other)
    assert not answers_agree(other, one)


@pytest.mark.parametrize(
    "text", ["(" * 200_000, "{" * 200 + "2" + "}" * 200, "2^" * 100 + "2", r"\frac" * 60]
)
def test_what_is_no_formula_is_no_trouble(text):
    assert not answers_agree(text, "1")
