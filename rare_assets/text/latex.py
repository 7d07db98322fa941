"""LaTeX that went through JSON with one backslash in place of two.

`"\\frac"` in JSON is a form feed and "rac". Models write it so: the control characters, which nobody
means, are turned back into the command that was meant.
"""

from __future__ import annotations

import re

# Commands that begin with a letter that JSON reads as an escape; the others are no valid JSON.
_COMMANDS = {
    "\t": "tan tanh tau tbinom text textbf textit textrm textsc textsf textstyle texttt tfrac theta "
    "therefore thetasym thickapprox thicksim tilde times to top triangle trianglelefteq "
    "trianglerighteq triangleleft triangleright tbinom twoheadrightarrow",
    "\n": "nabla natural ncong ne nearrow neg neq newline nexists ngeq ngtr ni nleq nless nmid "
    "nolimits nonumber normalsize not notag notin nparallel nprec nrightarrow nsim nsubseteq "
    "nsucc nsupseteq nu nvdash nVdash nvDash nwarrow",
    "\r": "rangle rbrace rbrack rceil rfloor rgroup rho right rightarrow rightharpoonup "
    "rightleftharpoons rightrightarrows rightsquigarrow rm root rtimes rule rvert rVert",
}
# What is left of these without its first letter is a word of its own, or may be: a line break
# before it is more likely than the command, unless the text has other mathematics.
_DOUBTFUL = frozenset(["tan", "to", "top", "tau", "ne", "neg", "ni", "nu", "rm"])
_LETTER = {"\t": "t", "\n": "n", "\r": "r", "\f": "f", "\b": "b"}
_SURE = re.compile(r"([\f\b])(?=[A-Za-z])")
_LIKELY = re.compile(r"([\t\n\r])([A-Za-z]+)")
_MATHEMATICS = re.compile(r"\$|\\[A-Za-z(\[{]|[_^]\{|[\f\b][A-Za-z]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# In a JSON string: a backslash before what JSON knows no escape for.
_NO_ESCAPE = re.compile(r"\\(u(?![0-9a-fA-F]{4})|[^\"\\/bfnrtu])", re.S)
_PAIR = re.compile(r"\\\\|" + _NO_ESCAPE.pattern, re.S)


def restored(text: str) -> str:
    """Restore the LaTeX commands that JSON's escapes had eaten, and remove control characters.

    >>> restored("\\x0crac{1}{2} \\theta and a line\\nbreak")
    '\\\\frac{1}{2} \\\\theta and a line\\nbreak'
    """
    if not any(character in text for character in "\t\n\r\f\b"):
        return without_control_characters(text)
    mathematics = _MATHEMATICS.search(text) is not None

    def likely(match: re.Match[str]) -> str:
        character, word = match[1], match[2]
        known = word_of(character, word)
        if known is None or (known in _DOUBTFUL and not mathematics):
            return match[0]
        return "\\" + _LETTER[character] + word

    text = _LIKELY.sub(likely, text)
    text = _SURE.sub(lambda match: "\\" + _LETTER[match[1]], text)
    return without_control_characters(text)


def word_of(character: str, rest: str) -> str | None:
    """Return the command that an escape and the letters after it make, if there is one."""
    command = _LETTER[character] + rest
    return command if command in _COMMANDS[character].split() else None


def with_escaped_backslashes(json_text: str) -> str:
    """Return a JSON text in which backslashes that begin no escape stand for themselves.

    >>> with_escaped_backslashes(r'{"q": "\\alpha \\\\beta"}')
    '{"q": "\\\\\\\\alpha \\\\\\\\beta"}'
    """
    return _PAIR.sub(_escaped, json_text)


def _escaped(match: re.Match[str]) -> str:
    if match[1] == "'":  # an escape in JavaScript
        return "'"
    return match[0] if match[1] is None else "\\" + match[0]


def without_control_characters(text: str) -> str:
    """Remove the control characters of a text but line breaks and tabs; halves of a surrogate pair
    become the replacement character."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", _CONTROL.sub("", text))
