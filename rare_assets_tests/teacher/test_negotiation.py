"""What an endpoint takes is found out by trying: servers that refuse, each in words of its own."""

import asyncio
from dataclasses import replace

import pytest

from rare_assets.operators.distilled import distil
from rare_assets.teacher.known import Known, Memory
from rare_assets.teacher.store.folder import Folder
from rare_assets_tests.support.fake_endpoint import FakeEndpoint, Fault
from rare_assets_tests.support.servers import SHAPES, STRUCTURED_SHAPES
from rare_assets_tests.teacher.test_online import (
    QUICK,
    MemoryAnswers,
    asks,
    content,
    run,
    teacher_at,
    user_text,
)

OPTIONS = {"temperature": 0.3, "seed": 4, "max_tokens": 500}
SYSTEM = {"role": "system", "content": "You write questions."}


def full_asks(count):
    return [replace(a, messages=(SYSTEM, *a.messages)) for a in asks(count, **OPTIONS)]


def manner_of(body):
    """How a request asks for structure, and the options that it has."""
    form = body.get("response_format", {})
    mode = form.get("type", "text")
    if mode == "json_schema":
        bounded = "minLength" in str(form)
        mode += "" if bounded else "_unbounded" if form["json_schema"].get("strict") else "_plain"
    names = {*OPTIONS, "max_completion_tokens", "stream"} & body.keys()
    system = {"system"} if any(m["role"] == "system" for m in body["messages"]) else set()
    return mode, names | system


def real(endpoint):
    """The requests that are no short ones."""
    return [r for r in endpoint.requests if "passage" in r.body["messages"][-1]["content"]]


ALL = {"temperature", "seed", "max_tokens", "system"}


@pytest.mark.parametrize(
    ("server", "mode", "options"),
    [
        ("gemini", "json_schema_plain", ALL),
        ("opaque", "text", ALL),
        ("opaque-text", "text", ALL),
        ("fails", "text", ALL),
        ("not-implemented", "text", ALL),
        ("overloaded", "text", ALL),
        ("overloaded-529", "json_object", ALL),
        ("gateway", "json_schema", ALL - {"temperature"}),
        ("openrouter", "text", ALL),
        ("openrouter-200", "text", ALL),
        ("groq", "json_object", ALL),
        ("deepseek", "json_object", ALL),
        ("groq,lm-studio", "text", ALL),
        ("bedrock", "text", ALL),
        ("vllm", "json_schema", ALL),  # no maxLength in this schema
        ("cerebras", "json_schema_unbounded", ALL),
        ("strict", "json_schema_plain", ALL),
        ("dashscope-json", "text", ALL),
        ("gemma", "json_schema", ALL - {"system"}),
        ("kimi", "json_schema", ALL - {"temperature"}),
        ("thinking", "json_schema", ALL - {"temperature"}),
        ("mistral", "json_schema", ALL - {"seed"}),
        ("gpt-5", "json_schema", ALL - {"max_tokens"} | {"max_completion_tokens"}),
        ("no-limit", "json_schema", ALL - {"max_tokens"}),
        ("small-window", "json_schema", ALL - {"max_tokens"}),
        ("not-in-plan", "text", ALL),
        ("moderated", "text", ALL),
        ("dashscope-stream", "json_schema", ALL | {"stream"}),
        ("gemini,kimi,mistral,gpt-5,gemma", "json_schema_plain", {"max_completion_tokens"}),
        ("opaque,dashscope-stream,thinking", "text", ALL - {"temperature"} | {"stream"}),
    ],
)
def test_what_a_server_takes_is_found_out_once_and_nothing_more_is_left_out(server, mode, options):
    with FakeEndpoint(server=server) as endpoint:
        result = run(endpoint, full_asks(30), max_concurrency=4)
        assert result.error is None
        assert len(result.good) == 30
    assert manner_of(real(endpoint)[-1].body) == (mode, options)
    # No ask but those in flight at the start is refused: the rest waits for what is found out.
    fails = {"fails", "not-implemented", "overloaded", "overloaded-529", "gateway"}
    assert len(real(endpoint)) <= 30 + (30 if server in fails else 4)
    assert len(endpoint.requests) - len(real(endpoint)) <= 20


def test_a_refused_prompt_changes_nothing():
    def refuses_one(body):
        return Fault("status", text="400 response_format json_schema temperature") if "passage 0:" in str(body["messages"]) else None  # fmt: skip

    with FakeEndpoint(fault_for=refuses_one) as endpoint:
        result = run(endpoint, full_asks(10), max_concurrency=1)
    assert result.by_key["ask-0"].reason == "refused_by_endpoint"
    assert len(result.good) == 9
    assert {manner_of(r.body)[0] for r in endpoint.requests} == {"json_schema"}


def test_a_fault_that_passes_changes_nothing():
    script = [Fault("status", text="500 response_format is not supported")] * 3
    with FakeEndpoint(script=script) as endpoint:
        result = run(endpoint, asks(5), max_concurrency=1)
    assert len(result.good) == 5
    assert {manner_of(r.body)[0] for r in endpoint.requests} == {"json_schema"}


@pytest.mark.parametrize("said", ["503 overloaded", "529 overloaded", "502 <html>"])
def test_an_outage_changes_nothing_though_some_requests_get_through(said):
    count = 0

    def every_other(body):
        nonlocal count
        count += 1
        return Fault("status", text=said) if count < 24 and count % 4 else None

    with FakeEndpoint(fault_for=every_other) as endpoint:
        patience = replace(QUICK, tries=30)
        result = run(endpoint, full_asks(12), max_concurrency=3, patience=patience)
    assert len(result.good) == 12
    assert all(manner_of(r.body) == ("json_schema", ALL) for r in real(endpoint))


def test_what_was_found_out_is_kept_for_the_next_run(tmp_path):
    memory = Folder(str(tmp_path / "endpoints"))
    store = MemoryAnswers()
    with FakeEndpoint(server="gemini,kimi") as endpoint:
        run(endpoint, full_asks(5), store=store, memory=memory)
        sent = len(endpoint.requests)
        result = run(endpoint, full_asks(7), store=store, memory=memory)
    assert len(result.good) == 7
    later = endpoint.requests[sent:]
    assert len(later) == 2  # the five are stored under the same keys, and nothing is tried again
    assert [manner_of(r.body)[0] for r in later] == ["json_schema_plain"] * 2


def test_another_model_or_endpoint_is_not_taken_for_this_one(tmp_path):
    memory = Folder(str(tmp_path))
    one = Memory(memory, "a", "the endpoint x")
    one.load()
    one.save(Known(window=4096))
    assert Memory(memory, "a", "the endpoint x").load() == Known(window=4096)
    assert Memory(memory, "b", "the endpoint x").load() == Known()
    assert Memory(memory, "a", "the endpoint y").load() == Known()
    (tmp_path / one._name).write_text("not JSON")
    assert Memory(memory, "a", "the endpoint x").load() == Known()


def test_a_mode_set_by_hand_is_the_only_one_sent():
    with FakeEndpoint() as endpoint:
        result = run(endpoint, asks(3), structured_output="json_object")
        assert len(result.good) == 3
        assert {manner_of(r.body)[0] for r in endpoint.requests} == {"json_object"}
    with FakeEndpoint(server="opaque,kimi") as endpoint:
        result = run(endpoint, full_asks(20), structured_output="json_schema")
    assert {manner_of(r.body)[0] for r in endpoint.requests} == {"json_schema"}
    assert "refused" in str(result.error)
    assert "Tried in vain, each with a short request: json_schema (HTTP 400)" in str(result.error)


def test_an_endpoint_that_takes_nothing_says_what_was_tried():
    with FakeEndpoint(shares={Fault("status", text="400 No."): 1.0}) as endpoint:
        result = run(endpoint, full_asks(30), max_concurrency=2)
    said = str(result.error)
    assert "json_schema (HTTP 400); text, no system, no temperature, no seed, no max_tokens" in said
    assert "streamed (HTTP 400)" in said
    assert len(endpoint.requests) <= 10 + 2 + 5


def test_several_asks_refused_at_once_share_what_is_found_out():
    with FakeEndpoint(server="opaque", latency=0.05) as endpoint:
        result = run(endpoint, asks(64), max_concurrency=32)
    assert len(result.good) == 64
    forms = [manner_of(r.body)[0] for r in real(endpoint)]
    assert forms.count("json_schema") == 32
    assert len(endpoint.requests) - len(real(endpoint)) <= 8


def test_a_refusal_that_comes_late_is_of_the_old_manner():
    def late(body):
        if "response_format" not in body:
            return None
        return Fault("late_refusal", seconds=0.5 if "passage 1:" in str(body["messages"]) else 0.0)

    with FakeEndpoint(fault_for=late) as endpoint:
        result = run(endpoint, asks(2), max_concurrency=2)
    assert [o.reason for o in result.outcomes] == [None, None]
    assert [o.attempts for o in result.outcomes] == [1, 1]


# ---- answers that come otherwise


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, *STRUCTURED_SHAPES])
def test_structured_answers_are_found_in_every_place(shape, stream):
    if stream and shape in ("gemini", "object", "mistral", "anthropic", "openrouter", "tool-use", "tool-call"):  # fmt: skip
        pytest.skip("this message has no texts to stream")
    with FakeEndpoint(shape=shape, stream=stream) as endpoint:
        result = run(endpoint, asks(3))
    assert [o.reason for o in result.outcomes] == [None] * 3
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize("shape", SHAPES)
def test_chain_and_answer_are_told_apart_in_every_place(shape):
    with FakeEndpoint(shape=shape) as endpoint:
        result = run(endpoint, asks(1, schema=None), lambda _, answer: distil(answer))
    [outcome] = result.outcomes
    reasoning, final = outcome.value.reasoning, outcome.value.answer
    assert reasoning == "The request has 1 messages; weighing them one by one."
    assert final
    assert "<" not in final
    assert final in outcome.answer.raw
    assert reasoning in outcome.answer.raw


def test_a_stream_that_breaks_off_is_no_answer():
    store = MemoryAnswers()
    with FakeEndpoint(stream=True, script=["half_stream", None]) as endpoint:
        result = run(endpoint, asks(1), store=store)
    assert [(o.reason, o.attempts) for o in result.outcomes] == [(None, 1)]
    assert (len(endpoint.requests), len(store.records)) == (2, 1)
    assert result.outcomes[0].answer.estimated is False


# ---- unusable answers that come as something else


def test_a_sample_that_the_server_found_wrong_is_an_attempt():
    store = MemoryAnswers()
    with FakeEndpoint(script=[None, "json_validate_failed"]) as endpoint:
        result = run(endpoint, asks(3, seed=5), store=store, max_concurrency=1)
        assert sorted(o.attempts for o in result.good) == [1, 1, 2]
        seeds = [r.body["seed"] for r in endpoint.requests]
        assert len(seeds) == 4
        assert len(set(seeds)) == 2  # the second attempt has its own
        # It is stored as the first attempt, since the other left nothing to store.
        run(endpoint, asks(3, seed=5), store=store)
        assert len(endpoint.requests) == 4
    with FakeEndpoint(fault_for=lambda body: "json_validate_failed" if "passage 1:" in str(body) else None) as endpoint:  # fmt: skip
        result = run(endpoint, asks(3), max_concurrency=1)
    bad = result.by_key["ask-1"]
    assert (bad.reason, bad.attempts) == ("refused_by_endpoint", 3)
    assert "failed_generation" in bad.detail
    assert "oops" in bad.detail


def test_a_sample_that_a_server_fails_on_gets_another_seed():
    def fault_for(body):
        return "server_error" if body["seed"] == 5 and "passage 1:" in str(body) else None

    with FakeEndpoint(fault_for=fault_for) as endpoint:
        result = run(endpoint, asks(3, seed=5), max_concurrency=1)
    assert [o.reason for o in result.outcomes] == [None] * 3
    assert {o.attempts for o in result.outcomes} == {1}


def test_a_firewalls_page_for_one_prompt_is_a_reject_of_that_prompt():
    with FakeEndpoint(fault_for=lambda body: "firewall" if "passage 0:" in str(body) else None) as endpoint:  # fmt: skip
        result = run(endpoint, asks(5), max_concurrency=1)
    assert result.error is None
    assert result.by_key["ask-0"].reason == "refused_by_endpoint"
    assert len(result.good) == 4


@pytest.mark.parametrize("fault", ["empty", "null"])
def test_nothing_is_kept_of_an_endpoint_that_gives_no_text(fault):
    store = MemoryAnswers()
    with FakeEndpoint(shares={fault: 1.0}) as endpoint:
        result = run(endpoint, asks(5), store=store)
    assert {(o.reason, o.attempts) for o in result.outcomes} == {("empty", 3)}
    assert store.records == {}
    with FakeEndpoint(script=[None, fault]) as endpoint:
        result = run(endpoint, asks(2), store=store, max_concurrency=1)
        assert [(o.reason, o.attempts) for o in result.outcomes] == [(None, 1), (None, 2)]
        # One that gives text has written nothing: that was paid for, and is kept as an attempt.
        assert len(store.records) == 3
        run(endpoint, asks(2), store=store)
    assert len(endpoint.requests) == 3


def test_answers_of_no_text_and_no_tokens_are_an_outage():
    store = MemoryAnswers()
    with FakeEndpoint(script=["nothing"] * 12) as endpoint:
        result = run(endpoint, asks(4), store=store, max_concurrency=2)
    assert [(o.reason, o.attempts) for o in result.outcomes] == [(None, 1)] * 4
    with FakeEndpoint(shares={"nothing": 1.0}) as endpoint:
        result = run(endpoint, asks(9)[4:], store=store)
    assert "no text and no tokens" in str(result.error)
    assert result.outcomes == []
    assert len(store.records) == 4


@pytest.mark.parametrize("text", ["a" * 4_000, "Salt melts the ice on the road. " * 300])
def test_one_thing_again_and_again_is_asked_again(text):
    with FakeEndpoint(script=[Fault("repeats", text=text)]) as endpoint:
        result = run(endpoint, asks(1, schema=None), lambda _, answer: distil(answer))
    assert [o.attempts for o in result.outcomes] == [2]


def test_nothing_is_sent_while_it_is_found_out():
    async def main():
        with FakeEndpoint(server="opaque", latency=0.02) as endpoint:
            async with teacher_at(endpoint, max_concurrency=4) as teacher:
                assert len([o async for o in teacher.ask_all(asks(12), content)]) == 12
        return endpoint

    endpoint = asyncio.run(main())
    sent = ["passage" in user_text(r) for r in endpoint.requests]
    first_short, last_short = sent.index(False), len(sent) - 1 - sent[::-1].index(False)
    # The others of the four may be on their way when the first one is refused.
    assert sum(sent[first_short:last_short]) <= 3
