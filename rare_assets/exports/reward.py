"""Write the reward that goes with verl's rows: a module of its own that needs nothing but Python."""

from __future__ import annotations

import ast
from importlib.resources import files

_HEAD = '''"""Reward for verl: 1.0 where the answer agrees with the gold answer but for its form, else 0.0.

Name it to the trainer with

    custom_reward_function.path=verl/reward.py custom_reward_function.name=compute_score

Written by rare-assets export; it needs nothing but Python.
"""

from __future__ import annotations
'''
_TAIL = '''

_PART = re.compile(r"<answer>(.*?)(?:</answer>|\\Z)", re.DOTALL | re.IGNORECASE)
_CHAIN_END = re.compile(r"\\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **others):
    """Return 1.0 if the last <answer> part after the chain of thought agrees with `ground_truth`.

    An answer without the part, or inside a chain that never ends, earns nothing: the prompt asks for
    it, and a reward for any text that mentions the answer would be easy to gain.
    """
    said = _CHAIN_END.sub("", solution_str)
    if re.search(r"<think(?:ing)?>", said, re.IGNORECASE):
        return 0.0
    parts = _PART.findall(said)
    return 1.0 if parts and answers_agree(parts[-1], ground_truth) else 0.0
'''


# How answers are compared in the graph, the modules that others import first.
_COMPARED = ("mathematics.py", "notation.py", "agreement.py")


def reward_module() -> str:
    """Return the module's text: how answers are compared in the graph, and verl's four arguments."""
    operators = files("rare_assets") / "operators"
    compared = [_body((operators / name).read_text(encoding="utf-8")) for name in _COMPARED]
    return "\n".join([_HEAD, *compared]) + _TAIL


def _body(source: str) -> str:
    """Return a module's code without its docstring, and without imports of what stands above it."""
    lines = source.splitlines(keepends=True)
    for node in ast.parse(source).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_above = isinstance(node, ast.ImportFrom) and (
            node.module == "__future__" or (node.module or "").startswith("rare_assets.")
        )
        if is_docstring or is_above:
            assert node.end_lineno is not None
            for number in range(node.lineno - 1, node.end_lineno):
                lines[number] = ""
    return "".join(lines).lstrip("\n")
