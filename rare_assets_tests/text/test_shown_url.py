"""What is secret in a setting that is a URL stands nowhere: messages, logs, metadata, reprs, event log."""

import logging
import traceback

import dagster as dg
import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from rare_assets.build import with_locations
from rare_assets.command.cli import main
from rare_assets.corpus.formats import SourceError
from rare_assets.files.stored_bytes import StorageError
from rare_assets.resources.configurable import Bm25Retriever, Corpus, Storage, TeacherModel
from rare_assets.resources.dataset import UNNAMED
from rare_assets.retriever.elasticsearch.errors import ElasticsearchError
from rare_assets.settings import Settings
from rare_assets.storage.tables import ParquetTables
from rare_assets.teacher.pricing import PriceError, Prices
from rare_assets.text.shown_url import is_clear, shown, shown_all, without_secrets
from rare_assets_tests.support.graph import Graph, failure_text
from rare_assets_tests.support.passages import write_jsonl

# Each half of a password is looked for, since a library may repeat what it took for a port or a path.
FIRST, SECOND = "Zq8first", "Xw7second"
BETWEEN = [
    "",
    "#",
    "/",
    ",",
    "@",
    "?",
    "%",
    "%2F",
    ":",
    "&",
    "=",
    "+",
    ";",
    " ",
    "\\",
    "//",
    "é",
    "[",
    "]",
    "$",
]
PASSWORDS = [f"{FIRST}{between}{SECOND}" for between in BETWEEN]

# Where a password may stand; port 9 on loopback refuses.
ODD = [
    *(f"{scheme}user:{password}@127.0.0.1:9{rest}"
      for scheme in ("http://", "https://", "", "//", "http:/", "nope://")
      for rest in ("", "/v1")
      for password in PASSWORDS),
    *(f"http://{password}@127.0.0.1:9" for password in (FIRST, f"{FIRST}@{SECOND}")),
    *(f"{base}?{name}={password}"
      for base in ("http://127.0.0.1:9", "http://127.0.0.1:9/v1", "127.0.0.1:9")
      for name in ("apikey", "sig", "X-Amz-Signature")
      for password in PASSWORDS),
    *(f"http://127.0.0.1:9/c.jsonl#{password}" for password in (FIRST, f"{FIRST}/{SECOND}")),
    f"http://user:12/{FIRST}@127.0.0.1:9",
    f"http://127.0.0.1:{FIRST}@127.0.0.1:9/{SECOND}@x",
]  # fmt: skip
STORES = [
    *(f"{scheme}key:{password}@bucket/rare"
      for scheme in ("nope://", "memory://", "abfs://", "gs://")
      for password in PASSWORDS),
    *(f"abfs://container@account.example/rare?sig={password}" for password in PASSWORDS),
    *(f"nope://bucket/rare?sig={password}" for password in PASSWORDS),
]  # fmt: skip

# Every fifth, which is each password in one form or another, where a try takes longer.
SOME = [setting for n, setting in enumerate((*ODD, *STORES)) if n % 5 == 0]
URLS = ("RARE_SOURCE", "RARE_STORAGE", "OPENAI_BASE_URL", "ELASTICSEARCH_URL", "RARE_PRICES")


def holds_secret(text):
    return FIRST in text or SECOND in text


def told(error):
    """All that a log or an event may hold of an error: its message, its causes, its repr."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        ("s3://bucket/rare/a@b.parquet", "s3://bucket/rare/a@b.parquet"),
        ("s3://key:secret@bucket/rare", "s3://bucket/rare"),
        ("simplecache::s3://key:secret@bucket/rare", "simplecache::s3://bucket/rare"),
        ("https://host:8443/a/b.jsonl?X-Amz-Signature=secret#part", "https://host:8443/a/b.jsonl"),
        ("http://[::1]:9200/", "http://[::1]:9200/"),
        ("user:secret@host:9200", "host:9200"),
        ("host:9200?apikey=secret", "host:9200"),
        ("http://user:sec/ret@host:9200", "http://…"),
        ("/data/2024/*.jsonl", "/data/2024/*.jsonl"),
        ("/data/what?.jsonl", "/data/what?.jsonl"),
        ("corpus@home/[a-c]#1", "corpus@home/[a-c]#1"),
    ],
)
def test_scheme_host_port_and_path_are_shown(setting, seen):
    assert shown(setting) == seen


def test_of_several_urls_each_is_shown():
    two = "http://elastic:a,b@one:9200, https://elastic:secret@two:9200/"
    assert shown_all(two) == "http://one:9200,https://two:9200/"


def test_no_odd_password_is_shown_or_left_in_what_a_library_says():
    leaks = []
    for setting in (*ODD, *STORES):
        said = [shown(setting), shown_all(setting), without_secrets(f"not {setting}", setting)]
        if f"{FIRST}{SECOND}" not in setting:
            port = f"Invalid port: '{FIRST}', no host in '{SECOND if SECOND in setting else ''}'"
            said.append(without_secrets(port, setting))
        leaks += [(setting, text) for text in said if holds_secret(text)]
    assert leaks == []


def test_a_password_written_as_it_should_be_is_clear():
    assert is_clear("http://user:a%2Fb%40c@host:9200")
    assert not is_clear("http://user:a/b@host:9200")


def resources(url):
    storage = Storage(root=url)
    return [
        storage,
        Corpus(url=url),
        TeacherModel(storage=storage, model="m", base_url=url, prices=url),
        Bm25Retriever(storage=storage, elasticsearch_url=url),
    ]


def test_no_repr_and_no_place_in_the_catalog_has_it(nothing_set, monkeypatch):
    leaks = []
    for setting in SOME:
        for name in URLS:
            monkeypatch.setenv(name, setting)
        storage, corpus, teacher, retriever = resources(setting)
        texts = [repr(Settings()), str(Settings()), storage.location, corpus.source().url]
        texts += [repr(each) for each in (storage, corpus, teacher, retriever, corpus.source())]
        places = {"corpus": corpus, "storage": storage, "retriever": retriever}
        (asset,) = with_locations([dg.AssetSpec("documents")], places, UNNAMED)
        texts.append(str(asset.metadata))
        leaks += [(setting, text) for text in texts if holds_secret(text)]
    assert leaks == []


@pytest.mark.parametrize("setting", SOME)
def test_elasticsearch_tells_nothing_of_it(setting, nothing_set, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    retriever = Bm25Retriever(
        storage=Storage(root=str(tmp_path)), elasticsearch_url=setting, wait=0.0
    )

    def look():
        with retriever.open(first_wait=0.0) as engine:
            assert not holds_secret(repr(engine))
            engine.state()

    with pytest.raises(ElasticsearchError) as raised:
        look()
    assert not holds_secret(told(raised.value))
    assert not holds_secret(caplog.text)


@pytest.mark.parametrize("setting", SOME)
def test_a_teacher_tells_nothing_of_it(setting, nothing_set):
    from rare_assets.teacher.endpoint import Endpoint
    from rare_assets.teacher.options import EndpointOptions, Limits

    try:
        endpoint = Endpoint(
            model="m",
            options=EndpointOptions(base_url=setting, api_key=SecretStr("key")),
            limits=Limits(),
            prices=Prices({}),
            halt=lambda _: None,
        )
        assert endpoint.client is not None
        said = f"{endpoint}{endpoint.redact(f'404 at {setting}/chat/completions')}"
    except ValueError as error:
        said = told(error)
    assert ("OPENAI_BASE_URL is '" in said) != ("the endpoint http" in said)
    assert not holds_secret(said)


@pytest.mark.parametrize("setting", [s for s in SOME if "nope://" in s or "://" not in s])
def test_storage_source_and_prices_tell_nothing_of_it(setting, nothing_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    if "://" in setting:
        with pytest.raises(StorageError) as raised:
            ParquetTables(setting)
        said.append(str(raised.value))
    with pytest.raises(SourceError) as unreachable:
        Corpus(url=setting).source().files()
    with pytest.raises(PriceError) as no_prices:
        Prices.load(setting)
    said += [str(unreachable.value), told(no_prices.value)]
    assert [text for text in said if holds_secret(text)] == []


@pytest.mark.parametrize("arguments", [["run"], ["status"], ["run", "--dry-run"]])
@pytest.mark.parametrize(
    "name", ["RARE_SOURCE", "RARE_STORAGE", "RARE_PRICES", "ELASTICSEARCH_URL"]
)
def test_the_command_tells_nothing_of_it(name, arguments, nothing_set, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RARE_ELASTICSEARCH_WAIT", "0")
    write_jsonl(tmp_path / "corpus" / "a.jsonl", range(3))
    monkeypatch.setenv("RARE_SOURCE", str(tmp_path / "corpus"))
    monkeypatch.setenv("RARE_STORAGE", str(tmp_path / "storage"))
    monkeypatch.setenv(name, f"nope://key:{FIRST}/{SECOND}@bucket/rare?sig={SECOND}")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert not holds_secret(result.output)


FAILING = {
    "corpus": lambda graph, url: {"corpus": Corpus(url=url)},
    "storage": lambda graph, url: {"storage": Storage(root=url)},
    "teacher": lambda graph, url: {
        "teacher": TeacherModel(storage=graph.storage, model="m", base_url=url, endpoint_wait=0.2)
    },
    "retriever": lambda graph, url: {
        "retriever": Bm25Retriever(storage=graph.storage, elasticsearch_url=url, wait=0.0)
    },
}


@pytest.mark.parametrize("name", FAILING)
def test_no_failing_run_leaves_it_in_the_instance_or_the_storage(name, nothing_set, tmp_path):
    graph = Graph(tmp_path)
    write_jsonl(graph.source / "a.jsonl", range(3))
    graph.register()
    graph.make("documents_job", "a.jsonl")
    job = {"teacher": "rare_job", "retriever": "corpus_index_job"}.get(name, "documents_job")
    (tmp_path / "home").mkdir()
    with dg.instance_for_test(temp_dir=str(tmp_path / "home")) as instance:
        graph.instance = instance
        instance.add_dynamic_partitions(UNNAMED.partitions_name, ["a.jsonl"])
        said = []
        for url in (
            f"nope://key:{FIRST}@127.0.0.1:9/c.jsonl?sig={SECOND}",
            f"http://key:{FIRST}/{SECOND}@127.0.0.1:9/c.jsonl",
            f"http://127.0.0.1:9/c.jsonl?sig={FIRST}&apikey={SECOND}#{FIRST}",
        ):
            for resource, value in FAILING[name](graph, url).items():
                setattr(graph, resource, value)
            graph.rebuild()
            shard = None if job == "corpus_index_job" else "a.jsonl"
            kept = ["questions"] if job == "rare_job" else []
            options = {"questions": {"min_words": 1}} if kept else {}
            result = graph.make(job, shard, *kept, **options)
            assert not result.success
            said.append(failure_text(result))
            said.append(str(list(result.all_events)))
    assert [text for text in said if holds_secret(text)] == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    found = [str(path) for path in files if holds_secret(path.read_bytes().decode("latin-1"))]
    assert found == []
