import asyncio

import pytest

from rare_assets.teacher.estimating import COMPLETION_TOKENS, EstimatingTeacher
from rare_assets.teacher.interface import Usage
from rare_assets.teacher.pricing import Price, Prices
from rare_assets.teacher.tokens import estimated_prompt_tokens
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.teachers import online
from rare_assets_tests.teacher.test_online import MODEL, MemoryAnswers, asks, note

PRICES = Prices({MODEL: Price(prompt_usd_per_million=1.0, completion_usd_per_million=10.0)})


def collect(teacher, asked, **options):
    async def run():
        return [outcome async for outcome in teacher.ask_all(asked, note, **options)]

    return asyncio.run(run())


def answer_for_real(endpoint, store, asked, **options):
    async def run():
        teacher = online(model=MODEL, base_url=endpoint.url, store=store)
        async with teacher:
            return [outcome async for outcome in teacher.ask_all(asked, note, **options)]

    return asyncio.run(run())


def test_nothing_stored_is_one_request_an_ask_and_none_is_sent():
    teacher = EstimatingTeacher(MODEL, MemoryAnswers(), PRICES)
    outcomes = collect(teacher, asks(3))
    prompt = sum(estimated_prompt_tokens(ask) for ask in asks(3))
    assert [outcome.reason for outcome in outcomes] == ["not_asked"] * 3
    usage = teacher.usage
    assert (usage.requests, usage.prompt_tokens) == (3, prompt)
    assert usage.completion_tokens == 3 * COMPLETION_TOKENS
    assert usage.cost_usd == pytest.approx((prompt * 1 + 900 * 10) / 1e6)


def test_the_longest_answer_bounds_the_estimate():
    teacher = EstimatingTeacher(MODEL, MemoryAnswers(), PRICES)
    collect(teacher, asks(2, max_tokens=50))
    assert teacher.usage.completion_tokens == 100


def test_stored_answers_cost_nothing_and_tell_how_long_answers_are():
    store = MemoryAnswers()
    with FakeEndpoint() as endpoint:
        stored = answer_for_real(endpoint, store, asks(4))
        usual = sum(outcome.completion_tokens for outcome in stored) // 4
        teacher = EstimatingTeacher(MODEL, store, PRICES)
        outcomes = collect(teacher, asks(6))
        assert len(endpoint.requests) == 4
    assert [outcome.value is not None for outcome in outcomes] == [True] * 4 + [False] * 2
    assert (teacher.usage.requests, teacher.usage.answers_reused) == (2, 4)
    assert teacher.usage.completion_tokens == 2 * usual


def test_an_ask_whose_attempts_are_all_stored_costs_nothing_and_a_further_attempt_does():
    store = MemoryAnswers()
    with FakeEndpoint(fault_for=lambda *_: "broken_json") as endpoint:
        answer_for_real(endpoint, store, asks(1), max_attempts=2)
    used_up = EstimatingTeacher(MODEL, store, PRICES)
    [outcome] = collect(used_up, asks(1), max_attempts=2)
    assert (used_up.usage.requests, outcome.reason, outcome.attempts) == (0, "not_json", 2)
    one_more = EstimatingTeacher(MODEL, store, PRICES)
    collect(one_more, asks(1), max_attempts=3)
    assert one_more.usage.requests == 1


def test_refresh_counts_every_ask():
    store = MemoryAnswers()
    with FakeEndpoint() as endpoint:
        answer_for_real(endpoint, store, asks(2))
    teacher = EstimatingTeacher(MODEL, store, PRICES, refresh=True)
    collect(teacher, asks(2))
    assert (teacher.usage.requests, teacher.usage.answers_reused) == (2, 0)


def test_an_unknown_price_is_no_cost_and_batches_cost_their_share():
    teacher = EstimatingTeacher("unheard-of", MemoryAnswers(), PRICES)
    collect(teacher, asks(1))
    assert teacher.usage.cost_usd is None
    half = EstimatingTeacher(
        MODEL, MemoryAnswers(), Prices(PRICES._models, batch_factor=0.5), batch=True
    )
    whole = EstimatingTeacher(MODEL, MemoryAnswers(), PRICES)
    collect(half, asks(2))
    collect(whole, asks(2))
    assert half.usage.cost_usd == pytest.approx(whole.usage.cost_usd / 2)


def test_asks_are_read_lazily():
    teacher = EstimatingTeacher(MODEL, MemoryAnswers(), PRICES)

    async def first():
        asked = iter(asks(5_000))
        await anext(teacher.ask_all(asked, note))
        return sum(1 for _ in asked)

    assert asyncio.run(first()) == 4_000
    assert teacher.usage != Usage()


def test_rejects_count_as_requests_only_where_they_are_asked_for_again():
    from rare_assets_tests.support.fake_endpoint import FakeEndpoint
    from rare_assets_tests.teacher.test_online import run

    store = MemoryAnswers()
    with FakeEndpoint(script=["broken_json"] * 6) as endpoint:
        run(endpoint, asks(2), store=store, max_concurrency=1)
        run(endpoint, asks(3), store=store)

    async def requests(**settings):
        teacher = EstimatingTeacher(MODEL, store, PRICES, **settings)
        outcomes = [outcome async for outcome in teacher.ask_all(asks(4), note)]
        return teacher.usage.requests, sorted(str(outcome.reason) for outcome in outcomes)

    assert asyncio.run(requests()) == (1, ["None", "not_asked", "not_json", "not_json"])
    retried = asyncio.run(requests(retry_rejects=True))
    assert retried == (3, ["None", "not_asked", "not_asked", "not_asked"])
