import asyncio
import contextlib
import logging
import re
import socket
import time
import traceback
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel, Field, SecretStr

from rare_assets.operators.answers import require_whole
from rare_assets.teacher.health import Patience
from rare_assets.teacher.interface import (
    Ask,
    Outcome,
    TeacherStopped,
    Unusable,
    Usage,
)
from rare_assets.teacher.ledger import Ledger
from rare_assets.teacher.pricing import Price, Prices
from rare_assets.teacher.structured import structured_value
from rare_assets_tests.support.fake_endpoint import FakeEndpoint, Fault, answer_to
from rare_assets_tests.support.teachers import online

MODEL = "fake-model"
TRANSPORT_FAULTS = (
    "throttled",
    "unavailable",
    "server_error",
    "bad_gateway",
    "dropped",
    "half_body",
    "not_json",
    "error_in_200",
    "error_in_choice",
)
QUICK = Patience(dead_after=0.4, stalled_after=20.0, tries=4, backoff=0.005, backoff_cap=0.02)


class Note(BaseModel):
    question: str = Field(min_length=3)
    scenario: str


class NoOthers:
    """Claims where nobody else asks."""

    epoch = 0
    poll_s = 0.1

    async def acquire(self, keys):
        return {}

    def release(self, keys):
        pass

    async def close(self):
        pass


class MemoryAnswers:
    """Answers in a dict; `gate`, if there is one, holds every put back until it is set."""

    unreadable = 0

    def __init__(self, *, quick=True):
        self.records = {}
        self.gate = None
        self.quick = quick

    def claims(self):
        return NoOthers()

    async def get(self, keys):
        await asyncio.sleep(0)
        return {key: self.records[key] for key in keys if key in self.records}

    async def put(self, key, record):
        if self.gate is not None:
            await self.gate.wait()
        self.records[key] = dict(record)


def ask(number, **settings):
    text = f"Write a question on passage {number}: rivers carry gravel downhill every spring."
    settings = {"schema": Note, **settings}
    return Ask(key=f"ask-{number}", messages=({"role": "user", "content": text},), **settings)


def asks(count, **settings):
    return [ask(number, **settings) for number in range(count)]


def note(_, answer):
    return structured_value(answer, Note)


def content(_, answer):
    return answer.content


@dataclass
class Result:
    outcomes: list[Outcome]
    usage: Usage
    error: Exception | None

    @property
    def by_key(self):
        return {outcome.ask.key: outcome for outcome in self.outcomes}

    @property
    def good(self):
        return [outcome for outcome in self.outcomes if outcome.reason is None]


def teacher_at(endpoint, store=None, **settings):
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    settings = {"max_concurrency": 8, "patience": QUICK, **settings}
    return online(model=MODEL, store=store or MemoryAnswers(), base_url=url, **settings)


def run(endpoint, wanted, use=note, *, store=None, max_attempts=3, **settings):
    """All outcomes of one `ask_all`, and the TeacherStopped that ended it, if any."""

    async def main():
        outcomes, error = [], None
        async with teacher_at(endpoint, store, **settings) as teacher:
            try:
                async for outcome in teacher.ask_all(wanted, use, max_attempts=max_attempts):
                    outcomes.append(outcome)  # noqa: PERF401 (kept when an error ends the loop)
            except TeacherStopped as stopped:
                error = stopped
            return Result(outcomes, teacher.usage, error)

    return asyncio.run(main())


async def until(condition):
    while not condition():  # noqa: ASYNC110 (the server runs in another thread)
        await asyncio.sleep(0.01)


def user_text(recorded):
    return recorded.body["messages"][0]["content"]


# ---- the pipeline


def test_every_ask_is_sent_once_and_has_one_outcome_of_its_own():
    with FakeEndpoint(latency=0.005) as endpoint:
        result = run(endpoint, asks(100))
    assert sorted(o.ask.key for o in result.outcomes) == sorted(a.key for a in asks(100))
    assert len(endpoint.requests) == 100
    assert endpoint.high_water <= 8
    for outcome in result.outcomes:
        body = {"model": MODEL, "messages": [dict(m) for m in outcome.ask.messages]}
        body["response_format"] = endpoint.requests[0].body["response_format"]
        assert outcome.value == Note.model_validate_json(answer_to(body))
        assert outcome.attempts == 1
    assert result.usage.requests == 100
    assert result.usage.retries == 0
    assert result.usage.prompt_tokens == sum(o.prompt_tokens for o in result.outcomes) > 0
    assert len(result.usage.latencies_s) == 100
    assert result.usage.seconds > 0


def test_as_many_requests_are_in_flight_as_allowed():
    with FakeEndpoint(latency=0.5) as endpoint:
        run(endpoint, asks(16), max_concurrency=8)
    assert endpoint.high_water == 8


def test_an_answer_keeps_its_place_until_it_is_stored():
    async def main():
        store = MemoryAnswers()
        store.gate = asyncio.Event()
        with FakeEndpoint() as endpoint:
            async with teacher_at(endpoint, store, max_concurrency=2) as teacher:
                stream = teacher.ask_all(asks(5), note)
                first = asyncio.ensure_future(anext(stream))
                await until(lambda: teacher.usage.completion_tokens > 0)
                await asyncio.sleep(0.2)
                assert len(endpoint.requests) == 2
                store.gate.set()
                outcomes = [await first] + [outcome async for outcome in stream]
        assert len(outcomes) == len(store.records) == len(endpoint.requests) == 5

    asyncio.run(main())


def test_answers_waiting_for_a_slow_store_keep_no_place_and_do_not_count():
    async def main():
        store = MemoryAnswers(quick=False)
        store.gate = asyncio.Event()
        with FakeEndpoint() as endpoint:
            async with teacher_at(endpoint, store, max_concurrency=1) as teacher:
                stream = teacher.ask_all(asks(5), note)
                first = asyncio.ensure_future(anext(stream))
                await until(lambda: len(endpoint.requests) == 5)
                assert not first.done()
                store.gate.set()
                outcomes = [await first] + [outcome async for outcome in stream]
        assert len(outcomes) == len(store.records) == 5
        assert endpoint.high_water == 1

    asyncio.run(main())


def test_a_second_run_sends_nothing_and_one_more_ask_sends_one():
    store = MemoryAnswers()
    with FakeEndpoint(script=["broken_json"]) as endpoint:
        first = run(endpoint, asks(20), store=store)
        assert len(endpoint.requests) == 21
        second = run(endpoint, asks(20), store=store)
        assert len(endpoint.requests) == 21
        run(endpoint, asks(21), store=store)
        assert len(endpoint.requests) == 22
    assert {k: o.value for k, o in first.by_key.items()} == {
        k: o.value for k, o in second.by_key.items()
    }
    assert sorted(o.attempts for o in second.outcomes) == [1] * 19 + [2]
    assert all(outcome.answer.reused for outcome in second.outcomes)
    assert second.usage.requests == 0
    assert second.usage.answers_reused == 21
    assert second.usage.reused_prompt_tokens == first.usage.prompt_tokens
    assert second.usage.reused_completion_tokens == first.usage.completion_tokens


def test_asks_of_equal_content_are_sent_once():
    same = [Ask(key=f"twin-{n}", messages=ask(1).messages, schema=Note) for n in range(10)]
    with FakeEndpoint(latency=0.02, script=["broken_json"]) as endpoint:
        result = run(endpoint, same)
    assert len(endpoint.requests) == 2
    assert {o.ask.key for o in result.good} == {a.key for a in same}
    assert {o.attempts for o in result.outcomes} == {2}


def test_another_model_seed_sample_temperature_or_schema_is_another_answer():
    class Other(BaseModel):
        question: str

    wanted = [
        ask(1),
        ask(1, sample=1),
        ask(1, seed=5),
        ask(1, temperature=0.5),
        ask(1, max_tokens=50),
        ask(1, schema=Other),
    ]
    with FakeEndpoint() as endpoint:
        run(endpoint, wanted, content)
    assert len(endpoint.requests) == 6


def test_an_unusable_answer_is_asked_again_until_the_attempts_are_used_up():
    with FakeEndpoint(script=["broken_json", "cut", None]) as endpoint:
        good = run(endpoint, asks(1), max_attempts=3)
    assert [(o.attempts, o.reason) for o in good.outcomes] == [(3, None)]
    assert good.outcomes[0].completion_tokens == good.usage.completion_tokens
    assert good.usage.retries == 2

    with FakeEndpoint(script=["broken_json", "cut", None]) as endpoint:
        bad = run(endpoint, asks(1), max_attempts=2)
    outcome = bad.outcomes[0]
    assert (outcome.attempts, outcome.reason, outcome.value) == (2, "cut", None)
    assert outcome.answer.finish_reason == "length"
    assert outcome.answer.attempt == 1
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("empty", "empty"),
        ("null", "empty"),
        ("refusal", "refused"),
        ("filtered", "content_filter"),
        ("broken_json", "not_json"),
        ("cut", "cut"),
    ],
)
def test_each_kind_of_unusable_answer_has_its_reason(fault, reason):
    with FakeEndpoint(shares={fault: 1.0}) as endpoint:
        result = run(endpoint, asks(1), max_attempts=2)
    assert result.outcomes[0].reason == reason
    assert len(endpoint.requests) == 2


def test_a_fenced_answer_is_used():
    with FakeEndpoint(shares={"fenced": 1.0}) as endpoint:
        assert len(run(endpoint, asks(3)).good) == 3
    assert len(endpoint.requests) == 3


def test_further_attempts_and_samples_send_other_seeds():
    wanted = [ask(1, seed=7), ask(1, seed=7, sample=1)]
    with FakeEndpoint(shares={"broken_json": 1.0}) as endpoint:
        run(endpoint, wanted, max_attempts=2)
    seeds = [recorded.body["seed"] for recorded in endpoint.requests]
    assert seeds.count(7) == 1
    assert len(set(seeds)) == 4


def test_a_retry_starts_before_the_last_ask_has_begun():
    with FakeEndpoint(latency=0.02, script=["broken_json"]) as endpoint:
        result = run(endpoint, asks(100), max_concurrency=8)
    sent = [user_text(recorded) for recorded in endpoint.requests]
    assert len(result.good) == 100
    assert len(sent) == 101
    first_again = sent.index(sent[0], 1)
    assert first_again < 50


def test_asks_are_read_only_a_bounded_number_ahead_of_a_slow_consumer():
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield ask(read)

    async def main():
        with FakeEndpoint() as endpoint:
            async with teacher_at(endpoint, max_concurrency=2) as teacher:
                stream = teacher.ask_all(endless(), note)
                for _ in range(5):
                    await anext(stream)
                still = -1
                while still != len(endpoint.requests):
                    still = len(endpoint.requests)
                    await asyncio.sleep(0.2)
                await stream.aclose()

    asyncio.run(main())
    assert read <= 2 * 64 + 16 * 2 + 5


def test_reused_answers_are_read_only_a_bounded_number_ahead_too():
    store = MemoryAnswers()
    read = 0

    def counted():
        nonlocal read
        for wanted in asks(600):
            read += 1
            yield wanted

    async def main():
        with FakeEndpoint() as endpoint:
            async with teacher_at(endpoint, store, max_concurrency=2) as teacher:
                assert len([o async for o in teacher.ask_all(asks(600), note)]) == 600
            async with teacher_at(endpoint, store, max_concurrency=2) as teacher:
                stream = teacher.ask_all(counted(), note)
                await anext(stream)
                await asyncio.sleep(0.1)
                ahead = read
                assert len([o async for o in stream]) == 599
        assert ahead <= 2 * 64 + 16 * 2 + 1

    asyncio.run(main())


def test_no_ask_is_lost_whatever_goes_wrong():
    kinds = [*TRANSPORT_FAULTS, "empty", "null", "cut", "broken_json", "fenced", "refusal"]
    kinds += ["filtered", "too_long", "policy"]
    shares = {Fault(kind): 0.3 / len(kinds) for kind in kinds}
    with FakeEndpoint(latency=0.002, shares=shares, seed=3) as endpoint:
        result = run(endpoint, asks(400), max_concurrency=16)
    assert result.error is None
    assert sorted(o.ask.key for o in result.outcomes) == sorted(a.key for a in asks(400))
    assert {o.reason for o in result.outcomes} >= {None, "context_length", "content_filter"}
    assert set(endpoint.counts) == {*kinds, "good"}
    for outcome in result.outcomes:
        assert (outcome.value is None) == (outcome.reason is not None)
    assert result.usage.requests == len(endpoint.requests)


# ---- faults of the transport


@pytest.mark.parametrize("fault", TRANSPORT_FAULTS)
def test_a_fault_of_the_transport_is_no_attempt(fault):
    with FakeEndpoint(script=[fault, fault]) as endpoint:
        result = run(endpoint, asks(1), max_attempts=1)
    assert [(o.reason, o.attempts) for o in result.outcomes] == [(None, 1)]
    assert len(endpoint.requests) == 3
    assert result.usage.requests == 3
    assert result.usage.retries == 0
    assert result.usage.rate_limited == (2 if fault in ("throttled", "unavailable") else 0)


def test_a_request_that_times_out_is_sent_again():
    with FakeEndpoint(script=[Fault("slow", seconds=30)]) as endpoint:
        result = run(endpoint, asks(1), request_timeout=0.3)
    assert [o.reason for o in result.outcomes] == [None]
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault("throttled", seconds=0.4),
        Fault("unavailable", seconds=0.4),
        # The header's date has whole seconds: at least one of the two is left.
        Fault("throttled", seconds=2, date=True),
    ],
)
def test_retry_after_is_honoured(fault):
    with FakeEndpoint(script=[fault]) as endpoint:
        result = run(endpoint, asks(1))
    first, second = endpoint.requests
    assert second.arrived - first.arrived >= (1.0 if fault.date else fault.seconds)
    assert result.usage.rate_limited == 1


def test_an_endpoint_with_room_for_few_gets_fewer_at_once():
    with FakeEndpoint(latency=0.02, capacity=4) as endpoint:
        result = run(endpoint, asks(300), max_concurrency=64)
    assert len(result.good) == 300
    late = endpoint.requests[-100:]
    throttled = sum(recorded.fault == "throttled" for recorded in late)
    assert throttled < 50
    assert result.usage.rate_limited == endpoint.counts["throttled"]


def test_an_ask_that_always_fails_is_given_up_and_the_others_go_on():
    def poison(body):
        return "server_error" if "passage 3:" in body["messages"][0]["content"] else None

    with FakeEndpoint(fault_for=poison) as endpoint:
        result = run(endpoint, asks(20))
    assert len(result.good) == 19
    bad = result.by_key["ask-3"]
    assert bad.reason == "endpoint_error"
    assert "The server had an error" in bad.detail
    assert (bad.attempts, bad.answer) == (0, None)
    assert len(endpoint.requests) == 19 + QUICK.tries


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("too_long", "context_length"),
        ("policy", "content_filter"),
        ("bad_request", "refused_by_endpoint"),
        (Fault("throttled", text="Request too large for this model"), "context_length"),
    ],
)
def test_a_refused_request_harms_only_itself_and_the_others_go_on(fault, reason):
    def poison(body):
        return fault if "passage 3:" in body["messages"][0]["content"] else None

    with FakeEndpoint(fault_for=poison) as endpoint:
        result = run(endpoint, asks(20))
    bad = result.by_key["ask-3"]
    assert bad.reason == reason
    assert len(result.good) == 19
    # What may be of the sample is an attempt.
    assert bad.attempts == (3 if fault == "bad_request" else 0)
    # And a short one, where it came before any answer.
    extra = len(endpoint.requests) - 19 - (3 if fault == "bad_request" else 1)
    assert extra in (0, 1)


def test_text_that_no_request_can_carry_fails_alone():
    broken = Ask(key="broken", messages=({"role": "user", "content": "half a pair \ud83d"},))
    with FakeEndpoint() as endpoint:
        result = run(endpoint, [broken, ask(1)], content)
    assert result.by_key["broken"].reason == "not_sendable"
    assert result.by_key["ask-1"].reason is None
    assert len(endpoint.requests) == 1


# ---- endpoints that are dead or misconfigured


@pytest.mark.parametrize("script", [[], [None]])
def test_ten_refusals_in_a_row_and_that_of_a_short_request_stop_the_run(script):
    with FakeEndpoint(script=script, shares={"bad_request": 1.0}) as endpoint:
        result = run(endpoint, asks(200), max_concurrency=4)
    assert "This request is not valid" in str(result.error)
    # Ten, what else was in flight, short ones in this manner, with no options, and as a stream; an
    # answer begins the count anew, and the one that was sent first may be read last.
    assert 11 <= len(endpoint.requests) <= 17 + 11 * len(script)
    if not script:
        assert "Tried in vain, each with a short request: json_schema (HTTP 400)" in str(
            result.error
        )
    last = endpoint.requests[-1].body
    assert len(user_text(endpoint.requests[-1])) < 50
    assert last["response_format"] == endpoint.requests[0].body["response_format"]


def of_size(number, length, **settings):
    (message,) = ask(number).messages
    text = message["content"] + " x" * (length // 2)
    return replace(ask(number, **settings), messages=({"role": "user", "content": text},))


def refuses_long(*faults):
    """What the endpoint does with long prompts: the faults in turn."""

    def fault_for(body):
        text = body["messages"][0]["content"]
        number = re.search("passage ([0-9]+):", text)
        return faults[int(number[1]) % len(faults)] if len(text) > 1000 else None

    return fault_for


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("too_long", "context_length"),
        (Fault("status", text="400 1301 Sonderzeichen"), "refused_by_endpoint"),
        (Fault("status", text="400 8000 tokens are requested, must be <= 4096"), "context_length"),
        (Fault("status", text="500 exceeds the available context size"), "context_length"),
        *((Fault("status", text=f"{code} No."), "refused_by_endpoint") for code in (403, 422, 451)),
        (Fault("status", text="413 No."), "context_length"),
        (Fault("status", text="404 No endpoint allows this."), "not_found"),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 16, 64])
def test_refused_documents_at_the_head_of_a_shard_harm_only_themselves(fault, reason, concurrency):
    wanted = [of_size(n, 4000) for n in range(50)] + [ask(n) for n in range(50, 60)]
    with FakeEndpoint(fault_for=refuses_long(fault)) as endpoint:
        result = run(endpoint, wanted, max_concurrency=concurrency)
    assert result.error is None
    assert {o.ask.key for o in result.good} == {f"ask-{n}" for n in range(50, 60)}
    assert {o.reason for o in result.outcomes if o.reason} == {reason}
    # Another, much shorter one of the asks told that the endpoint answers, or one that was sent for it.
    attempts = (
        3
        if fault != "too_long" and fault.text[:3] in ("400", "422") and reason != "context_length"
        else 1
    )
    assert len(endpoint.requests) <= 50 * attempts + 10 + (15 if attempts > 1 else 1)


def test_refused_documents_and_nothing_else_are_told_from_a_refusing_endpoint_by_a_short_request():
    faults = ["too_long", Fault("status", text="403 Blocked."), "policy", "bad_request"]
    with FakeEndpoint(fault_for=refuses_long(*faults)) as endpoint:
        result = run(endpoint, [of_size(n, 4000) for n in range(24)], max_concurrency=4)
    assert result.error is None
    assert len(result.outcomes) == 24
    assert len({o.reason for o in result.outcomes}) == 3
    # Six of them get two attempts more.
    assert 1 <= len(endpoint.requests) - 24 - 12 <= 4


@pytest.mark.parametrize("status", [401, 402, 403, 451])
def test_one_prompt_that_is_refused_among_answers_harms_only_itself(status):
    def fault_for(body):
        if "passage 7:" in body["messages"][0]["content"]:
            return Fault("status", text=f"{status} Not this one.")
        return None

    with FakeEndpoint(fault_for=fault_for) as endpoint:
        result = run(endpoint, asks(20), max_concurrency=2)
    assert result.error is None
    assert len(result.good) == 19
    assert "Not this one." in result.by_key["ask-7"].detail
    assert len(endpoint.requests) == 20


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_key_or_a_model_that_is_taken_away_stops_the_run_soon(status):
    script = [None] * 20
    with FakeEndpoint(
        script=script, shares={Fault("status", text=f"{status} Gone."): 1.0}, latency=0.005
    ) as endpoint:
        result = run(endpoint, asks(500), max_concurrency=8)
    assert f"HTTP {status}: Gone." in str(result.error)
    assert len(result.good) == 20
    # What is in flight beside an answer says nothing; then one is in doubt, and later ten.
    # Those in flight may be answered, and each followed by one, before the brake is on.
    assert len(endpoint.requests) <= 20 + 2 * 4 * 8 + 10 + 1


def test_the_judge_may_be_refused_while_the_others_are_answered():
    async def main(endpoint):
        async with teacher_at(endpoint, max_concurrency=2) as teacher:

            async def judged(first, answer):
                number = int(first.key.removeprefix("ask-"))
                judge = [o async for o in teacher.ask_all([of_size(number + 50, 4000)], content)]
                return judge[0].reason

            return [o async for o in teacher.ask_all(asks(30), judged)]

    with FakeEndpoint(fault_for=refuses_long("too_long")) as endpoint:
        outcomes = asyncio.run(main(endpoint))
    assert [o.value for o in outcomes] == ["context_length"] * 30
    assert len(endpoint.requests) <= 61


KEY = "sk-secret-0123456789"


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"key": "another"}, "OPENAI_API_KEY"),
        ({"models": ["another"]}, "RARE_MODEL"),
        ({"shares": {"quota": 1.0}}, "quota"),
        ({"shares": {"server_error": 1.0}}, "failed every request"),
        ({"shares": {"not_json": 1.0}}, "not JSON"),
    ],
)
def test_a_misconfigured_endpoint_stops_early_with_one_message_free_of_the_key(
    settings, says, caplog
):
    caplog.set_level(logging.DEBUG)
    with FakeEndpoint(**settings) as endpoint:
        result = run(endpoint, asks(200), api_key=SecretStr(KEY))
    message = str(result.error)
    assert says in message
    assert endpoint.url in message
    assert MODEL in message
    # At most 8 asks in flight, 8 waiting to be sent again, and short ones in this manner, with no
    # options, and as a stream.
    assert len({recorded.raw for recorded in endpoint.requests}) <= 8 + 8 + 3
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
    told = "".join(traceback.format_exception(result.error)) + caplog.text + repr(result)
    assert endpoint.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in told
    assert result.error.__context__ is None


def test_a_rejected_key_costs_at_most_what_was_in_flight():
    with FakeEndpoint(key="another", latency=0.05) as endpoint:
        result = run(endpoint, asks(500), max_concurrency=8, api_key=SecretStr(KEY))
    assert result.outcomes == []
    assert len(endpoint.requests) <= 8


def test_a_path_that_is_no_endpoint_stops_at_once():
    with FakeEndpoint() as endpoint:
        result = run(endpoint.url + "/wrong", asks(3))
    assert "usually ends in /v1" in str(result.error)


def test_an_unreachable_endpoint_stops_after_a_while():
    url = f"http://user:{KEY}@127.0.0.1:{unused_port()}/v1?token={KEY}"
    result = run(url, asks(50))
    assert "has not been reachable for 0.4 s" in str(result.error)
    assert KEY not in str(result.error)
    assert result.outcomes == []


OUTAGES = [
    *("bad_gateway", "dropped", "half_body", "not_json", "error_in_200"),
    *(Fault("status", text=f"{code} down") for code in (500, 502, 503, 504, 520, 529)),
]
# Waits of a few milliseconds, tries enough for none of them to be given up by count.
PATIENT = Patience(dead_after=30, stalled_after=30, tries=3, backoff=0.005, backoff_cap=0.02)


@pytest.mark.parametrize("fault", OUTAGES, ids=lambda fault: getattr(fault, "text", fault) or "")
def test_an_outage_is_sat_out_by_time_and_loses_no_row(fault):
    """Each of the asks meets it more often than its tries."""
    with FakeEndpoint(script=[None] * 3 + [fault] * 50) as endpoint:
        result = run(endpoint, asks(12), max_concurrency=4, patience=PATIENT)
    assert result.error is None
    assert len(result.good) == 12
    assert len(endpoint.requests) >= 12 + 50


@pytest.mark.parametrize("fault", OUTAGES, ids=lambda fault: getattr(fault, "text", fault) or "")
def test_an_outage_without_end_stops_the_run_and_rejects_nothing(fault):
    patience = replace(PATIENT, dead_after=0.3, stalled_after=0.3)
    with FakeEndpoint(script=[None] * 3, shares={fault: 1.0}) as endpoint:
        result = run(endpoint, asks(12), max_concurrency=4, patience=patience)
    said = str(result.error)
    assert "failed every request for 0." in said or "throttles every request" in said
    assert len(result.outcomes) == len(result.good) == 3


@pytest.mark.parametrize("number", [1, 3])
def test_requests_that_fail_for_ever_with_nothing_beside_them_are_theirs_if_a_short_one_works(
    number,
):
    def poison(body):
        return "server_error" if "passage" in body["messages"][0]["content"] else None

    with FakeEndpoint(fault_for=poison) as endpoint:
        result = run(endpoint, asks(number), patience=PATIENT)
    assert result.error is None
    assert [o.reason for o in result.outcomes] == ["endpoint_error"] * number
    assert len(endpoint.requests) <= number * (PATIENT.tries + 2) + number


def test_an_endpoint_that_accepts_and_never_answers_stops_the_run_and_says_so_before():
    told = []
    patience = replace(PATIENT, dead_after=0.5, silent_after=0.1)
    with FakeEndpoint(shares={"hangs": 1.0}) as endpoint:
        result = run(
            endpoint,
            asks(20),
            request_timeout=0.2,
            patience=patience,
            max_concurrency=4,
            say=told.append,
        )
    assert "accepts requests and answers none" in str(result.error)
    assert "RARE_REQUEST_TIMEOUT" in str(result.error)
    assert result.outcomes == []
    # First that nothing comes, then what is wrong.
    assert "4 requests are in flight, each may take 0.2 s" in told[0]
    assert "no answer within the request timeout" in told[-1]
    assert len(endpoint.requests) < 40


def test_one_request_that_never_is_answered_is_given_up_beside_others():
    def poison(body):
        return "hangs" if "passage 3:" in body["messages"][0]["content"] else None

    with FakeEndpoint(fault_for=poison) as endpoint:
        result = run(endpoint, asks(12), request_timeout=0.3, patience=PATIENT)
    assert result.error is None
    assert [o.reason for o in result.outcomes if o.reason] == ["endpoint_error"]
    assert len(result.good) == 11


@pytest.mark.parametrize(
    ("settings", "options", "says"),
    [
        ({"script": [Fault("throttled", seconds=1)]}, {}, "It asks to wait 1 s."),
        ({"script": [Fault("slow", seconds=1)]}, {}, "1 requests are in flight"),
        ({}, {"requests_per_minute": 60}, "RARE_REQUESTS_PER_MINUTE"),
        ({"script": ["bad_gateway"] * 80}, {}, "HTTP 502"),
    ],
)
def test_every_wait_is_said_soon_and_seldom(settings, options, says):
    told = []
    patience = replace(PATIENT, silent_after=0.2)
    with FakeEndpoint(**settings) as endpoint:
        result = run(
            endpoint, asks(3), max_concurrency=1, patience=patience, say=told.append, **options
        )
    assert len(result.good) == 3
    assert any(says in line for line in told)
    assert len(told) <= 10


def test_a_run_without_waits_says_nothing():
    told = []
    with FakeEndpoint(latency=0.01) as endpoint:
        run(endpoint, asks(40), patience=replace(PATIENT, silent_after=5), say=told.append)
    assert told == []


def test_a_wait_too_long_for_one_request_is_its_own_while_others_are_answered():
    def poison(body):
        text = body["messages"][0]["content"]
        return Fault("throttled", seconds=3600) if "passage 9:" in text else None

    with FakeEndpoint(fault_for=poison) as endpoint:
        result = run(endpoint, asks(12), max_concurrency=1)
    assert result.error is None
    assert result.by_key["ask-9"].reason == "rate_limited"
    assert len(result.good) == 11


def test_a_short_interruption_is_sat_out():
    async def main():
        port = unused_port()
        url = f"http://127.0.0.1:{port}/v1"
        patience = Patience(dead_after=30.0, backoff=0.01, backoff_cap=0.05)
        async with teacher_at(url, patience=patience) as teacher:
            stream = teacher.ask_all(asks(10), note)
            first = asyncio.ensure_future(anext(stream))
            await until(lambda: teacher.usage.requests >= 10)
            with FakeEndpoint(port=port):
                return [await first] + [outcome async for outcome in stream]

    assert [outcome.reason for outcome in asyncio.run(main())] == [None] * 10


def test_an_endpoint_that_asks_to_wait_too_long_stops_the_run():
    with FakeEndpoint(script=[Fault("throttled", seconds=3600)]) as endpoint:
        result = run(endpoint, asks(5), max_concurrency=1)
    assert "asks to wait 3600 s" in str(result.error)
    assert len(endpoint.requests) == 1


def test_what_is_in_flight_when_the_run_stops_is_stored_and_yielded():
    store = MemoryAnswers()
    with FakeEndpoint(script=[Fault("slow", seconds=0.3), "unauthorized"]) as endpoint:
        result = run(endpoint, asks(50), store=store, max_concurrency=2)
    assert result.error is not None
    assert len(result.good) == len(store.records) == 1
    assert len(endpoint.requests) == 2


def test_openais_own_endpoint_needs_a_key():
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        online(model=MODEL, store=MemoryAnswers())


def test_a_key_no_header_can_carry_is_refused_without_showing_it():
    with pytest.raises(ValueError, match="no HTTP header") as raised:
        teacher_at("http://127.0.0.1:1/v1", api_key=SecretStr("sk-sécret"))
    assert "cret" not in str(raised.value)


# ---- what endpoints support


@pytest.mark.parametrize(
    ("refuses", "form"),
    [
        ([], "json_schema"),
        (["bounds"], "json_schema"),
        (["json_schema"], "json_object"),
        (["json_schema", "json_object"], None),
    ],
)
def test_structured_output_falls_back_once_for_all(refuses, form):
    async def main():
        with FakeEndpoint(refuses=refuses) as endpoint:
            async with teacher_at(endpoint, max_concurrency=4) as teacher:
                assert len([o async for o in teacher.ask_all(asks(30), note) if o.value]) == 30
                refused = endpoint.counts["refused"]
                # Those in flight; then each manner by a short request.
                assert refused <= 4 + 3 * len(refuses)
                assert (refused > 0) == bool(refuses)
                more = [ask(100), ask(101)]
                assert len([o async for o in teacher.ask_all(more, note) if o.value]) == 2
                assert endpoint.counts["refused"] == refused
        return endpoint.requests[-1].body

    last = asyncio.run(main())
    assert last.get("response_format", {}).get("type") == form
    assert ("minLength" in str(last)) == (refuses != ["bounds"])


def test_the_schema_sent_is_strict():
    with FakeEndpoint() as endpoint:
        run(endpoint, asks(1))
    sent = endpoint.requests[0].body["response_format"]["json_schema"]
    assert sent["strict"] is True
    assert sent["schema"]["additionalProperties"] is False
    assert sent["schema"]["required"] == ["question", "scenario"]


def test_how_structure_was_asked_for_does_not_matter_to_stored_answers():
    store = MemoryAnswers()
    with FakeEndpoint() as endpoint:
        run(endpoint, asks(5), store=store)
    with FakeEndpoint(refuses=["json_schema"]) as endpoint:
        result = run(endpoint, asks(6), store=store)
    assert len(result.good) == 6
    assert sum("passage" in user_text(recorded) for recorded in endpoint.requests) == 2


@pytest.mark.parametrize("name", ["temperature", "seed", "max_tokens"])
def test_an_unsupported_parameter_is_left_out_from_then_on(name):
    wanted = asks(30, temperature=0.3, seed=4, max_tokens=500)
    with FakeEndpoint(refuses=[name]) as endpoint:
        result = run(endpoint, wanted, max_concurrency=4)
    assert len(result.good) == 30
    assert 1 <= endpoint.counts["refused"] <= 4 + 2
    last = endpoint.requests[-1].body
    assert name not in last
    assert {"temperature", "seed", "max_tokens"} - {name} <= last.keys()
    assert last.get("max_completion_tokens") == (500 if name == "max_tokens" else None)


def test_only_what_is_set_is_sent():
    with FakeEndpoint() as endpoint:
        run(endpoint, asks(1, schema=None), content)
    assert endpoint.requests[0].body.keys() == {"model", "messages"}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_chain_sent_apart_is_kept_apart(name):
    with FakeEndpoint(thinking=name) as endpoint:
        answer = run(endpoint, asks(1)).outcomes[0].answer
    assert answer.thinking.startswith("The request has")
    assert answer.content.startswith("{")
    assert answer.raw == f"<think>\n{answer.thinking}\n</think>\n{answer.content}"


def test_a_chain_in_tags_stays_in_the_content():
    with FakeEndpoint(thinking="think") as endpoint:
        outcome = run(endpoint, asks(1)).outcomes[0]
    assert outcome.reason is None
    assert outcome.answer.thinking is None
    assert outcome.answer.content.startswith("<think>")


USAGES = [
    *("null", "[1, 2]", '"many"', "{}", "7", '{"prompt_tokens": 0, "completion_tokens": 0}'),
    '{"prompt_tokens": -1000000, "completion_tokens": -1000000}',
    '{"prompt_tokens": 1e23, "completion_tokens": 100000000000000000000000}',
    '{"prompt_tokens": 1e400, "completion_tokens": NaN}',
    '{"prompt_tokens": %s, "completion_tokens": true}' % ("9" * 6000),
    '{"prompt_tokens": "a lot", "completion_tokens": {"all": [5]}}',
]


@pytest.mark.parametrize("usage", [False, *USAGES])
def test_usage_that_is_missing_or_absurd_is_estimated_and_counts(usage):
    store = MemoryAnswers()
    settings = {"prices": PRICES, "store": store, "tokens_per_minute": 10_000_000}
    with FakeEndpoint(usage=usage) as endpoint:
        result = run(endpoint, asks(5), **settings)
        assert len(endpoint.requests) == len(result.good) == 5
        again = run(endpoint, asks(5), **settings)
        assert len(endpoint.requests) == 5
    for outcome in result.outcomes:
        text = outcome.answer.content
        assert outcome.prompt_tokens == len(outcome.ask.messages[0]["content"]) // 4 + 1
        assert outcome.completion_tokens == -(-len(text) // 4)
        assert outcome.answer.estimated
    assert all(record["estimated"] for record in store.records.values())
    assert result.usage.estimated == 5
    expected = (result.usage.prompt_tokens + 10 * result.usage.completion_tokens) / 1e6
    assert result.usage.cost_usd == pytest.approx(expected)
    assert (again.usage.estimated, again.usage.reused_cost_usd) == (0, pytest.approx(expected))


def test_a_cost_limit_holds_without_usage():
    with FakeEndpoint(usage=False, latency=0.01) as endpoint:
        each = run(endpoint, [ask(1000)], prices=PRICES).usage.cost_usd
        result = run(endpoint, asks(200), prices=PRICES, max_cost_usd=20 * each)
    assert "max_cost_usd" in str(result.error)
    assert 15 <= len(result.good) <= 25


@pytest.mark.parametrize(
    "word",
    ["error", "insufficient_system_resource", "abort", "model_length", "MAX_TOKENS", "length"],
)
def test_an_answer_that_did_not_end_by_itself_is_asked_again(word):
    with FakeEndpoint(script=[Fault("finish", text=word)]) as endpoint:
        result = run(endpoint, asks(1))
        assert [(o.reason, o.attempts) for o in result.outcomes] == [(None, 2)]
        result = run(endpoint, asks(1, schema=None), lambda _, answer: require_whole(answer))
        assert len(endpoint.requests) == 3
    with FakeEndpoint(shares={Fault("finish", text=word): 1.0}) as endpoint:
        result = run(endpoint, asks(1, schema=None), lambda _, answer: require_whole(answer))
    assert [(o.reason, o.attempts) for o in result.outcomes] == [("cut", 3)]


# ---- limits and money


def test_max_requests_stops_cleanly_and_the_next_run_goes_on():
    store = MemoryAnswers()
    with FakeEndpoint(latency=0.01) as endpoint:
        first = run(endpoint, asks(50), store=store, max_requests=10)
        assert "max_requests" in str(first.error)
        assert len(endpoint.requests) == len(first.good) == len(store.records) == 10
        second = run(endpoint, asks(50), store=store, max_requests=40)
    assert second.error is None
    assert len(second.good) == 50
    assert len(endpoint.requests) == 50


def test_a_teacher_of_which_no_answer_can_be_used_is_stopped_soon():
    with FakeEndpoint(shares={"empty": 1.0}) as endpoint:
        result = run(endpoint, asks(200), max_concurrency=4, max_unusable_answers=20)
    said = str(result.error)
    assert "20 answers in a row of which none can be used" in said
    assert "empty (finish_reason stop): ''" in said
    # Those in flight may be answered, and each followed by one, before the brake is on.
    assert len(endpoint.requests) <= 20 + 2 * 4


def test_the_last_raw_answers_are_shown_without_the_key():
    def chatty(body):
        return f"Hello {KEY}, what can I do? " + "Bla. " * 200

    with FakeEndpoint(answer=chatty) as endpoint:
        result = run(endpoint, asks(9), max_unusable_answers=5, api_key=SecretStr(KEY))
    said = str(result.error)
    assert "not_json (finish_reason stop): 'Hello [API key], what can I do? Bla." in said
    assert KEY not in said
    assert len(said) < 2000


@pytest.mark.parametrize(("most", "stops"), [(0, False), (31, False), (30, True), (1, True)])
def test_the_brake_is_set_by_its_number(most, stops):
    with FakeEndpoint(shares={"empty": 1.0}) as endpoint:
        result = run(endpoint, asks(10), max_unusable_answers=most, max_attempts=3)
    assert (result.error is not None) == stops
    if not stops:
        assert len(endpoint.requests) == 30
        assert [o.reason for o in result.outcomes] == ["empty"] * 10


def test_one_usable_answer_takes_the_brake_off():
    with FakeEndpoint(script=["empty", None], shares={"empty": 1.0}) as endpoint:
        result = run(endpoint, asks(20), max_concurrency=1, max_unusable_answers=5)
    assert result.error is None
    assert len(result.good) == 1
    # The second request may be of the first ask or of another.
    assert len(endpoint.requests) in (2 + 19 * 3, 1 + 3 + 18 * 3)


def test_stored_answers_do_not_count_for_the_brake():
    store = MemoryAnswers()
    with FakeEndpoint(shares={"broken_json": 1.0}) as endpoint:
        run(endpoint, asks(10), store=store, max_unusable_answers=0)
        again = run(endpoint, asks(10), store=store, max_unusable_answers=5)
        assert again.error is None
        assert len(endpoint.requests) == 30


def test_the_brake_holds_for_all_that_work_on_the_same_stage(tmp_path):
    path = tmp_path / "spent.sqlite3"
    with FakeEndpoint(shares={"empty": 1.0}) as endpoint:
        for number in range(3):
            ledger = Ledger(path, "a run", "questions")
            result = run(endpoint, asks(4), max_attempts=1, max_unusable_answers=6, ledger=ledger)
            # Four, then two more, then none.
            assert (result.error is None) == (number == 0)
        assert 6 <= len(endpoint.requests) <= 8
        ledger = Ledger(path, "a run", "reasoning")
        result = run(endpoint, asks(4), max_attempts=1, max_unusable_answers=6, ledger=ledger)
        assert result.error is None


PRICES = Prices({MODEL: Price(prompt_usd_per_million=1.0, completion_usd_per_million=10.0)})


def test_cost_is_tokens_times_price_for_new_and_reused_answers():
    store = MemoryAnswers()
    with FakeEndpoint() as endpoint:
        first = run(endpoint, asks(4), store=store, prices=PRICES).usage
        second = run(endpoint, asks(4), store=store, prices=PRICES).usage
    expected = (first.prompt_tokens + 10 * first.completion_tokens) / 1e6
    assert first.cost_usd == pytest.approx(expected)
    assert first.reused_cost_usd == 0
    assert second.cost_usd == 0
    assert second.reused_cost_usd == pytest.approx(expected)


def test_an_unknown_price_gives_no_cost():
    with FakeEndpoint() as endpoint:
        usage = run(endpoint, asks(1)).usage
    assert usage.cost_usd is None
    assert usage.reused_cost_usd is None


def test_max_cost_stops_cleanly_and_the_next_run_goes_on():
    store = MemoryAnswers()
    with FakeEndpoint(latency=0.01) as endpoint:
        each = run(endpoint, [ask(1000)], prices=PRICES).usage.cost_usd
        limit = 20 * each
        first = run(endpoint, asks(200), store=store, prices=PRICES, max_cost_usd=limit)
        assert "max_cost_usd" in str(first.error)
        assert 15 <= len(first.good) == len(store.records) <= 25
        assert limit <= first.usage.cost_usd < 1.2 * limit
        second = run(endpoint, asks(200), store=store, prices=PRICES)
    assert len(second.good) == 200
    assert len(endpoint.requests) == 201


def test_a_cost_limit_holds_for_teachers_that_share_a_ledger(tmp_path):
    async def main(endpoint, limit):
        def teacher(number):
            ledger = Ledger(tmp_path / "spent.sqlite3", "a")
            options = {"prices": PRICES, "max_cost_usd": limit, "ledger": ledger}
            return teacher_at(endpoint, max_concurrency=4, **options), number

        async def drain(teacher, number):
            async with teacher:
                wanted = [ask(1000 * number + i) for i in range(100)]
                with pytest.raises(TeacherStopped, match="max_cost_usd"):
                    async for _ in teacher.ask_all(wanted, note):
                        pass
                return teacher.usage.cost_usd

        return await asyncio.gather(*(drain(*teacher(number)) for number in (1, 2)))

    with FakeEndpoint(latency=0.01) as endpoint:
        each = run(endpoint, [ask(9000)], prices=PRICES).usage.cost_usd
        limit = 20 * each
        costs = asyncio.run(main(endpoint, limit))
    assert min(costs) > 0
    assert limit <= sum(costs) < 1.3 * limit


def test_a_cost_limit_without_a_price_is_refused():
    with pytest.raises(ValueError, match="RARE_PRICES"):
        teacher_at("http://127.0.0.1:1/v1", max_cost_usd=1.0)


def test_requests_per_minute_spaces_requests_evenly():
    with FakeEndpoint() as endpoint:
        begun = time.monotonic()
        result = run(endpoint, asks(6), requests_per_minute=600)
    assert len(result.good) == 6
    # Five gaps of 0.1 s lie before the last request, however late it is.
    assert max(recorded.arrived for recorded in endpoint.requests) - begun >= 0.5


def test_tokens_per_minute_holds_requests_back():
    with FakeEndpoint() as endpoint:
        begun = time.monotonic()
        result = run(endpoint, asks(4, max_tokens=80), tokens_per_minute=60_000, max_concurrency=1)
    used = sorted(o.prompt_tokens + o.completion_tokens for o in result.outcomes)
    # What three of the answers took, at 1,000 tokens a second, lies before the last request.
    assert endpoint.requests[-1].arrived - begun >= sum(used[:3]) / 1000 > 0.1


def test_rates_hold_for_all_that_share_a_ledger(tmp_path):
    async def main(endpoint):
        async def one(name):
            ledger = Ledger(tmp_path / "rates.sqlite3", name)
            async with teacher_at(endpoint, requests_per_minute=600, ledger=ledger) as teacher:
                wanted = [ask(f"{name} {number}") for number in range(3)]
                return [outcome async for outcome in teacher.ask_all(wanted, note)]

        return await asyncio.gather(one("a"), one("b"))

    with FakeEndpoint() as endpoint:
        begun = time.monotonic()
        outcomes = asyncio.run(main(endpoint))
    assert [len(each) for each in outcomes] == [3, 3]
    # Each of the two is ahead of the rate by one request at most: of five gaps of 0.1 s, four.
    assert max(recorded.arrived for recorded in endpoint.requests) - begun >= 0.4


def test_a_use_may_ask_the_teacher_itself_within_the_same_bounds():
    async def main(endpoint):
        async with teacher_at(endpoint, max_concurrency=4) as teacher:

            async def judged(first, answer):
                note(first, answer)
                second = [o async for o in teacher.ask_all([ask(f"judge {first.key}")], content)]
                if answer.attempt == 0 and first.key.endswith(("1", "3")):
                    raise Unusable("wrong")
                return second[0].value

            outcomes = [o async for o in teacher.ask_all(asks(40), judged)]
            return outcomes, teacher.usage

    with FakeEndpoint(latency=0.02) as endpoint:
        outcomes, usage = asyncio.run(main(endpoint))
    assert {o.ask.key: o.attempts for o in outcomes} == {
        f"ask-{n}": 2 if n % 10 in (1, 3) else 1 for n in range(40)
    }
    assert all(o.value for o in outcomes)
    # 48 answers; the verdicts on two answers to one ask are of equal content, and asked for once.
    assert len(endpoint.requests) == usage.requests == 88
    assert usage.answers_reused == 8
    assert endpoint.high_water == 4


def test_a_limit_reached_while_a_use_asks_stops_all_and_keeps_what_was_answered():
    store = MemoryAnswers()

    async def main(endpoint):
        async with teacher_at(endpoint, store, max_requests=7) as teacher:

            async def judged(first, answer):
                return [o async for o in teacher.ask_all([ask(f"judge {first.key}")], content)]

            return [o async for o in teacher.ask_all(asks(5), judged)]

    with FakeEndpoint(latency=0.02) as endpoint:
        with pytest.raises(TeacherStopped, match="limit of 7 requests"):
            asyncio.run(main(endpoint))
        assert len(endpoint.requests) == len(store.records) == 7


def test_leaving_early_ends_what_a_use_waits_for():
    async def main(endpoint):
        async with teacher_at(endpoint) as teacher:

            async def never(first, answer):
                await asyncio.Event().wait()

            async with asyncio.timeout(5):
                async with contextlib.aclosing(teacher.ask_all(asks(3), never)) as outcomes:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(anext(outcomes), 0.5)

    with FakeEndpoint() as endpoint:
        asyncio.run(main(endpoint))
        assert len(endpoint.requests) == 3


def test_refresh_asks_anew_and_replaces_and_a_given_time_resumes_it():
    store = MemoryAnswers()
    with FakeEndpoint() as endpoint:
        run(endpoint, asks(5), store=store)
        begun = datetime.now(UTC)
        run(endpoint, asks(3), store=store, refresh=begun)
        assert len(endpoint.requests) == 8
        resumed = run(endpoint, asks(5), store=store, refresh=begun)
        assert len(endpoint.requests) == 10
        assert resumed.usage.answers_reused == 3
        run(endpoint, asks(5), store=store)
        assert len(endpoint.requests) == 10
        run(endpoint, asks(5), store=store, refresh=True)
        assert len(endpoint.requests) == 15
    assert len(store.records) == 5


# ---- ends and errors


async def leave_early(endpoint, store, how):
    """Take 3 of many outcomes, leave, and return the tasks that are left over."""
    async with teacher_at(endpoint, store, max_concurrency=4) as teacher:

        async def consume():
            taken = 0
            async for _ in teacher.ask_all(asks(1000), note):
                taken += 1
                if taken == 3 and how == "break":
                    break
                if taken == 3 and how == "error":
                    raise RuntimeError("the consumer failed")
                if taken == 3 and how == "cancel":
                    asyncio.current_task().cancel()

        consumer = asyncio.create_task(consume())
        with contextlib.suppress(asyncio.CancelledError, RuntimeError):
            await consumer
        for _ in range(20):
            await asyncio.sleep(0.01)
        return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize("how", ["break", "error", "cancel"])
def test_leaving_early_keeps_what_was_answered_and_leaves_no_task(how):
    store = MemoryAnswers()
    with FakeEndpoint(latency=0.02) as endpoint:
        left = asyncio.run(leave_early(endpoint, store, how))
        sent = len(endpoint.requests)
        assert left == set()
        assert 3 <= len(store.records) <= sent < 100
        again = run(endpoint, asks(sent), store=store)
    assert len(again.good) == sent
    assert again.usage.answers_reused == len(store.records) - again.usage.requests


def test_an_answer_that_waits_for_storage_is_stored_when_the_run_is_cancelled():
    async def main():
        store = MemoryAnswers()
        store.gate = asyncio.Event()
        with FakeEndpoint() as endpoint:
            async with teacher_at(endpoint, store, max_concurrency=1) as teacher:
                stream = teacher.ask_all(asks(1), note)
                first = asyncio.ensure_future(anext(stream))
                await until(lambda: endpoint.requests and not endpoint.in_flight)
                await asyncio.sleep(0.1)
                first.cancel()
                asyncio.get_running_loop().call_later(0.1, store.gate.set)
                with contextlib.suppress(asyncio.CancelledError):
                    await first
                assert len(store.records) == 1

    asyncio.run(main())


def test_an_error_of_use_ends_the_run_as_it_is():
    def use(_, answer):
        raise ZeroDivisionError

    store = MemoryAnswers()
    with FakeEndpoint() as endpoint, pytest.raises(ZeroDivisionError):
        run(endpoint, asks(10), use, store=store)
    assert len(store.records) >= 1


def test_an_error_of_the_store_ends_the_run_as_it_is():
    class Full(MemoryAnswers):
        async def put(self, key, record):
            raise OSError("no space left")

    with FakeEndpoint() as endpoint, pytest.raises(OSError, match="no space left"):
        run(endpoint, asks(100), store=Full())
    assert len(endpoint.requests) <= 16


def test_an_error_while_making_asks_ends_the_run_as_it_is():
    def broken():
        yield ask(1)
        raise LookupError("row 2")

    with FakeEndpoint() as endpoint, pytest.raises(LookupError, match="row 2"):
        run(endpoint, broken())


def test_runs_at_once_share_the_limit_and_the_answers():
    async def main(endpoint):
        async with teacher_at(endpoint, max_concurrency=6) as teacher:

            async def one(numbers):
                wanted = [ask(number) for number in numbers]
                return [outcome async for outcome in teacher.ask_all(wanted, note)]

            return await asyncio.gather(one(range(40)), one(range(20, 60)))

    with FakeEndpoint(latency=0.01) as endpoint:
        one, other = asyncio.run(main(endpoint))
    assert len(one) == len(other) == 40
    assert len(endpoint.requests) == 60
    assert endpoint.high_water == 6


def test_a_run_whose_twin_is_cancelled_asks_for_itself():
    async def main(endpoint):
        async with teacher_at(endpoint, max_concurrency=6) as teacher:

            async def one():
                return [outcome async for outcome in teacher.ask_all(asks(3), note)]

            first = asyncio.create_task(one())
            await until(lambda: endpoint.requests)
            second = asyncio.create_task(one())
            await asyncio.sleep(0.05)
            first.cancel()
            return await second

    with FakeEndpoint(latency=0.3) as endpoint:
        outcomes = asyncio.run(main(endpoint))
    assert len(outcomes) == 3
    assert len(endpoint.requests) == 6


def test_progress_counts_up_and_ends_with_everything_done():
    seen = []

    async def main(endpoint):
        async with teacher_at(endpoint, progress_every_s=0.01) as teacher:
            async for _ in teacher.ask_all(asks(50), note, progress=seen.append):
                pass

    with FakeEndpoint(latency=0.02) as endpoint:
        asyncio.run(main(endpoint))
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert len(seen) >= 2
    assert (seen[-1].done, seen[-1].in_flight) == (50, 0)
    assert seen[-1].usage.requests == 50
    assert seen[0].usage.requests < 50


def test_no_asks_give_no_outcomes():
    with FakeEndpoint() as endpoint:
        assert run(endpoint, []).outcomes == []
    assert endpoint.requests == []


def test_unusable_from_use_carries_its_reason_and_detail():
    def use(_, answer):
        raise Unusable("too_short", "9 words")

    with FakeEndpoint() as endpoint:
        outcome = run(endpoint, asks(1), use, max_attempts=2).outcomes[0]
    assert (outcome.reason, outcome.detail, outcome.attempts) == ("too_short", "9 words", 2)


BROKEN = {"broken_json": 1.0}


def attempts(store, endpoint, wanted=1, **settings):
    """Requests of one run, and how its asks came out."""
    before = len(endpoint.requests)
    result = run(endpoint, asks(wanted), store=store, **settings)
    reasons = [outcome.reason for outcome in result.outcomes]
    return (
        len(endpoint.requests) - before,
        reasons,
        [outcome.attempts for outcome in result.outcomes],
    )


def test_a_usable_stored_answer_wins_whatever_the_number_of_attempts():
    store = MemoryAnswers()
    with FakeEndpoint(script=["broken_json"] * 4) as endpoint:
        assert attempts(store, endpoint, max_attempts=5) == (5, [None], [5])
        for max_attempts in (1, 3, 4, 5, 9):
            assert attempts(store, endpoint, max_attempts=max_attempts) == (0, [None], [5])
        # A refresh wants new answers.
        assert attempts(store, endpoint, max_attempts=1, refresh=True) == (1, [None], [1])


@pytest.mark.parametrize("attempt", [0, 4])
def test_a_refresh_keeps_the_answer_that_could_be_used_where_no_new_one_can(attempt):
    store = MemoryAnswers()
    with FakeEndpoint(script=["broken_json"] * attempt) as endpoint:
        assert attempts(store, endpoint, max_attempts=5)[1] == [None]
        endpoint.script.extend(Fault("broken_json") for _ in range(2))
        begun = datetime.now(UTC)
        sent, reasons, _ = attempts(store, endpoint, max_attempts=2, refresh=begun)
        assert (sent, reasons) == (2, [None])
        # Neither the same refresh, taken up again, nor an ordinary run asks for it once more.
        for settings in ({"refresh": begun}, {}, {"max_attempts": 1}):
            settings = {"max_attempts": 2, **settings}
            assert attempts(store, endpoint, **settings)[:2] == (0, [None])


def test_rejects_are_asked_for_again_when_told_to_and_only_those():
    store = MemoryAnswers()
    poisoned = {"passage 1:", "passage 3:"}

    def fault(body):
        text = body["messages"][0]["content"]
        return "broken_json" if any(words in text for words in poisoned) else None

    with FakeEndpoint(fault_for=fault) as endpoint:
        sent, reasons, _ = attempts(store, endpoint, 5)
        assert (sent, sum(reason is not None for reason in reasons)) == (3 + 2 * 3, 2)
        assert attempts(store, endpoint, 5)[0] == 0
        # Still broken: as many attempts more as there may be, each stored.
        sent, reasons, _ = attempts(store, endpoint, 5, retry_rejects=True)
        assert (sent, sum(reason is not None for reason in reasons)) == (6, 2)
        assert attempts(store, endpoint, 5)[0] == 0
        poisoned.clear()
        sent, reasons, numbers = attempts(store, endpoint, 5, retry_rejects=True)
        assert (sent, reasons, sorted(numbers)) == (2, [None] * 5, [1, 1, 1, 7, 7])
        # Mended for good: for ordinary runs, and for a run that is told to ask again.
        for settings in ({}, {"max_attempts": 1}, {"retry_rejects": True}):
            assert attempts(store, endpoint, 5, **settings)[:2] == (0, [None] * 5)


def test_asks_of_equal_content_share_the_attempts_of_a_retry():
    store = MemoryAnswers()
    with FakeEndpoint(shares=BROKEN) as endpoint:
        same = [ask(1), replace(ask(1), key="the same"), replace(ask(1), key="once more")]
        for settings in ({}, {"retry_rejects": True}):
            before = len(endpoint.requests)
            result = run(endpoint, same, store=store, **settings)
            assert len(endpoint.requests) - before == 3
            assert [outcome.reason is None for outcome in result.outcomes] == [False] * 3


def test_prompts_that_the_endpoint_cut_are_counted_and_said_once():
    told = []
    usage = '{"prompt_tokens": 2048, "completion_tokens": 20, "total_tokens": 2068}'
    store = MemoryAnswers()
    with FakeEndpoint(usage=usage) as endpoint:
        result = run(endpoint, [of_size(n, 40_000) for n in range(3)], store=store, say=told.append)
        again = run(endpoint, [of_size(n, 40_000) for n in range(3)], store=store)
    assert (result.usage.cut_prompts, again.usage.cut_prompts) == (3, 3)
    assert len(told) == 1
    assert "read 2,048 tokens of a prompt" in told[0]
    with FakeEndpoint(usage=usage) as endpoint:
        assert run(endpoint, [of_size(1, 9_000)]).usage.cut_prompts == 0
