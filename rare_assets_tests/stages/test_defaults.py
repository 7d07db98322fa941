"""Options of a deployment: the defaults of every run, wherever they are given, and under what goes over them."""

import dagster as dg
import pytest

from rare_assets.build import build_defs
from rare_assets.resources.dataset import UNNAMED, Dataset
from rare_assets.resources.settable import resolved
from rare_assets.stages.hard_negatives import HardNegativesConfig
from rare_assets.stages.options import (
    Options,
    OptionsError,
    deployment_configs,
    run_config_check,
    teacher_for,
)
from rare_assets.stages.provenance import options_of
from rare_assets.stages.questions import QuestionsConfig
from rare_assets_tests.support.graph import Graph, failure_text, metadata
from rare_assets_tests.support.passages import write_jsonl

FILE = """
ops:
  questions:
    config: {min_words: 3, lengths: [short]}
  hard_negatives:
    config: {num_neg: 5}
"""


@pytest.fixture
def rare_config(nothing_set, tmp_path):
    """Set RARE_CONFIG to a file of this text."""

    def set_to(text):
        path = tmp_path / "options.yaml"
        path.write_text(text)
        nothing_set.setenv("RARE_CONFIG", str(path))
        return path

    return set_to


def launchpad(defs, op, job="rare_job"):
    """The defaults that the Launchpad shows for the options of a step."""
    fields = defs.resolve_job_def(job).graph.node_named(op).definition.config_schema.config_type
    return {
        name: field.default_value for name, field in fields.fields.items() if field.default_provided
    }


def test_the_file_gives_the_defaults_that_the_launchpad_shows(rare_config):
    rare_config(FILE)
    defs = build_defs()
    assert launchpad(defs, "hard_negatives")["num_neg"] == 5
    shown = launchpad(defs, "questions")
    assert (shown["min_words"], shown["lengths"], shown["num_questions"]) == (3, ["short"], 1)


def test_a_datasets_own_options_go_over_the_file(rare_config):
    rare_config(FILE)
    defs = build_defs(name="legal", options={"hard_negatives": {"num_neg": 7}})
    assert launchpad(defs, "legal__hard_negatives", "legal_rare_job")["num_neg"] == 7
    assert launchpad(defs, "legal__questions", "legal_rare_job")["min_words"] == 3


@pytest.mark.parametrize(
    "options",
    [
        {"questions": {"min_words": 3}},
        {"questions": {"config": {"min_words": 3}}},
        {"ops": {"questions": {"config": {"min_words": 3}}}},
        {"ops": {"legal__questions": {"config": {"min_words": 3}}}},
    ],
)
def test_options_are_given_by_asset_or_as_run_config(nothing_set, options):
    configs = deployment_configs(Dataset.of("legal"), options)
    assert configs.get(QuestionsConfig)().min_words == 3


def test_a_runs_own_config_goes_over_them(rare_config):
    rare_config(FILE)
    configs = deployment_configs(UNNAMED)
    run_config = {"ops": {"hard_negatives": {"config": {"query": "fused"}}}}
    options = Options.from_run_config(run_config, UNNAMED, configs).hard_negatives
    assert (options.num_neg, options.query) == (5, "fused")
    run_config["ops"]["hard_negatives"]["config"]["num_neg"] = 1
    assert Options.from_run_config(run_config, UNNAMED, configs).hard_negatives.num_neg == 1


def test_bounds_still_hold_and_what_is_recorded_is_the_same_as_of_a_run_that_says_so(rare_config):
    rare_config(FILE)
    configs = deployment_configs(UNNAMED)
    with pytest.raises(OptionsError, match=r"ops.hard_negatives.config: num_neg"):
        Options.from_run_config(
            {"ops": {"hard_negatives": {"config": {"num_neg": 0}}}}, UNNAMED, configs
        )
    made = configs.get(HardNegativesConfig)()
    assert options_of(made) == options_of(HardNegativesConfig(num_neg=5))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ops: {question: {config: {}}}", "no asset question takes options"),
        ("ops: {questions: {config: {min_word: 3}}}", "ops.questions.config: no option min_word"),
        ("ops: {questions: {config: {min_words: many}}}", "ops.questions.config: min_words"),
        ("ops: {}\nexecution: {}", "execution: only options of assets, under ops"),
        ("ops: {}\nloggers: {}", "Dagster keeps no defaults for execution and loggers"),
        ("execution: {config: {}}", "go into a run's Launchpad or --config"),
        ("resources: {storage: {config: {root: /x}}}", "storage can't be other for one run"),
        ("resources: {taecher: {config: {}}}", "there is no taecher; there are storage"),
        ("resources: {teacher: {config: {modell: x}}}", "no field modell"),
        ("resources: {teacher: {config: {max_concurrency: 0}}}", "greater than or equal to 1"),
        ("- a", "not a mapping"),
        ("ops: [a]", "ops: give names with their config, not ['a']"),
        (
            "ops: {questions: 3}",
            "ops.questions: give its options by name, as {config: {...}}, not 3",
        ),
        ("ops: {questions: {config: x}}", "ops.questions: give its options by name"),
        ("questions: {config: 3}", "ops.questions: give its options by name"),
        ("resources: {teacher: gpt}", "resources.teacher: give its options by name"),
        ("a: [", "not YAML"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_fails_the_run_naming_file_and_field(
    rare_config, tmp_path, text, words
):
    path = rare_config(text or "")
    if text is None:
        path.unlink()
    graph = Graph(tmp_path / "graph")
    write_jsonl(graph.source / "a.jsonl", range(2))
    graph.register()
    dg.Definitions.validate_loadable(graph.defs)
    # What has no options goes on.
    assert graph.make("documents_job", "a.jsonl").success
    said = failure_text(graph.make("corpus_index_job"))
    assert said.startswith(f"RARE_CONFIG {path}")
    assert words in said
    with pytest.raises(OptionsError, match="RARE_CONFIG"):
        run_config_check(UNNAMED, deployment_configs(UNNAMED))({})


@pytest.mark.parametrize("teacher", ["teacher", "legal__teacher"])
def test_the_file_says_of_the_teacher_what_a_run_config_may_say(rare_config, nothing_set, teacher):
    nothing_set.setenv("RARE_MODEL", "of-the-environment")
    nothing_set.setenv("PLACE", "http://127.0.0.1:9/v1")
    rare_config(
        f"resources: {{{teacher}: {{config: {{model: of-the-file, max_concurrency: 3, "
        "base_url: {env: PLACE}}}}\nops: {questions: {config: {min_words: 3}}}"
    )
    defs = build_defs(name="legal", settings={"max_concurrency": 5})
    general = defs.resources["legal__teacher"]
    assert (general.name, general.base_url) == ("of-the-file", "http://127.0.0.1:9/v1")
    assert general.max_concurrency == 5
    # The Launchpad shows what the resource has.
    nothing_set.setenv("PLACE", "http://127.0.0.1:9/v1?code=s3cret")
    secret = build_defs(name="legal").resources["legal__teacher"]
    assert "s3cret" not in repr(secret)
    assert resolved(secret).base_url == "http://127.0.0.1:9/v1?code=s3cret"
    assert launchpad(defs, "legal__questions", "legal_rare_job")["min_words"] == 3
    run_config = {"resources": {"teacher": {"config": {"model": "of-the-run"}}}}
    assert teacher_for(run_config, general, Dataset.of("legal")).name == "of-the-run"


def test_an_option_may_need_what_only_the_other_one_says(rare_config):
    rare_config("ops: {hard_negatives: {config: {judge_relevance: true}}}")
    own = {"hard_negatives": {"relabel": True}}
    made = deployment_configs(Dataset.of("legal"), own).get(HardNegativesConfig)()
    assert (made.judge_relevance, made.relabel) == (True, True)
    rare_config("ops: {hard_negatives: {config: {judge_relevance: false}}}")
    with pytest.raises(OptionsError, match=r"options of the dataset legal: .*relabel needs"):
        deployment_configs(Dataset.of("legal"), own)


def test_a_datasets_options_that_cannot_be_used_are_told_when_it_is_loaded(nothing_set):
    with pytest.raises(
        OptionsError, match=r"options of the dataset legal: ops.questions.config: no"
    ):
        build_defs(name="legal", options={"questions": {"min_word": 3}})


def test_a_run_without_config_takes_them_and_says_so(rare_config, tmp_path):
    rare_config("ops: {corpus_index: {config: {k1: 1.5}}}")
    graph = Graph(tmp_path / "graph")
    write_jsonl(graph.source / "a.jsonl", range(2))
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    assert metadata(graph.make("corpus_index_job"), "corpus_index")["k1"] == 1.5
