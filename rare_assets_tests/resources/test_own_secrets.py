"""Secrets of a dataset: its own go before the environment's, which go to the servers that the environment names."""

import pytest

from rare_assets.build import build_defs
from rare_assets.resources.configurable import Bm25Retriever, Storage, TeacherModel, teacher_of
from rare_assets.resources.own_secrets import secret_for
from rare_assets_tests.support.ephemeral import ephemeral_instance
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.passages import write_jsonl

GENERAL = "https://general.example/v1"


@pytest.mark.parametrize(
    ("dataset", "own", "general", "sent"),
    [
        ("legal", None, GENERAL, True),
        ("legal", "https://general.example/other/v1", GENERAL, True),
        ("legal", "https://user@GENERAL.example/v1 ", GENERAL, True),
        ("legal", "https://legal.example/v1", GENERAL, False),
        ("legal", "https://general.example:8443/v1", GENERAL, False),
        # The environment names no server: its key is for the one that the definitions name.
        ("legal", "https://legal.example/v1", None, True),
        (None, "https://legal.example/v1", GENERAL, True),
    ],
)
def test_the_environments_key_is_for_the_host_that_the_environment_names(
    nothing_set, dataset, own, general, sent
):
    nothing_set.setenv("OPENAI_API_KEY", "sk-general")
    found = secret_for(dataset, "openai_api_key", own, general)
    assert (found.get_secret_value() if found else None) == ("sk-general" if sent else None)
    nothing_set.setenv("LEGAL__OPENAI_API_KEY", "sk-legal")
    found = secret_for(dataset, "openai_api_key", own, general)
    assert found.get_secret_value() == ("sk-legal" if dataset else "sk-general")
    assert "sk-legal" not in repr(found)


def test_headers_of_a_dataset_are_looked_at_like_the_environments(nothing_set):
    nothing_set.setenv("LEGAL_EU__RARE_EXTRA_HEADERS", "X-Team: h1dd3n")
    with pytest.raises(ValueError, match="JSON object of texts") as raised:
        secret_for("legal-eu", "extra_headers", None, None)
    assert "h1dd3n" not in str(raised.value)


def test_each_corpus_endpoint_gets_its_own_secrets_and_no_other(nothing_set, tmp_path):
    write_jsonl(tmp_path / "source" / "a.jsonl", range(2))
    (tmp_path / "instance").mkdir()
    instance = ephemeral_instance(tmp_path / "instance")
    for variable, value in {
        "RARE_STORAGE": str(tmp_path / "storage"),
        "RARE_SOURCE": str(tmp_path / "source"),
        "RARE_MODEL": "fake-teacher",
        "OPENAI_API_KEY": "sk-general",
        "RARE_QUESTIONS_API_KEY": "sk-questions",
        "RARE_EXTRA_HEADERS": '{"X-Gateway": "general"}',
        "LEGAL__OPENAI_API_KEY": "sk-legal",
        "LEGAL__RARE_EXTRA_HEADERS": '{"X-Gateway": "legal"}',
    }.items():
        nothing_set.setenv(variable, value)
    sent = {}
    for name in ("legal", "wiki", "general"):
        with FakeEndpoint() as general, FakeEndpoint() as own:
            nothing_set.setenv("OPENAI_BASE_URL", general.url)
            settings = {} if name == "general" else {"openai_base_url": own.url}
            defs = build_defs(name=name, settings=settings)
            instance.add_dynamic_partitions(f"{name}_rare_document_shards", ["a.jsonl"])
            result = defs.resolve_job_def(f"{name}_questions_job").execute_in_process(
                instance=instance, partition_key="a.jsonl"
            )
            assert result.success
            asked, other = (general, own) if name == "general" else (own, general)
            assert (len(asked.requests), len(other.requests)) == (2, 0)
            headers = {k.lower(): v for k, v in asked.requests[0].headers.items()}
            sent[name] = headers.get("authorization"), headers.get("x-gateway")
    assert sent["legal"] == ("Bearer sk-legal", "legal")
    assert sent["general"] == ("Bearer sk-questions", "general")
    key, gateway = sent["wiki"]
    assert "sk-" not in (key or "")
    assert gateway is None


def test_a_stage_of_a_dataset_may_have_a_key_of_its_own_alone(nothing_set):
    nothing_set.setenv("LEGAL__RARE_JUDGE_API_KEY", "sk-judge")
    teacher = TeacherModel(storage=Storage(), dataset="legal", model="m")
    assert teacher_of(teacher, "judge").role == "judge"
    assert teacher_of(teacher, "questions") is teacher
    other = TeacherModel(storage=Storage(), dataset="wiki", model="m")
    assert teacher_of(other, "judge") is other


def test_a_cluster_of_a_datasets_own_gets_its_own_credentials(nothing_set, monkeypatch):
    given = {}

    class Recording:
        def __init__(self, url, index, **how):
            given[url] = how["username"], how["password"] and how["password"].get_secret_value()

        def close(self):
            pass

    monkeypatch.setattr("rare_assets.retriever.ElasticsearchRetriever", Recording)
    nothing_set.setenv("ELASTICSEARCH_URL", "https://general.example:9200")
    nothing_set.setenv("ELASTICSEARCH_USERNAME", "elastic")
    nothing_set.setenv("ELASTICSEARCH_PASSWORD", "general")
    nothing_set.setenv("LEGAL__ELASTICSEARCH_USERNAME", "lawyer")
    for dataset, url in (("legal", "https://legal.example"), ("wiki", "https://wiki.example")):
        with Bm25Retriever(storage=Storage(), dataset=dataset, elasticsearch_url=url).open():
            pass
    with Bm25Retriever(storage=Storage(), dataset="wiki").open():
        pass
    assert given == {
        "https://legal.example": ("lawyer", None),
        "https://wiki.example": (None, None),
        "https://general.example:9200": ("elastic", "general"),
    }
