"""The reward for verl, as the trainer runs it: a file by itself, in a Python without this package."""

import ast
import json
import subprocess
import sys
from collections import Counter

import pytest

from rare_assets.exports.reward import reward_module

CASES = [
    ("<think>Zinc dissolves.</think><answer>Zinc</answer>", "zinc.", 1.0),
    ("<think>a</think>\n<answer>The answer is 1,000</answer>", "1000", 1.0),
    ("Reasoning first. <answer>copper", "Copper", 1.0),
    ("<answer>copper</answer> no: <answer>zinc</answer>", "zinc", 1.0),
    ("<think>a</think><answer>B</answer>", "(B) Helium", 1.0),
    ("<think>a</think><answer>copper</answer>", "zinc", 0.0),
    ("<think>a</think><answer>-x</answer>", "x", 0.0),
    ("<think>a</think>zinc", "zinc", 0.0),
    ("<think>It may be <answer>zinc</answer>", "zinc", 0.0),
    ("<think><answer>zinc</answer></think><answer>copper</answer>", "zinc", 0.0),
    ("", "zinc", 0.0),
    ("<answer></answer>", "zinc", 0.0),
]


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    (folder / "reward.py").write_text(reward_module())
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from reward import compute_score\n"
        "print(json.dumps([compute_score('rare_assets', said, gold, {'split': 'train'}) "
        "for said, gold, _ in json.loads(sys.argv[2])]))"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(folder), json.dumps(CASES)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_it_scores(scores, number):
    assert scores[number] == CASES[number][2]


def test_no_name_of_the_modules_it_is_made_of_stands_for_two_things():
    names = Counter(
        name
        for node in ast.parse(reward_module()).body
        for name in (
            [node.name]
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            else [target.id for target in getattr(node, "targets", [])]
        )
    )
    assert [name for name, count in names.items() if count > 1] == []
