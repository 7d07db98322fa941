import json

import pytest

from rare_assets.text.latex import restored, with_escaped_backslashes


@pytest.mark.parametrize(
    "meant",
    [
        r"\frac{a}{b} \theta \nabla \beta",
        r"\alpha \sum_{i} \(x\) \[y\] \{z\} 50\% \, \; \! \_",
        r"\forall \text{if} \times \tau \tan x \rho \right) \bar{x} \boldsymbol{y}",
        r"$a \ne b$ and $x \to 0$, $\nu = 3$",
        r"\upsilon \underline{x} \uparrow",
        r"E = \hbar \omega \neq 0",
        r"\begin{pmatrix} 1 \end{pmatrix}",
    ],
)
def test_latex_with_one_backslash_is_what_was_meant(meant):
    written = f'{{"q": "{meant}"}}'
    read = json.loads(with_escaped_backslashes(written), strict=False)
    assert restored(read["q"]) == meant


@pytest.mark.parametrize(
    "text",
    [
        "One line\nand another\n\nnew paragraph\twith a tab.",
        "First\nnot a command\nnear it\neg this\ne poi?",
        "col1\tan apple\tor a pear\top zijn",
        "it costs $5\nand more",
        r"\frac{1}{2} written right, \\ too",
        'a "quoted" path C:\\\\temp',
    ],
)
def test_text_with_escapes_that_were_meant_stays(text):
    written = json.dumps({"q": text})
    assert with_escaped_backslashes(written) == written
    assert restored(text) == text


def test_control_characters_are_never_kept():
    assert restored("a\x00b\x07c\fd\x7f\r\nx\x0c 1") == "abc\\fd\nx 1"
    assert restored("half \ud83d") == "half \N{REPLACEMENT CHARACTER}"
