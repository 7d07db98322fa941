from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from pydantic import BaseModel, Field, SecretStr

from rare_assets.teacher import wire
from rare_assets.teacher.address import endpoint_name
from rare_assets.teacher.batch.submissions import Submission, Submissions
from rare_assets.teacher.estimating import EstimatingTeacher
from rare_assets.teacher.health import Patience
from rare_assets.teacher.interface import Ask, TeacherStopped, Unusable
from rare_assets.teacher.pricing import Price, Prices
from rare_assets.teacher.store.answers import AnswerStore
from rare_assets.teacher.store.folder import Folder
from rare_assets.teacher.structured import structured_value
from rare_assets_tests.support.fake_batch_endpoint import FakeBatchEndpoint
from rare_assets_tests.support.fake_endpoint import FakeEndpoint, Fault, error_response
from rare_assets_tests.support.forked import Forked
from rare_assets_tests.support.servers import SHAPES, STRUCTURED_SHAPES
from rare_assets_tests.support.small_disk import fill, small_disk
from rare_assets_tests.support.teachers import in_batches, online

MODEL = "fake-model"
KEY = "sk-secret-0123456789"
QUICK = Patience(dead_after=0.3, stalled_after=5.0, tries=4, backoff=0.005, backoff_cap=0.02)
PRICES = Prices(
    {MODEL: Price(prompt_usd_per_million=1_000_000, completion_usd_per_million=2_000_000)}
)
SETTINGS = {"patience": QUICK, "poll_s": 0.01, "poll_cap_s": 0.02}


class Note(BaseModel):
    question: str = Field(min_length=3)


def ask(number, **settings):
    text = f"Write a question on passage {number}: rivers carry gravel downhill every spring."
    settings = {"schema": Note, **settings}
    return Ask(key=f"ask-{number}", messages=({"role": "user", "content": text},), **settings)


def asks(count, **settings):
    return [ask(number, **settings) for number in range(count)]


def note(_, answer):
    return structured_value(answer, Note)


class Result:
    def __init__(self, outcomes, usage, error):
        self.outcomes, self.usage, self.error = outcomes, usage, error
        self.by_key = {outcome.ask.key: outcome for outcome in outcomes}

    @property
    def keys(self):
        return sorted(outcome.ask.key for outcome in self.outcomes)

    @property
    def reasons(self):
        return {outcome.ask.key: outcome.reason for outcome in self.outcomes}


async def collect(teacher, wanted, use=note, **options):
    outcomes, error = [], None
    try:
        async for outcome in teacher.ask_all(wanted, use, **options):
            outcomes.append(outcome)  # noqa: PERF401 (kept when an error ends the loop)
    except TeacherStopped as stopped:
        error = stopped
    return Result(outcomes, teacher.usage, error)


def run(root, url, wanted, use=note, *, kind=in_batches, max_attempts=3, **settings):
    """All outcomes of one `ask_all` of a new teacher over the store at `root`."""

    async def main():
        given = {**(SETTINGS if kind is in_batches else {"patience": QUICK}), **settings}
        async with (
            AnswerStore(str(root)) as store,
            kind(model=MODEL, store=store, base_url=url, **given) as teacher,
        ):
            return await collect(teacher, wanted, use, max_attempts=max_attempts)

    return asyncio.run(main())


def keys_of(wanted, attempt=0):
    return [wire.answer_key(MODEL, one, attempt).hex() for one in wanted]


def stored(root):
    folder = root / "batches"
    return sorted(path.name for path in folder.glob("*.json"))


def until(condition):
    while not condition():
        time.sleep(0.005)


@pytest.fixture
def endpoint():
    with FakeBatchEndpoint() as endpoint:
        yield endpoint


def test_every_ask_is_answered_at_the_price_of_batches_and_once(tmp_path, endpoint):
    wanted = asks(30)
    first = run(tmp_path, endpoint.url, wanted, prices=PRICES)
    assert first.error is None
    assert first.keys == sorted(one.key for one in wanted)
    assert all(outcome.value.question for outcome in first.outcomes)
    assert not any(outcome.answer.reused for outcome in first.outcomes)
    usage = first.usage
    assert (usage.requests, usage.answers_reused, len(endpoint.batches)) == (30, 0, 1)
    assert usage.cost_usd == (usage.prompt_tokens + 2 * usage.completion_tokens) / 2
    assert stored(tmp_path) == []

    again = run(tmp_path, endpoint.url, wanted, prices=PRICES)
    assert [again.by_key[one.key].value for one in wanted] == [
        first.by_key[one.key].value for one in wanted
    ]
    assert (again.usage.requests, again.usage.answers_reused) == (0, 30)
    assert again.usage.reused_cost_usd == usage.cost_usd
    assert len(endpoint.batches) == 1


def test_a_batch_whose_file_has_no_room_is_told_and_paid_for_once(tmp_path, endpoint, monkeypatch):
    def refused():
        result = run(tmp_path / "answers", endpoint.url, asks(30))
        assert f"can't be written in {disk}/tmp: No space left on device" in str(result.error)
        assert result.outcomes == []

    with small_disk(tmp_path / "disk", 64) as disk, ThreadPoolExecutor(1) as pool:
        monkeypatch.setenv("RARE_CACHE", str(disk))
        (disk / "tmp").mkdir()
        filler = fill(disk)
        refused()
        assert endpoint.batches == {}
        filler.unlink()
        endpoint.hold = True
        fetching = pool.submit(refused)
        until(lambda: endpoint.batches)
        filler = fill(disk)
        endpoint.hold = False
        fetching.result()
        filler.unlink()
        assert set(run(tmp_path / "answers", endpoint.url, asks(30)).reasons.values()) == {None}
    assert len(endpoint.batches) == 1
    assert stored(tmp_path / "answers") == []


def test_batch_and_online_share_their_answers(tmp_path, endpoint):
    run(tmp_path, endpoint.url, asks(5))
    one = run(tmp_path, endpoint.url, asks(8), kind=online)
    assert (one.usage.requests, one.usage.answers_reused) == (3, 5)
    batch = run(tmp_path, endpoint.url, asks(9))
    assert (batch.usage.requests, batch.usage.answers_reused) == (1, 8)


def test_asks_of_equal_content_share_one_request(tmp_path, endpoint):
    twins = [Ask(f"twin-{n}", ask(1).messages, schema=Note) for n in range(4)]
    result = run(tmp_path, endpoint.url, [*asks(2), *twins])
    assert len(result.outcomes) == 6
    assert (result.usage.requests, result.usage.answers_reused) == (2, 4)


def test_files_stay_within_the_endpoints_limits(tmp_path):
    with FakeBatchEndpoint(max_requests=4) as endpoint:
        by_count = run(tmp_path / "a", endpoint.url, asks(10), max_batch_requests=4)
        assert set(by_count.reasons.values()) == {None}
        sizes = [len(endpoint.files[b["input_file_id"]]) for b in endpoint.batches.values()]
        assert len(sizes) == 3
    with FakeBatchEndpoint(max_bytes=max(sizes) // 2) as endpoint:
        by_size = run(tmp_path / "b", endpoint.url, asks(10), max_batch_bytes=max(sizes) // 2)
        assert set(by_size.reasons.values()) == {None}
        assert len(endpoint.batches) == 5
        assert endpoint.calls.count(("POST", "/v1/files")) == 5
        huge = Ask("huge", ({"role": "user", "content": "x" * 2000},))
        result = run(tmp_path / "c", endpoint.url, [huge, *asks(2)], max_batch_bytes=1000)
        assert result.reasons == {"huge": "not_sendable", "ask-0": None, "ask-1": None}


@pytest.mark.parametrize("limit", [{"max_requests": 3}, {"max_bytes": 2000}, {"queue": 3}])
def test_files_get_smaller_where_the_endpoint_takes_less_than_was_thought(tmp_path, limit):
    with FakeBatchEndpoint(**limit) as endpoint:
        result = run(tmp_path, endpoint.url, asks(10))
        assert set(result.reasons.values()) == {None}
        assert sum(endpoint.counts.values()) == 10
        assert stored(tmp_path) == []


def test_a_bounded_number_of_asks_is_read_ahead(tmp_path, endpoint):
    done = []

    def lazily():
        for number in range(25):
            assert number - len(done) <= 10
            yield ask(number)

    def use(one, answer):
        done.append(one.key)
        return answer.content

    result = run(tmp_path, endpoint.url, lazily(), use, max_open_requests=10)
    assert len(result.outcomes) == 25


def test_what_an_expired_batch_finished_is_kept_and_the_rest_is_asked_again(tmp_path):
    with FakeBatchEndpoint(expire_after=[7, 0, 2]) as endpoint:
        wanted = asks(10)
        result = run(tmp_path, endpoint.url, wanted)
        assert result.error is None
        assert set(result.reasons.values()) == {None}
        handed_in = endpoint.handed_in
        keys = keys_of(wanted)
        assert handed_in == [*keys, *keys[7:], *keys[7:], *keys[9:]]
        assert sum(endpoint.counts.values()) == 10


@pytest.mark.parametrize("word", ["COMPLETED", "Succeeded", "sealed"])
def test_a_batch_ends_in_any_servers_words(tmp_path, word):
    with FakeBatchEndpoint(words={"completed": word, "in_progress": "RUNNING"}) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert set(result.reasons.values()) == {None}
        assert len(endpoint.batches) == 1


def test_batches_that_never_bring_anything_stop_the_run(tmp_path):
    with FakeBatchEndpoint(expire_after=[0] * 10) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert "3 batches in a row brought no answer" in str(result.error)
        assert len(endpoint.batches) == 3


def fetched_by_the_next_run(root, endpoint, count):
    """Assert that so many asks are answered out of the one batch that was handed in."""
    again = run(root, endpoint.url, asks(count))
    assert again.error is None
    assert set(again.reasons.values()) == {None}
    assert len(endpoint.batches) == 1


def refusing_to_look_up(endpoint, status):
    """Have the endpoint take batches, and answer every question about one with this status."""

    async def refuse(_):
        return error_response(status, "No such batch")

    endpoint.route("GET", r"/v1/batches/[^/]+", refuse)


def test_batches_that_the_endpoint_forgets_stop_the_run_and_are_not_paid_for_again_and_again(
    tmp_path,
):
    with FakeBatchEndpoint() as endpoint:
        refusing_to_look_up(endpoint, 404)
        result = run(tmp_path, endpoint.url, asks(3))
        assert "3 batches in a row brought no answer" in str(result.error)
        assert len(endpoint.batches) == 3


@pytest.mark.parametrize(
    ("status", "said"), [(400, "what became of batch"), (403, "refuses to work")]
)
def test_a_batch_that_cannot_be_looked_up_is_kept_and_not_handed_in_again(tmp_path, status, said):
    with FakeBatchEndpoint() as endpoint:
        refusing_to_look_up(endpoint, status)
        result = run(tmp_path, endpoint.url, asks(3))
        assert said in str(result.error)
        assert len(endpoint.batches) == 1
        endpoint.route("GET", r"/v1/batches/[^/]+", endpoint._retrieve)
        fetched_by_the_next_run(tmp_path, endpoint, 3)


def test_unusable_answers_go_into_the_next_batch(tmp_path, endpoint):
    wanted = asks(6)

    def use(one, answer):
        if (one.key in ("ask-1", "ask-4") and answer.attempt == 0) or one.key == "ask-5":
            raise Unusable("bad", "no good")
        return answer.attempt

    result = run(tmp_path, endpoint.url, wanted, use)
    assert {key: o.value for key, o in result.by_key.items()} == {
        "ask-0": 0,
        "ask-1": 1,
        "ask-2": 0,
        "ask-3": 0,
        "ask-4": 1,
        "ask-5": None,
    }
    last = result.by_key["ask-5"]
    assert (last.reason, last.detail, last.attempts) == ("bad", "no good", 3)
    assert last.prompt_tokens == 3 * last.answer.prompt_tokens
    assert endpoint.handed_in == [
        *keys_of(wanted),
        *sorted(keys_of([wanted[1], wanted[4], wanted[5]], 1), key=endpoint.handed_in.index),
        *keys_of([wanted[5]], 2),
    ]
    assert result.usage.retries == 4


def test_no_ask_is_lost_whatever_goes_wrong_with_its_lines(tmp_path):
    names = [
        "throttled",
        "unavailable",
        "server_error",
        "bad_gateway",
        "dropped",
        "not_json",
        "error_in_200",
    ]
    names += [
        "empty",
        "null",
        "cut",
        "broken_json",
        "refusal",
        "filtered",
        "too_long",
        "policy",
        "bad_request",
    ]
    wanted = asks(200)
    with FakeBatchEndpoint(shares=dict.fromkeys(names, 0.2 / len(names)), seed=3) as endpoint:
        result = run(tmp_path, endpoint.url, wanted)
        assert result.error is None
        assert result.keys == sorted(one.key for one in wanted)
        bad = [outcome for outcome in result.outcomes if outcome.reason is not None]
        assert {o.reason for o in bad} <= {
            "context_length",
            "content_filter",
            "refused_by_endpoint",
        }
        assert 0 < len(bad) < 20
        assert result.usage.requests == len(endpoint.handed_in)


def test_a_request_that_fails_again_and_again_is_given_up(tmp_path):
    def fault_for(body):
        return "server_error" if "passage 1:" in body["messages"][0]["content"] else None

    with FakeBatchEndpoint(fault_for=fault_for) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert result.reasons == {"ask-0": None, "ask-1": "endpoint_error", "ask-2": None}
        assert endpoint.handed_in.count(keys_of([ask(1)])[0]) == 3
        assert "HTTP 500" in result.by_key["ask-1"].detail


def test_a_request_that_no_batch_has_a_result_for_is_given_up_alone(tmp_path):
    with FakeBatchEndpoint(loses="passage 1:") as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert result.error is None
        assert result.reasons == {"ask-0": None, "ask-1": "endpoint_error", "ask-2": None}
        assert "ended without a result for it" in result.by_key["ask-1"].detail
        assert endpoint.handed_in.count(keys_of([ask(1)])[0]) == 3
        assert len(endpoint.handed_in) == 5


@pytest.mark.parametrize("works", [True, False])
def test_asks_without_any_result_are_given_up_only_if_a_short_request_works(tmp_path, works):
    def fault_for(body):
        short = "passage" not in body["messages"][0]["content"]
        return "server_error" if short and not works else None

    with FakeBatchEndpoint(loses="passage", fault_for=fault_for) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert len(endpoint.batches) == 3
        if works:
            assert result.error is None
            assert set(result.reasons.values()) == {"endpoint_error"}
        else:
            assert "failed every request of 3 batches" in str(result.error)
            assert result.outcomes == []


def test_a_line_in_another_form_is_given_up_alone(tmp_path):
    with FakeBatchEndpoint() as endpoint:

        async def content(recorded):
            response = await endpoint._content(recorded)
            lines = [json.loads(line) for line in response.body.splitlines()]
            odd = keys_of([ask(1)])[0]
            lines = [
                {**line, "error": "lost"} if line["custom_id"] == odd else line for line in lines
            ]
            return replace(response, body="".join(f"{json.dumps(x)}\n" for x in lines).encode())

        endpoint.route("GET", r"/v1/files/[^/]+/content", content)
        result = run(tmp_path, endpoint.url, asks(3))
        assert result.error is None
        assert result.reasons == {"ask-0": None, "ask-1": "endpoint_error", "ask-2": None}


def test_requests_are_adapted_to_what_the_endpoint_understands(tmp_path):
    with FakeBatchEndpoint(refuses=["temperature", "json_schema"]) as endpoint:
        result = run(tmp_path, endpoint.url, asks(5, temperature=0.5))
        assert set(result.reasons.values()) == {None}
        # Short requests found out both at once.
        assert len(endpoint.batches) == 2


@pytest.mark.parametrize(
    "server", ["gemini", "opaque", "fails", "openrouter", "kimi", "mistral", "gpt-5", "max-length"]
)
def test_what_a_server_takes_is_found_out_beside_the_batches(tmp_path, server):
    memory = Folder(str(tmp_path / "endpoints"))
    wanted = asks(6, temperature=0.5, seed=1, max_tokens=300)
    with FakeBatchEndpoint(server=server) as endpoint:
        result = run(tmp_path, endpoint.url, wanted, memory=memory)
        assert result.error is None
        assert set(result.reasons.values()) == {None}
        batches = len(endpoint.batches)
        assert batches == (1 if server == "max-length" else 2)  # no maxLength in this schema
        # The next run starts there.
        more = asks(8, temperature=0.5, seed=1, max_tokens=300)
        assert set(run(tmp_path, endpoint.url, more, memory=memory).reasons.values()) == {None}
        assert len(endpoint.batches) == batches + 1


@pytest.mark.parametrize("shape", [*SHAPES, *STRUCTURED_SHAPES])
def test_answers_of_batches_are_read_wherever_a_server_puts_them(tmp_path, shape):
    with FakeBatchEndpoint(shape=shape) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert set(result.reasons.values()) == {None}
        assert len(endpoint.batches) == 1


def test_a_sample_that_the_server_found_wrong_is_an_attempt_of_the_next_batch(tmp_path):
    failed = []

    def fault_for(body):
        if "passage 1:" in body["messages"][0]["content"] and not failed:
            failed.append(body)
            return "json_validate_failed"
        return None

    with FakeBatchEndpoint(fault_for=fault_for) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert {key: outcome.attempts for key, outcome in result.by_key.items()} == {
            "ask-0": 1,
            "ask-1": 2,
            "ask-2": 1,
        }
        assert run(tmp_path, endpoint.url, asks(3)).usage.requests == 0


def test_answers_of_no_text_and_no_tokens_are_never_stored(tmp_path):
    seen = []

    def fault_for(body):
        seen.append(body)
        return "nothing" if len(seen) <= 3 else None

    with FakeBatchEndpoint(fault_for=fault_for) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert {o.attempts for o in result.outcomes} == {1}
        assert set(result.reasons.values()) == {None}
        assert len(endpoint.batches) == 2


def test_headers_and_fields_of_the_settings_go_with_batches_too(tmp_path):
    headers = {"X-Team": SecretStr("team-s3cret")}
    with FakeBatchEndpoint() as endpoint:
        result = run(
            tmp_path,
            f"{endpoint.url}/chat/completions?api-version=1 ",
            asks(2),
            extra_headers=headers,
            extra_body={"top_p": 0.5},
        )
        assert set(result.reasons.values()) == {None}
        lines = [line for content in endpoint.files.values() for line in content.splitlines()]
        bodies = [json.loads(line).get("body") for line in lines]
        assert {body["top_p"] for body in bodies if body} == {0.5}


def test_a_file_in_which_nothing_is_accepted_stops_the_run(tmp_path):
    with FakeBatchEndpoint(fault_for=lambda body: "bad_request") as endpoint:
        result = run(tmp_path, endpoint.url, asks(50))
        assert "refused 50 different requests" in str(result.error)
        assert result.outcomes == []


def long_ask(number):
    (message,) = ask(number).messages
    text = message["content"] + " x" * 2000
    return Ask(f"ask-{number}", ({"role": "user", "content": text},), schema=Note)


@pytest.mark.parametrize("good", [0, 5])
def test_documents_that_are_too_long_are_rejects_of_their_own(tmp_path, good):
    def fault_for(body):
        return "too_long" if len(body["messages"][0]["content"]) > 1000 else None

    wanted = [long_ask(number) for number in range(30)] + asks(40)[40 - good :]
    with FakeBatchEndpoint(fault_for=fault_for) as endpoint:
        result = run(tmp_path, endpoint.url, wanted)
        assert result.error is None
        assert list(result.reasons.values()).count("context_length") == 30
        assert len(result.outcomes) == 30 + good
        # Where a batch brought nothing else, one short request told that the endpoint answers.
        online = [call for call in endpoint.calls if call[1] == "/v1/chat/completions"]
        assert len(online) == (0 if good else 1)


def test_a_line_refused_by_a_firewall_harms_only_itself(tmp_path):
    def fault_for(body):
        if "passage 1:" in body["messages"][0]["content"]:
            return Fault("status", text="403 Blocked.")
        return None

    with FakeBatchEndpoint(fault_for=fault_for) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert result.reasons == {"ask-0": None, "ask-1": "refused_by_endpoint", "ask-2": None}


@pytest.mark.parametrize("works", [True, False])
def test_lines_that_always_fail_are_theirs_only_if_a_short_request_works(tmp_path, works):
    def fault_for(body):
        lake = "lake" in body["messages"][0]["content"]
        return None if lake and works else "server_error"

    with FakeBatchEndpoint(fault_for=fault_for) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert len(endpoint.batches) == 3
        if works:
            assert set(result.reasons.values()) == {"endpoint_error"}
        else:
            assert "failed every request of 3 batches" in str(result.error)
            assert result.outcomes == []


def test_absurd_usage_in_a_batch_loses_no_answer(tmp_path):
    usage = '{"prompt_tokens": 1e400, "completion_tokens": -%s}' % ("9" * 300)
    with FakeBatchEndpoint(usage=usage) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3), prices=PRICES)
        assert set(result.reasons.values()) == {None}
        assert result.usage.estimated == 3
        assert result.usage.cost_usd > 0
        again = run(tmp_path, endpoint.url, asks(3), prices=PRICES)
        assert again.usage.reused_cost_usd == result.usage.cost_usd


def test_a_batch_of_which_nothing_can_be_used_is_not_asked_again(tmp_path):
    with FakeBatchEndpoint(shares={"empty": 1.0}) as endpoint:
        result = run(tmp_path, endpoint.url, asks(30))
        assert "20 answers in a row of which none can be used" in str(result.error)
        assert len(endpoint.handed_in) == 30


KILLED = """
import asyncio, sys
from rare_assets_tests.teacher.batch.test_teacher import *
run(sys.argv[1], sys.argv[2], asks(int(sys.argv[3])), max_batch_requests=4)
"""


def kill_a_run(folder, endpoint, count, batches):
    """Have a process hand in so many asks, and be killed while their batches are worked on."""
    endpoint.hold = True
    process = Forked([sys.executable, "-c", KILLED, folder, endpoint.url, str(count)])
    until(lambda: stored(folder) and len(endpoint.batches) == batches)
    process.send_signal(signal.SIGKILL)
    process.wait()
    endpoint.hold = False


def test_a_run_killed_while_it_waits_finds_its_batches_again(tmp_path, endpoint):
    endpoint.hold = True
    for _ in range(2):
        process = Forked([sys.executable, "-c", KILLED, tmp_path, endpoint.url, "10"])
        until(lambda: len(endpoint.batches) == 3 and len(stored(tmp_path)) == 3)
        polled = len(endpoint.calls)
        until(lambda n=polled: len(endpoint.calls) > n + 6)
        process.send_signal(signal.SIGKILL)
        process.wait()
    endpoint.hold = False
    result = run(tmp_path, endpoint.url, asks(11), max_batch_requests=4)
    assert set(result.reasons.values()) == {None}
    assert result.usage.requests == 1
    assert sorted(endpoint.handed_in) == sorted(keys_of(asks(11)))
    assert len(result.outcomes) == 11
    assert stored(tmp_path) == []


def leave_in_creation(tmp_path, endpoint, wanted, hours_ahead=0):
    """Return a store in which a submission is written, its batch's id is not; the writer is gone."""
    endpoint.hold = True
    done = threading.Thread(target=run, args=[tmp_path, endpoint.url, wanted])
    done.start()
    until(lambda: len(endpoint.batches) == 1 and stored(tmp_path))
    (name,) = stored(tmp_path)
    path = tmp_path / "batches" / name
    until(lambda: json.loads(path.read_text())["batch_id"])
    content = json.loads(path.read_text())
    endpoint.hold = False
    done.join()

    say = "from rare_assets.files.processes import this_process as name; print(name(), end='')"
    gone = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True)
    other = tmp_path / "other"
    (other / "batches").mkdir(parents=True)
    content.update(batch_id=None, process=gone.stdout)
    content["created_at"] += hours_ahead * 3600
    (other / "batches" / name).write_text(json.dumps(content))
    return other


@pytest.mark.parametrize("hours_ahead", [-48, 0, 48])
@pytest.mark.parametrize("created", [True, False])
def test_a_run_killed_while_it_created_a_batch_finds_out_whether_it_exists(
    tmp_path, endpoint, created, hours_ahead
):
    wanted = asks(4)
    other = leave_in_creation(tmp_path, endpoint, wanted, hours_ahead)
    if not created:
        endpoint.batches["batch_0"]["metadata"] = None
    result = run(other, endpoint.url, wanted)
    assert set(result.reasons.values()) == {None}
    assert len(endpoint.batches) == (1 if created else 2)
    assert result.usage.requests == (0 if created else 4)
    assert stored(other) == []


def test_a_batch_that_may_exist_is_kept_where_the_endpoint_lists_none(tmp_path, endpoint):
    async def refuse(_):
        return error_response(404, "Unknown path")

    wanted = asks(4)
    other = leave_in_creation(tmp_path, endpoint, wanted)
    endpoint.route("GET", r"/v1/batches", refuse)
    result = run(other, endpoint.url, wanted)
    assert "4 requests that were being handed in" in str(result.error)
    assert "with refresh" in str(result.error)
    assert len(stored(other)) == len(endpoint.batches) == 1
    endpoint.route("GET", r"/v1/batches", endpoint._list)
    result = run(other, endpoint.url, wanted)
    assert set(result.reasons.values()) == {None}
    assert len(endpoint.batches) == 1


def test_a_creation_whose_answer_is_lost_is_not_repeated(tmp_path):
    with FakeBatchEndpoint(drop={("POST", "/v1/batches"): 1, ("POST", "/v1/files"): 1}) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert set(result.reasons.values()) == {None}
        assert len(endpoint.batches) == 1


def test_answers_stored_before_a_kill_are_not_counted_again(tmp_path, endpoint):
    wanted = asks(4)
    endpoint.hold = True
    process = Forked([sys.executable, "-c", KILLED, tmp_path, endpoint.url, "4"])
    until(lambda: stored(tmp_path) and len(endpoint.calls) > 8)
    process.send_signal(signal.SIGKILL)
    process.wait()
    endpoint.hold = False
    first = run(tmp_path / "copy", endpoint.url, wanted[:1])

    async def put():
        record = wire.answer_to_record(first.outcomes[0].answer, answered_at=1.0)
        async with AnswerStore(str(tmp_path)) as store:
            await store.put(bytes.fromhex(keys_of(wanted)[0]), record)

    asyncio.run(put())
    result = run(tmp_path, endpoint.url, wanted)
    assert (result.usage.requests, result.usage.answers_reused) == (0, 1)
    assert result.usage.prompt_tokens == sum(
        result.by_key[one.key].prompt_tokens for one in wanted[1:]
    )


def test_a_second_run_waits_for_the_batches_of_the_first(tmp_path, endpoint):
    endpoint.hold = True
    results = []

    def one():
        results.append(run(tmp_path, endpoint.url, asks(5)))

    runs = [threading.Thread(target=one) for _ in range(2)]
    runs[0].start()
    until(lambda: len(endpoint.batches) == 1)
    runs[1].start()
    polled = len(endpoint.calls)
    until(lambda: len(endpoint.calls) > polled + 20)
    endpoint.hold = False
    for thread in runs:
        thread.join()
    assert [len(result.outcomes) for result in results] == [5, 5]
    assert endpoint.handed_in == keys_of(asks(5))


@pytest.mark.parametrize("how", ["cancelled", "left", "closed"])
def test_a_cancelled_run_cancels_its_batches_and_the_next_keeps_what_they_finished(tmp_path, how):
    wanted = asks(6)
    with FakeBatchEndpoint() as endpoint:
        run(tmp_path, endpoint.url, wanted[5:])
        endpoint.hold = True

        async def main():
            async with (
                AnswerStore(str(tmp_path)) as store,
                in_batches(model=MODEL, store=store, base_url=endpoint.url, **SETTINGS) as teacher,
            ):
                if how == "cancelled":
                    task = asyncio.create_task(collect(teacher, wanted))
                    await asyncio.to_thread(until, lambda: len(endpoint.batches) == 2)
                    await asyncio.sleep(0.05)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    return
                answers = teacher.ask_all(reversed(wanted), note)
                async with aclosing(answers):
                    assert (await anext(answers)).ask.key == "ask-5"
                    waiting = asyncio.ensure_future(anext(answers))
                    await asyncio.to_thread(until, lambda: len(endpoint.batches) == 2)
                    await asyncio.sleep(0.05)
                    if how == "closed":
                        await teacher.aclose()
                    else:
                        waiting.cancel()
                    with pytest.raises((asyncio.CancelledError, TeacherStopped)):
                        await waiting

        asyncio.run(main())
        until(lambda: endpoint.batches["batch_1"]["status"] == "cancelled")
        endpoint.hold = False
        result = run(tmp_path, endpoint.url, wanted)
        assert set(result.reasons.values()) == {None}
        assert sorted(endpoint.handed_in) == sorted(keys_of(wanted))


def test_a_limit_of_requests_stops_cleanly_and_the_next_run_goes_on(tmp_path, endpoint):
    result = run(tmp_path, endpoint.url, asks(10), max_requests=4)
    assert len(result.outcomes) == 4
    assert "limit of 4 requests" in str(result.error)
    result = run(tmp_path, endpoint.url, asks(10), max_requests=6)
    assert (result.error, len(result.outcomes), result.usage.requests) == (None, 10, 6)


def test_a_limit_of_costs_stops_before_it_is_passed(tmp_path, endpoint):
    one = run(tmp_path / "one", endpoint.url, asks(1), prices=PRICES).usage.cost_usd
    result = run(tmp_path, endpoint.url, asks(60), prices=PRICES, max_cost_usd=20 * one)
    assert "max_cost_usd" in str(result.error)
    assert 10 <= len(result.outcomes) <= 20
    assert result.usage.cost_usd <= 20 * one
    with pytest.raises(ValueError, match="price of model"):
        run(tmp_path, endpoint.url, [], max_cost_usd=1.0)


def test_a_batch_refused_as_a_whole_stops_with_the_reason(tmp_path):
    failure = ("billing_hard_limit_reached", f"No credit left for {KEY}")
    with FakeBatchEndpoint(fail_with=[failure], key=KEY) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3), api_key=SecretStr(KEY))
        assert "billing_hard_limit_reached: No credit left for [API key]" in str(result.error)
        assert len(endpoint.batches) == 1


def test_a_wrong_key_stops_at_once_and_is_not_repeated(tmp_path, caplog):
    with FakeBatchEndpoint(key="another") as endpoint:
        result = run(tmp_path, endpoint.url, asks(3), api_key=SecretStr(KEY))
        assert "OPENAI_API_KEY" in str(result.error)
        assert len(endpoint.calls) == 1
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in str(result.error) + caplog.text + files.decode("latin-1")


def test_an_endpoint_without_batches_says_so(tmp_path):
    with FakeEndpoint() as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert "does not take batches" in str(result.error)
        assert "mode=online" in str(result.error)
        assert stored(tmp_path) == []


def test_an_endpoint_that_is_gone_stops_the_run_and_the_next_fetches(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = run(tmp_path, f"http://127.0.0.1:{port}/v1", asks(3))
    assert "has not been reachable" in str(result.error)
    with FakeBatchEndpoint(port=port) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert set(result.reasons.values()) == {None}
        assert len(endpoint.batches) == 1


def test_results_that_can_not_be_fetched_at_first_are_fetched_in_the_end(tmp_path):
    drop = {("GET", r"/v1/files/.*/content"): 2, ("GET", r"/v1/batches/.*"): 2}
    with FakeBatchEndpoint(drop=drop) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert set(result.reasons.values()) == {None}
        assert len(endpoint.batches) == 1


def test_what_the_endpoint_has_just_made_and_does_not_find_at_first_is_looked_for_again(tmp_path):
    with FakeBatchEndpoint(unseen=3) as endpoint:
        result = run(tmp_path, endpoint.url, asks(3))
        assert set(result.reasons.values()) == {None}
        assert len(endpoint.batches) == 1


def refusing_files(endpoint, field, status, batches=9):
    """Have the endpoint refuse the files of answers, or of errors, of the first batches with this status."""

    async def content(recorded):
        name = urlsplit(recorded.path).path.split("/")[3]
        if name in [batch[field] for batch in endpoint.batches.values()][:batches]:
            return error_response(status, "No access to this file")
        return await endpoint._content(recorded)

    endpoint.route("GET", r"/v1/files/[^/]+/content", content)


@pytest.mark.parametrize(
    ("status", "said"),
    [(400, "the answers of batch batch_0"), (403, "refuses to work"), (409, "failed every")],
)
def test_answers_that_the_endpoint_refuses_to_give_are_kept_and_not_asked_for_again(
    tmp_path, status, said
):
    with FakeBatchEndpoint() as endpoint:
        refusing_files(endpoint, "output_file_id", status)
        result = run(tmp_path, endpoint.url, asks(3))
        assert said in str(result.error)
        assert "No access to this file" in str(result.error)
        assert len(endpoint.batches) == 1
        endpoint.route("GET", r"/v1/files/[^/]+/content", endpoint._content)
        fetched_by_the_next_run(tmp_path, endpoint, 3)


def test_answers_that_are_gone_are_asked_for_again_and_told(tmp_path, caplog):
    with FakeBatchEndpoint() as endpoint:
        refusing_files(endpoint, "output_file_id", 410, batches=1)
        result = run(tmp_path, endpoint.url, asks(3))
        assert set(result.reasons.values()) == {None}
        assert len(endpoint.batches) == 2
        assert "the answers of batch batch_0: gone" in caplog.text


def test_errors_that_the_endpoint_refuses_to_give_harm_no_answer(tmp_path):
    def fault_for(body):
        return "server_error" if "passage 1:" in body["messages"][0]["content"] else None

    with FakeBatchEndpoint(fault_for=fault_for) as endpoint:
        refusing_files(endpoint, "error_file_id", 400)
        result = run(tmp_path, endpoint.url, asks(3))
        assert result.error is None
        assert result.reasons == {"ask-0": None, "ask-1": "endpoint_error", "ask-2": None}


def test_a_batch_that_the_endpoint_has_forgotten_is_asked_anew(tmp_path, endpoint):
    wanted = asks(3)
    requests = {bytes.fromhex(key): 0 for key in keys_of(wanted)}

    async def leave():
        store = AnswerStore(str(tmp_path))
        teacher = in_batches(model=MODEL, store=store, base_url=endpoint.url)
        submission = Submission.new(MODEL, str(teacher._endpoint), requests).created("batch_gone")
        Submissions(store.folder("batches")).save(submission)

    asyncio.run(leave())
    result = run(tmp_path, endpoint.url, wanted)
    assert set(result.reasons.values()) == {None}
    assert result.usage.requests == 3
    assert stored(tmp_path) == []


def test_a_batch_of_long_ago_is_fetched_as_long_as_the_endpoint_has_it(tmp_path, endpoint):
    kill_a_run(tmp_path, endpoint, 3, batches=1)
    (name,) = stored(tmp_path)
    path = tmp_path / "batches" / name
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "created_at": content["created_at"] - 40 * 86400}))
    result = run(tmp_path, endpoint.url, asks(3))
    assert set(result.reasons.values()) == {None}
    assert len(endpoint.batches) == 1
    assert stored(tmp_path) == []


@pytest.mark.parametrize("mode", ["batch", "online"])
@pytest.mark.parametrize("content", ["", '{"name": "batch"}'])
def test_a_damaged_submission_stops_before_its_requests_are_asked_again(
    tmp_path, endpoint, mode, content
):
    kill_a_run(tmp_path, endpoint, 3, batches=1)
    (name,) = stored(tmp_path)
    path = tmp_path / "batches" / name
    path.write_text(content)
    batches = {"kind": online, "batches": Folder(str(tmp_path / "batches"))}
    how = batches if mode == "online" else {}
    result = run(tmp_path, endpoint.url, asks(3), **how)
    assert str(path) in str(result.error)
    assert "remove it to ask again" in str(result.error)
    assert len(endpoint.batches) == 1
    assert ("POST", "/v1/chat/completions") not in endpoint.calls
    path.unlink()
    assert set(run(tmp_path, endpoint.url, asks(3), **how).reasons.values()) == {None}


def test_refresh_asks_anew_and_takes_up_no_older_batch(tmp_path, endpoint):
    run(tmp_path, endpoint.url, asks(3))
    kill_a_run(tmp_path, endpoint, 4, batches=2)
    result = run(tmp_path, endpoint.url, asks(4), refresh=True)
    assert (result.usage.requests, result.usage.answers_reused) == (4, 0)


def test_an_online_run_asks_for_nothing_that_waits_in_a_batch(tmp_path, endpoint):
    kill_a_run(tmp_path, endpoint, 4, batches=1)
    batches = Folder(str(tmp_path / "batches"))
    how = {"kind": online, "batches": batches}
    result = run(tmp_path, endpoint.url, asks(6), **how)
    assert "4 of the first 6 asks wait in batch" in str(result.error)
    assert "mode=batch" in str(result.error)
    assert result.usage.requests == 0
    assert run(tmp_path, endpoint.url, asks(4)).usage.requests == 0
    after = run(tmp_path, endpoint.url, asks(6), **how)
    assert (after.error, after.usage.requests, len(after.outcomes)) == (None, 2, 6)


def test_an_estimate_knows_what_waits_in_a_batch(tmp_path, endpoint):
    kill_a_run(tmp_path, endpoint, 4, batches=1)
    batches = Folder(str(tmp_path / "batches"))

    async def estimated(**options):
        async with AnswerStore(str(tmp_path)) as store:
            teacher = EstimatingTeacher(MODEL, store, PRICES, batch=True, **options)
            reasons = [outcome.reason async for outcome in teacher.ask_all(asks(6), note)]
            assert reasons == ["not_asked"] * 6
            return teacher.usage.requests, teacher.waiting, teacher.say_waiting()

    at = {"batches": batches, "endpoint": endpoint_name(endpoint.url, MODEL)}
    said = "4 answers wait in batches that are handed in: they are paid for."
    assert asyncio.run(estimated(**at)) == (2, 4, said)
    nothing = (6, 0, None)
    assert asyncio.run(estimated()) == nothing
    assert asyncio.run(estimated(**at, refresh=True)) == nothing
    assert asyncio.run(estimated(**{**at, "endpoint": "another"})) == nothing


def test_a_refresh_keeps_the_answer_that_could_be_used_where_no_new_one_can(tmp_path, endpoint):
    unusable = 0

    def use(asked, answer):
        nonlocal unusable
        if "passage 1:" in str(asked.messages) and unusable:
            unusable -= 1
            raise Unusable("not_json", "no")
        return note(asked, answer)

    run(tmp_path, endpoint.url, asks(3), use)
    unusable = 2
    result = run(tmp_path, endpoint.url, asks(3), use, refresh=True, max_attempts=2)
    assert set(result.reasons.values()) == {None}
    assert (result.usage.requests, unusable) == (4, 0)
    assert run(tmp_path, endpoint.url, asks(3), use, max_attempts=2).usage.requests == 0


def test_progress_is_told(tmp_path, endpoint):
    told = []

    async def main():
        async with (
            AnswerStore(str(tmp_path)) as store,
            in_batches(
                model=MODEL, store=store, base_url=endpoint.url, progress_every_s=0.01, **SETTINGS
            ) as teacher,
        ):
            endpoint.hold = True
            task = asyncio.create_task(collect(teacher, asks(4), progress=told.append))
            await asyncio.to_thread(until, lambda: any(now.in_flight == 4 for now in told))
            endpoint.hold = False
            await task

    asyncio.run(main())
    assert (told[-1].done, told[-1].in_flight) == (4, 0)
    assert told[-1].usage.requests == 4


def test_an_error_of_use_ends_the_run(tmp_path, endpoint):
    def use(one, answer):
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        run(tmp_path, endpoint.url, asks(3), use)


@pytest.mark.parametrize("second", [in_batches, online])
def test_what_a_living_run_has_handed_in_nobody_asks_for(tmp_path, endpoint, second):
    """Neither another run in batches nor one online: both wait, and find the answers stored."""
    said = []
    endpoint.hold = True
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(run, tmp_path, endpoint.url, asks(6))
        until(lambda: endpoint.batches)
        two = threads.submit(run, tmp_path, endpoint.url, asks(7), kind=second, say=said.append)
        try:
            until(lambda: said or two.done())
        finally:
            endpoint.hold = False
        assert len(one.result(60).outcomes) == 6
        assert two.result(60).keys == sorted(each.key for each in asks(7))
    assert "Waiting for 6 answers" in said[0]
    assert one.result().usage.requests + two.result().usage.requests == 7
