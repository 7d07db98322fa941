"""Settings: the names that are promised, their defaults, and what their values may be."""

import pytest
from pydantic import ValidationError

from rare_assets.settings import SAMPLE_CORPUS, Settings

# Variable, field, a value as the environment has it, and what it means.
VARIABLES = [
    ("RARE_SOURCE", "source", "s3://bucket/corpus", "s3://bucket/corpus"),
    ("RARE_STORAGE", "storage", "/data/rare", "/data/rare"),
    ("RARE_COLUMNS", "columns", "text=body", "text=body"),
    ("RARE_PASSAGE_WORDS", "passage_words", "0", 0),
    ("RARE_SPLIT_ROWS", "split_rows", "true", True),
    ("RARE_ROWS_PER_SHARD", "rows_per_shard", "500", 500),
    ("RARE_STRIP_BOILERPLATE", "strip_boilerplate", "true", True),
    ("RARE_FILES_PER_SHARD", "files_per_shard", "1", 1),
    ("RARE_REMOVE_DELETED_SHARDS", "remove_deleted_shards", "true", True),
    ("RARE_MODEL", "model", "gpt-4o-mini", "gpt-4o-mini"),
    ("OPENAI_BASE_URL", "openai_base_url", "http://host/v1", "http://host/v1"),
    ("RARE_STRUCTURED_OUTPUT", "structured_output", "json_object", "json_object"),
    ("RARE_MAX_CONCURRENCY", "max_concurrency", "256", 256),
    ("RARE_MAX_IN_FLIGHT", "max_in_flight", "512", 512),
    ("RARE_REQUESTS_PER_MINUTE", "requests_per_minute", "500", 500),
    ("RARE_TOKENS_PER_MINUTE", "tokens_per_minute", "30000", 30_000),
    ("RARE_REQUEST_TIMEOUT", "request_timeout", "12.5", 12.5),
    ("RARE_MAX_COST_USD", "max_cost_usd", "0.5", 0.5),
    ("RARE_MAX_REQUESTS", "max_requests", "10", 10),
    ("RARE_MAX_UNUSABLE_ANSWERS", "max_unusable_answers", "0", 0),
    ("RARE_ENDPOINT_WAIT", "endpoint_wait", "7.5", 7.5),
    ("RARE_PRICES", "prices", "prices.json", "prices.json"),
    ("RARE_PROMPTS", "prompts", "prompts", "prompts"),
    ("RARE_SHARDS_AT_ONCE", "shards_at_once", "2", 2),
    ("RARE_MAX_REJECT_RATE", "max_reject_rate", "0.2", 0.2),
    ("RARE_BLOCK_REJECT_RATE", "block_reject_rate", "1", 1.0),
    ("RARE_MAX_SHORT_OF_NEGATIVES_RATE", "max_short_of_negatives_rate", "0", 0.0),
    ("RARE_MAX_NEAR_DUPLICATE_RATE", "max_near_duplicate_rate", "0.01", 0.01),
    ("RARE_MAX_QUOTING_RATE", "max_quoting_rate", "0.02", 0.02),
    ("RARE_MAX_REFERRING_RATE", "max_referring_rate", "0.03", 0.03),
    ("RARE_MAX_COMPOUND_RATE", "max_compound_rate", "0.04", 0.04),
    ("RARE_MAX_GIVEAWAY_RATE", "max_giveaway_rate", "0.04", 0.04),
    ("RARE_MAX_SAME_SHAPE_RATE", "max_same_shape_rate", "0.04", 0.04),
    ("RARE_MAX_GOLD_FIRST_RATE", "max_gold_first_rate", "0.04", 0.04),
    ("RARE_MAX_SHARED_WORDS_RATE", "max_shared_words_rate", "0.04", 0.04),
    ("RARE_MAX_LOOKUP_RATE", "max_lookup_rate", "0.04", 0.04),
    ("RARE_MAX_GOLD_UNUSED_RATE", "max_gold_unused_rate", "0.05", 0.05),
    ("RARE_MAX_OTHER_LANGUAGE_RATE", "max_other_language_rate", "0.06", 0.06),
    ("ELASTICSEARCH_URL", "elasticsearch_url", "http://a:1,http://b:2", "http://a:1,http://b:2"),
    ("ELASTICSEARCH_USERNAME", "elasticsearch_username", "elastic", "elastic"),
    ("ELASTICSEARCH_CA_CERTS", "elasticsearch_ca_certs", "ca.crt", "ca.crt"),
    ("RARE_ELASTICSEARCH_WAIT", "elasticsearch_wait", "30", 30.0),
    ("RARE_INDEX", "index", "mine", "mine"),
    ("RARE_UI_URL", "ui_url", "https://dagster.example", "https://dagster.example"),
    ("RARE_CACHE", "cache", "/cache", "/cache"),
    ("RARE_JOB_TAGS", "job_tags", '{"rare_job": {"a": "b"}}', '{"rare_job": {"a": "b"}}'),
    ("RARE_QUESTIONS_MODEL", "questions_model", "gpt", "gpt"),
    ("RARE_QUESTIONS_BASE_URL", "questions_base_url", "https://host/v1", "https://host/v1"),
    ("RARE_REASONING_MODEL", "reasoning_model", "gpt", "gpt"),
    ("RARE_REASONING_BASE_URL", "reasoning_base_url", "https://host/v1", "https://host/v1"),
    ("RARE_JUDGE_MODEL", "judge_model", "gpt", "gpt"),
    ("RARE_JUDGE_BASE_URL", "judge_base_url", "https://host/v1", "https://host/v1"),
    ("RARE_CONFIG", "config", "options.yaml", "options.yaml"),
    ("DAGSTER_HOME", "dagster_home", "/data/dagster", "/data/dagster"),
]
SECRETS = {
    "OPENAI_API_KEY": "openai_api_key",
    "RARE_QUESTIONS_API_KEY": "questions_api_key",
    "RARE_REASONING_API_KEY": "reasoning_api_key",
    "RARE_JUDGE_API_KEY": "judge_api_key",
    "RARE_EXTRA_HEADERS": "extra_headers",
    "RARE_EXTRA_BODY": "extra_body",
    "RARE_WEBHOOK_URL": "webhook_url",
    "ELASTICSEARCH_API_KEY": "elasticsearch_api_key",
    "ELASTICSEARCH_PASSWORD": "elasticsearch_password",
}


@pytest.mark.parametrize(("variable", "field", "value", "meant"), VARIABLES)
def test_a_variable_sets_its_field(nothing_set, variable, field, value, meant):
    nothing_set.setenv(variable, value)
    assert getattr(Settings(), field) == meant


def test_every_field_is_tested_and_described():
    tested = {field for _, field, _, _ in VARIABLES} | set(SECRETS.values())
    assert tested == set(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())


def test_with_nothing_set_a_first_try_needs_no_server_and_costs_nothing(nothing_set):
    settings = Settings()
    assert settings.source == str(SAMPLE_CORPUS)
    assert (settings.storage, settings.dagster_home) == (".rare/storage", ".rare/dagster")
    assert (settings.rows_per_shard, settings.index) == (10_000, "rare-documents")
    free = (settings.model, settings.elasticsearch_url, settings.openai_api_key)
    assert free == (None, None, None)


def test_an_empty_variable_counts_as_not_set(nothing_set):
    nothing_set.setenv("RARE_MODEL", "")
    nothing_set.setenv("RARE_STORAGE", "")
    assert (Settings().model, Settings().storage) == (None, ".rare/storage")


@pytest.mark.parametrize(("variable", "field"), SECRETS.items())
def test_a_secret_is_in_no_repr_and_no_dump(nothing_set, variable, field):
    value = '{"X-Team": "h1dd3n-value"}' if "EXTRA" in variable else "h1dd3n-value"
    nothing_set.setenv(variable, value)
    settings = Settings()
    assert getattr(settings, field).get_secret_value() == value
    for shown in (
        repr(settings),
        str(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
    ):
        assert "h1dd3n-value" not in shown


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RARE_ROWS_PER_SHARD", "0"),
        ("RARE_MAX_CONCURRENCY", "-1"),
        ("RARE_MAX_CONCURRENCY", "many"),
        ("RARE_MAX_COST_USD", "0"),
        ("RARE_MAX_REJECT_RATE", "1.5"),
        ("RARE_REQUEST_TIMEOUT", "0"),
        ("RARE_STRUCTURED_OUTPUT", "xml"),
        ("RARE_EXTRA_HEADERS", "X-Team: a"),
        ("RARE_EXTRA_HEADERS", '["a"]'),
        ("RARE_EXTRA_HEADERS", '{"X-Team": 5}'),
        ("RARE_EXTRA_BODY", "top_p=1"),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_variables_name(nothing_set, variable, value):
    nothing_set.setenv(variable, value)
    with pytest.raises(ValidationError, match=variable) as raised:
        Settings()
    assert "EXTRA" not in variable or value not in str(raised.value)
