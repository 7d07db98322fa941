"""Settings of a corpus' own: which there are, and that their values are looked at when it is defined."""

import dagster as dg
import pytest

from rare_assets.resources.configurable import Corpus, Storage, TeacherModel
from rare_assets.resources.corpus_settings import CORPUS_SETTINGS, checked
from rare_assets.resources.settable import resolved
from rare_assets.settings import THRESHOLDS, Settings
from rare_assets_tests.test_settings import SECRETS

# Of the machine, the instance or the code location, and who is told.
DEPLOYMENTS = {
    "shards_at_once",
    "elasticsearch_username",
    "ui_url",
    "cache",
    "job_tags",
    "config",
    "dagster_home",
}


def test_every_setting_is_a_corpus_own_or_the_deployments():
    assert set(CORPUS_SETTINGS) | DEPLOYMENTS | set(SECRETS.values()) == set(Settings.model_fields)
    assert not set(CORPUS_SETTINGS) & (DEPLOYMENTS | set(SECRETS.values()))
    assert set(THRESHOLDS) <= set(CORPUS_SETTINGS)
    assert all(field.description for _, field in CORPUS_SETTINGS.values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sorce": "x"}, "settings of the dataset legal: there is no sorce; there are storage, "),
        ({"RARE_SOURCE": "x"}, "there is no RARE_SOURCE"),
        ({"shards_at_once": 2}, "shards_at_once is the deployment's, or a secret: .*RARE_SHARDS"),
        ({"openai_api_key": "sk-h1dd3n"}, "openai_api_key is .* a secret: .*OPENAI_API_KEY"),
        ({"max_concurrency": 0}, "max_concurrency: Input should be greater than or equal to 1"),
        ({"max_reject_rate": 2}, "max_reject_rate: Input should be less than or equal to 1"),
        ({"structured_output": "xml"}, "structured_output: String should match pattern"),
        ({"max_quoting_rate": dg.EnvVar("X")}, "max_quoting_rate: Input should be a valid number"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_with_its_name_and_reason(settings, words):
    with pytest.raises(ValueError, match=words) as raised:
        checked(settings, "legal")
    assert "h1dd3n" not in str(raised.value)


def test_values_are_as_the_settings_take_them():
    given = {"max_requests": "12", "split_rows": "true", "model": None, "max_reject_rate": 0}
    assert checked(given, None) == {
        "max_requests": 12,
        "split_rows": True,
        "model": None,
        "max_reject_rate": 0.0,
    }
    later = {"max_requests": dg.EnvVar.int("N"), "source": dg.EnvVar("S")}
    assert checked(later, None) == later


def test_a_resource_refuses_what_its_setting_refuses(nothing_set):
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Corpus(rows_per_shard=0)
    with pytest.raises(ValueError, match="should match pattern"):
        TeacherModel(storage=Storage(), structured_output="xml")


def test_environment_variables_of_a_resource_are_read_as_when_a_run_starts(nothing_set):
    teacher = TeacherModel(
        storage=Storage(root=dg.EnvVar("TABLES")), max_requests=dg.EnvVar.int("MOST")
    )
    with pytest.raises(ValueError, match="variable TABLES is not set"):
        resolved(teacher)
    nothing_set.setenv("TABLES", "/tables")
    nothing_set.setenv("MOST", "7")
    told = resolved(teacher)
    assert (told.storage.location, told.max_requests) == ("/tables", 7)
    nothing_set.setenv("MOST", "0")
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        resolved(teacher)
    plain = TeacherModel(storage=Storage())
    assert resolved(plain) is plain
