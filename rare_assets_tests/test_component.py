"""The component: what a project's `defs.yaml` may say of a corpus, and what is told where it can't be used."""

import sys

import dagster as dg
import pytest
import yaml

from rare_assets.command.target import definitions_of, open_target

DEFINITIONS = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


@pytest.fixture
def project(nothing_set, tmp_path, request):
    """Make a project of components with these attributes; return the module of its definitions."""
    name = f"components_{abs(hash(request.node.name))}"
    folder = tmp_path / name
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "{name}"\n'
    )
    nothing_set.chdir(tmp_path)
    nothing_set.syspath_prepend(str(tmp_path))

    def make(*components):
        (folder / "defs").mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "defs" / "__init__.py").touch()
        (folder / "definitions.py").write_text(DEFINITIONS)
        for number, attributes in enumerate(components):
            component = {"type": "rare_assets.RareDataset", "attributes": attributes}
            path = folder / "defs" / f"corpus_{number}" / "defs.yaml"
            path.parent.mkdir()
            path.write_text(yaml.safe_dump(component))
        return f"{name}.definitions"

    yield make
    definitions_of.cache_clear()
    for module in [each for each in sys.modules if each.startswith(name)]:
        del sys.modules[module]


def test_a_corpus_has_thresholds_of_its_own_and_the_others_the_environments(project, nothing_set):
    nothing_set.setenv("RARE_MAX_REJECT_RATE", "0.2")
    nothing_set.setenv("QUOTING", "0.4")
    module = project(
        {"name": "legal", "max_quoting_rate": "{{ env.QUOTING }}", "block_reject_rate": 0},
        {"name": "wiki"},
    )
    legal, wiki = (open_target(module, name).dataset.threshold for name in ("legal", "wiki"))
    names = ("max_quoting_rate", "block_reject_rate", "max_reject_rate")
    assert [legal(name) for name in names] == [0.4, 0.0, 0.2]
    assert [wiki(name) for name in names] == [0.1, 0.5, 0.2]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"max_concurrency": 0}, "max_concurrency: Input should be greater than or equal to 1"),
        ({"max_reject_rate": 1.5}, "max_reject_rate: Input should be less than or equal to 1"),
        ({"structured_output": "xml"}, "structured_output: String should match pattern"),
        ({"shards_at_once": 2}, "attributes.shards_at_once"),
        (
            {"options": {"questions": 3}},
            "options of the dataset legal: ops.questions: give its options by name",
        ),
    ],
)
def test_an_attribute_that_cannot_be_used_is_told_when_it_is_loaded(project, attributes, words):
    module = project({"name": "legal", **attributes})
    with pytest.raises(Exception, match=words):
        open_target(module, "legal")


@pytest.mark.parametrize("second", ["a-b", "a_b"])
def test_two_components_of_one_name_are_told_apart_from_any_other_fault(project, second):
    module = project({"name": "a-b"}, {"name": second})
    with pytest.raises(Exception, match="Two components of type rare_assets"):
        open_target(module, None)


def test_a_prefix_of_several_parts_is_that_of_keys_and_of_nothing_else(project):
    module = project({"name": "legal", "key_prefix": ["team", "rare"]})
    defs = definitions_of(module)
    dg.Definitions.validate_loadable(defs)
    assert open_target(module, "legal").dataset.key("documents").path == [
        "team",
        "rare",
        "documents",
    ]
    assert "legal__storage" in defs.resources
