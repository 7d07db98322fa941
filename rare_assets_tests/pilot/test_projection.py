"""What the whole corpus would take, computed by hand for small samples."""

import math

import pytest

from rare_assets.pilot.page import time_of
from rare_assets.pilot.projection import project
from rare_assets.pilot.trial import StageUse
from rare_assets_tests.support.pilot import a_trial
from rare_assets_tests.support.rows import rows

DOCUMENTS = rows("documents", {"doc_id": "d1"}, {"doc_id": "d2", "text_hash": "h2"})
# 2 documents: 3 answers for the questions (one was asked for again), 2 for the reasoning.
USE = {
    "questions": StageUse(3, 3, 300, 30, 0.03, 0.03, [1.0, 2.0, 3.0]),
    "reasoning": StageUse(2, 0, 700, 70, 0.07, 0.0, [4.0, 6.0]),
}
ROW = {"question_id": "d2-q0", "doc_id": "d2"}


@pytest.fixture
def trial(tmp_path, nothing_set):
    def made(use=USE, **ops):
        questions = [
            {"prompt_tokens": 100, "completion_tokens": 0},
            {**ROW, "prompt_tokens": 300, "completion_tokens": 0},
        ]
        reasoning = [
            {"prompt_tokens": 0, "completion_tokens": 0},
            {**ROW, "prompt_tokens": 0, "completion_tokens": 0},
        ]
        return a_trial(tmp_path, questions=questions, reasoning=reasoning, use=use, ops=ops)

    return made


def test_totals_are_the_samples_times_the_share(trial):
    found = project(trial(), DOCUMENTS, 200, 10)
    assert (found.answers, found.prompt_tokens, found.completion_tokens) == (500, 100_000, 10_000)
    assert (found.cost_usd, found.paid_usd) == pytest.approx((10.0, 0.10))


def test_the_time_is_the_latency_over_the_requests_in_flight(trial, nothing_set):
    nothing_set.setenv("RARE_MAX_CONCURRENCY", "10")
    nothing_set.setenv("RARE_SHARDS_AT_ONCE", "4")
    # 300 answers of 2 s and 200 of 5 s, 40 at once; a corpus of one shard has 10 at once.
    assert project(trial(), DOCUMENTS, 200, 10).seconds == pytest.approx(40.0)
    alone = project(trial(), DOCUMENTS, 200, 1)
    assert (alone.seconds, alone.in_flight) == (pytest.approx(160.0), 10)
    # 500 requests at 30 a minute take 1,000 s.
    nothing_set.setenv("RARE_REQUESTS_PER_MINUTE", "30")
    assert project(trial(), DOCUMENTS, 200, 10).seconds == pytest.approx(1000.0)


def test_batches_take_up_to_a_day_a_stage_whatever_the_latency(trial, nothing_set):
    nothing_set.setenv("RARE_MAX_CONCURRENCY", "10")
    batch = {"mode": "batch"}
    both = project(trial(questions=batch, reasoning=batch), DOCUMENTS, 200, 1)
    assert (both.seconds, both.in_batches, time_of(both)) == (0.0, 2, "up to 2 days in batches")
    one = project(trial(questions=batch), DOCUMENTS, 200, 1)
    # 200 answers of 5 s, 10 at once.
    assert time_of(one) == "up to a day in batches and 2 min"
    assert time_of(project(trial(), DOCUMENTS, 200, 1)) == "3 min"


def test_the_margin_is_that_of_the_mean(trial):
    # 100 and 300 tokens: mean 200, standard deviation 141.42; of 200 documents 198 are left.
    margin = 1.96 * math.sqrt(20_000) / math.sqrt(2) / 200 * math.sqrt(0.99)
    assert project(trial(), DOCUMENTS, 200, 1).margin == pytest.approx(margin)
    # A sample that is the corpus has none.
    assert project(trial(), DOCUMENTS, 2, 1).margin == 0.0


def test_batches_cost_half_and_an_unknown_price_is_no_zero(trial):
    batch = {"mode": "batch"}
    found = project(trial(questions=batch, reasoning=batch), DOCUMENTS, 200, 1)
    assert found.cost_usd == pytest.approx(5.0)
    # Verdicts for 0.04 of the 0.07 $ come online in any case.
    reasoning = StageUse(2, 0, 700, 70, 0.07, 0.0, [4.0, 6.0], online_usd=0.04)
    judged = trial({**USE, "reasoning": reasoning}, questions=batch, reasoning=batch)
    found = project(judged, DOCUMENTS, 200, 1)
    assert found.cost_usd == pytest.approx(100 * (0.03 / 2 + 0.03 / 2 + 0.04))
    priceless = {"questions": StageUse(3, 3, 300, 30, None, None, [1.0])}
    assert project(trial(priceless), DOCUMENTS, 200, 1).cost_usd is None


def test_what_did_not_come_to_its_end_is_not_projected(trial):
    stopped = trial()
    stopped.problem = "the budget is spent"
    assert project(stopped, DOCUMENTS, 200, 1) is None
