"""The resources: fields win over the environment, secrets are shown nowhere, nothing is read too early."""

import asyncio

import pytest

from rare_assets.resources.configurable import Bm25Retriever, Corpus, Storage, TeacherModel
from rare_assets.retriever.elasticsearch.engine import ElasticsearchRetriever
from rare_assets.retriever.elasticsearch.errors import ElasticsearchError
from rare_assets.retriever.embedded.engine import EmbeddedRetriever
from rare_assets.settings import SAMPLE_CORPUS
from rare_assets.storage.tables import TableMissing
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.ports import free_port
from rare_assets_tests.support.rows import rows

SECRETS = {
    "OPENAI_API_KEY": "sk-h1dd3n",
    "ELASTICSEARCH_API_KEY": "es-h1dd3n",
    "ELASTICSEARCH_PASSWORD": "pw-h1dd3n",
}


@pytest.fixture
def storage(nothing_set, tmp_path):
    return Storage(root=str(tmp_path))


def test_a_field_wins_over_the_environment_which_is_read_when_a_run_starts(nothing_set, tmp_path):
    unset = Storage()
    nothing_set.setenv("RARE_STORAGE", str(tmp_path / "environment"))
    assert unset.tables().root == tmp_path / "environment"
    assert Storage(root=str(tmp_path / "field")).tables().root == tmp_path / "field"
    nothing_set.setenv("RARE_MODEL", "environment")
    assert TeacherModel(storage=unset).name == "environment"
    assert TeacherModel(storage=unset, model="field").name == "field"


def test_with_nothing_set_the_sample_corpus_is_read(nothing_set):
    assert Corpus().source().url == str(SAMPLE_CORPUS)


def test_the_name_of_the_embedded_teacher_is_known_without_asking_it(storage):
    assert TeacherModel(storage=storage).name == "SmolLM2-135M-Instruct (embedded)"


def test_only_the_embedded_teachers_answers_are_bounded_by_default(storage):
    embedded = TeacherModel(storage=storage)
    assert embedded.max_tokens(None)
    assert embedded.max_tokens(7) == 7
    assert TeacherModel(storage=storage, model="m").max_tokens(None) is None


def test_requests_in_flight_are_few_for_the_embedded_teacher_whatever_is_set(nothing_set, storage):
    embedded, endpoint = TeacherModel(storage=storage), TeacherModel(storage=storage, model="m")
    assert (embedded.in_flight, endpoint.in_flight) == (2, 64)
    nothing_set.setenv("RARE_MAX_CONCURRENCY", "256")
    assert (embedded.in_flight, endpoint.in_flight) == (8, 256)
    assert TeacherModel(storage=storage, model="m", max_concurrency=3).in_flight == 3


def test_a_storage_may_be_the_url_of_a_folder(nothing_set, tmp_path):
    url = f"file://{tmp_path}/new storage"
    nothing_set.setenv("RARE_STORAGE", url)
    for storage in (Storage(), Storage(root=url)):
        assert storage.location == f"{tmp_path}/new storage"
        storage.tables().write("documents", "a", rows("documents", {}))
    assert (tmp_path / "new storage/documents/a.parquet").exists()
    nothing_set.setenv("RARE_STORAGE", f"file://{tmp_path}")
    assert Storage(dataset="legal").location == f"{tmp_path}/legal"


def test_the_content_hash_of_a_missing_shard_says_what_to_make(storage):
    with pytest.raises(TableMissing, match="Materialize documents for shard 'a'"):
        storage.content_hash("documents", "a")
    stored = storage.tables().write("documents", "a", rows("documents", {}))
    assert storage.content_hash("documents", "a") == stored.content_hash


def test_the_engine_follows_the_url(nothing_set, storage):
    with Bm25Retriever(storage=storage).open() as engine:
        assert isinstance(engine, EmbeddedRetriever)
    nothing_set.setenv("ELASTICSEARCH_URL", "http://127.0.0.1:9")
    with Bm25Retriever(storage=storage).open() as engine:
        assert isinstance(engine, ElasticsearchRetriever)


def test_how_long_a_server_is_waited_for_is_a_setting(nothing_set, storage):
    url = f"http://127.0.0.1:{free_port()}"
    nothing_set.setenv("RARE_ELASTICSEARCH_WAIT", "0.2")
    by_setting = Bm25Retriever(storage=storage, elasticsearch_url=url)
    with by_setting.open() as engine, pytest.raises(ElasticsearchError, match=r"for 0\.2 s"):
        engine.state()
    by_field = Bm25Retriever(storage=storage, elasticsearch_url=url, wait=0)
    with by_field.open() as engine, pytest.raises(ElasticsearchError, match="for 0 s"):
        engine.state()
    with (
        by_setting.open(first_wait=0.1) as engine,
        pytest.raises(ElasticsearchError, match=f"no Elasticsearch at {url}"),
    ):
        engine.state()


def test_secrets_are_in_the_repr_of_no_resource_and_of_nothing_they_open(nothing_set, storage):
    for name, value in SECRETS.items():
        nothing_set.setenv(name, value)
    nothing_set.setenv("ELASTICSEARCH_USERNAME", "elastic")
    nothing_set.delenv("ELASTICSEARCH_API_KEY")
    teacher = TeacherModel(storage=storage, model="m", base_url="http://127.0.0.1:9/v1")
    retriever = Bm25Retriever(storage=storage, elasticsearch_url="http://127.0.0.1:9")
    shown = [repr(resource) for resource in (storage, teacher, retriever, Corpus())]

    async def opened():
        async with teacher.open() as model:
            return repr(model), repr(vars(model))

    shown += asyncio.run(opened())
    with retriever.open() as engine:
        shown += repr(engine), repr(vars(engine))
    assert [text for text in shown if "h1dd3n" in text] == []


def test_the_endpoint_is_called_with_the_environments_key(nothing_set, storage):
    from rare_assets.teacher.interface import Ask

    nothing_set.setenv("OPENAI_API_KEY", "sk-h1dd3n")

    async def ask(url):
        async with TeacherModel(storage=storage, model="m", base_url=url).open() as teacher:
            asked = [Ask(key="k", messages=({"role": "user", "content": "Why?"},))]
            return [
                outcome.value
                async for outcome in teacher.ask_all(asked, lambda _, answer: answer.content)
            ]

    with FakeEndpoint(key="sk-h1dd3n") as endpoint:
        (answer,) = asyncio.run(ask(endpoint.url))
    assert answer
    assert endpoint.requests[0].headers["authorization"] == "Bearer sk-h1dd3n"


def test_batches_need_an_endpoint(storage):
    async def opened():
        async with TeacherModel(storage=storage).open(batch=True):
            pass

    with pytest.raises(ValueError, match="RARE_MODEL"):
        asyncio.run(opened())
