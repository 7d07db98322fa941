import json

import pytest

from rare_assets.teacher.pricing import Price, Prices


def test_cost_is_tokens_times_price_per_million():
    prices = Prices({"m": Price(prompt_usd_per_million=0.5, completion_usd_per_million=2.0)})
    assert prices.cost("m", 1_000_000, 0) == 0.5
    assert prices.cost("m", 0, 250_000) == 0.5
    assert prices.cost("m", 3_000, 1_000) == pytest.approx(0.0035)


def test_an_unknown_price_is_none_and_a_free_model_costs_zero():
    prices = Prices({"free": Price(prompt_usd_per_million=0, completion_usd_per_million=0)})
    assert prices.cost("free", 10, 10) == 0.0
    assert prices.cost("other", 10, 10) is None
    assert prices.cost("other", 0, 0, batch=True) is None


def test_the_shipped_table_has_a_date_and_known_models():
    prices = Prices.load()
    assert prices.as_of is not None
    assert prices.cost("gpt-4o-mini", 1_000_000, 1_000_000) == pytest.approx(0.75)
    assert prices.cost("gpt-4o-mini", 1_000_000, 1_000_000, batch=True) == pytest.approx(0.375)


def test_a_dated_name_has_its_base_names_price_unless_it_has_its_own():
    prices = Prices.load()
    assert prices.price("gpt-4o-mini-2024-07-18") == prices.price("gpt-4o-mini")
    assert prices.price("gpt-4.1-2025-04-14") == prices.price("gpt-4.1")
    assert prices.price("gpt-4o-2024-05-13") != prices.price("gpt-4o")
    assert prices.price("gpt-4o-preview") is None
    assert prices.price("my-gpt-4o") is None


def test_a_users_file_goes_over_the_shipped_table(tmp_path):
    file = tmp_path / "prices.json"
    own = {"prompt_usd_per_million": 1, "completion_usd_per_million": 2}
    file.write_text(json.dumps({"batch_factor": 0.8, "models": {"mine": own, "gpt-4o": own}}))
    prices = Prices.load(str(file))
    assert prices.cost("mine", 1_000_000, 1_000_000) == 3.0
    assert prices.cost("gpt-4o", 1_000_000, 0) == 1.0
    assert prices.cost("gpt-4o", 1_000_000, 0, batch=True) == pytest.approx(0.8)
    assert prices.price("gpt-4o-mini") == Prices.load().price("gpt-4o-mini")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"models": {"m": {"prompt_usd_per_million": -1, "completion_usd_per_million": 1}}}',
        '{"models": {"m": {"prompt": 1, "completion": 1}}}',
        '{"m": {"prompt_usd_per_million": 1, "completion_usd_per_million": 1}}',
    ],
)
def test_a_file_that_is_no_price_table_is_named(tmp_path, content):
    file = tmp_path / "prices.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"price file .*prices\.json.*prompt_usd_per_million"):
        Prices.load(str(file))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"price file .*nowhere\.json"):
        Prices.load(str(tmp_path / "nowhere.json"))
