"""Every setting that comes from the environment, with its default and meaning, in one class.

Resources read it when a run starts, never at import, so definitions load with nothing set. A field
given on a resource wins over the environment. Secrets are `SecretStr`: no repr or log shows them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rare_assets.text.shown_url import shown_fields

# The environment that settings were last read from, and what they were.
_last_read: tuple[tuple[tuple[str, str], ...] | None, dict[Any, Any]] = None, {}
SAMPLE_CORPUS = Path(__file__).parent / "sample_corpus"


class Settings(BaseSettings):
    """The environment, read once at construction. An empty variable counts as not set."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    def __init__(self, **given: Any) -> None:
        """Do as `BaseSettings`, but read the same environment once: a step reads it dozens of
        times, some milliseconds each."""
        global _last_read
        environment = tuple(os.environ.items())
        if not given and environment == _last_read[0]:
            self.__setstate__(_last_read[1])
            return
        super().__init__(**given)
        if not given:
            _last_read = environment, self.__getstate__()

    @field_validator("extra_headers", "extra_body")
    @classmethod
    def _is_object(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Refuse what is no JSON object, and headers that are no texts, without showing it."""
        if value is None:
            return None
        try:
            content = json.loads(value.get_secret_value())
        except ValueError:
            content = None
        texts = info.field_name != "extra_headers" or (
            isinstance(content, dict) and all(isinstance(each, str) for each in content.values())
        )
        if not (isinstance(content, dict) and texts):
            kind = "texts" if info.field_name == "extra_headers" else "fields"
            raise ValueError(f'give a JSON object of {kind}, such as {{"name": "value"}}')
        return value

    @field_validator("job_tags")
    @classmethod
    def _is_tags_by_job(cls, value: str | None) -> str | None:
        """Refuse what is no JSON object of objects."""
        try:
            content = json.loads(value or "{}")
        except ValueError:
            content = None
        if not (
            isinstance(content, dict) and all(isinstance(each, dict) for each in content.values())
        ):
            raise ValueError('give a JSON object such as {"rare_job": {"dagster/priority": "1"}}')
        return value

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Return the fields for a repr, URLs without their secrets."""
        return shown_fields(super().__repr_args__())

    source: str = Field(
        str(SAMPLE_CORPUS),
        validation_alias="RARE_SOURCE",
        description="Folder, file or URL (s3://, gs://, file://) of the corpus. "
        "Default: the bundled sample corpus.",
    )
    storage: str = Field(
        ".rare/storage",
        validation_alias="RARE_STORAGE",
        description="Folder or URL where the Parquet tables go: outside of the source, or in a folder of it that begins "
        "with a dot.",
    )
    columns: str | None = Field(
        None,
        validation_alias="RARE_COLUMNS",
        description="Which column of a data file is which, as in text=contents,id=_id; of text, id, title, "
        "question, scenario, answer those left out keep their name.",
    )
    passage_words: int = Field(
        300,
        ge=0,
        validation_alias="RARE_PASSAGE_WORDS",
        description="Words in a passage of a text file at most; characters in Chinese, Japanese, Thai and "
        "their like. 0: text files are not cut.",
    )
    split_rows: bool = Field(
        False,
        validation_alias="RARE_SPLIT_ROWS",
        description="Cut the rows of data files into passages, too.",
    )
    rows_per_shard: int = Field(
        10_000, ge=1, validation_alias="RARE_ROWS_PER_SHARD", description="Rows in a shard at most."
    )
    strip_boilerplate: bool = Field(
        False,
        validation_alias="RARE_STRIP_BOILERPLATE",
        description="Leave out lines that stand in more than a fifth of the text files of a shard of ten or "
        "more, as menus and legal footers do.",
    )
    files_per_shard: int = Field(
        200,
        ge=1,
        validation_alias="RARE_FILES_PER_SHARD",
        description="Text files in a shard at most, once there are more than 50 of them; small data files (of 64 KB at "
        "most) likewise, once there are more than 200. 1: each its own.",
    )
    remove_deleted_shards: bool = Field(
        False,
        validation_alias="RARE_REMOVE_DELETED_SHARDS",
        description="Remove partition and tables of a shard whose file is gone from the source; its "
        "stored answers stay.",
    )
    model: str | None = Field(
        None,
        validation_alias="RARE_MODEL",
        description="The teacher's name at the endpoint. Unset: the embedded teacher.",
    )
    openai_base_url: str | None = Field(
        None,
        validation_alias="OPENAI_BASE_URL",
        description="OpenAI-compatible endpoint, used only with RARE_MODEL. Default: OpenAI's own.",
    )
    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias="OPENAI_API_KEY",
        description="Key for the endpoint, used only with RARE_MODEL.",
    )
    questions_model: str | None = Field(
        None,
        validation_alias="RARE_QUESTIONS_MODEL",
        description="The teacher that writes the questions. Default: RARE_MODEL.",
    )
    questions_base_url: str | None = Field(
        None,
        validation_alias="RARE_QUESTIONS_BASE_URL",
        description="That teacher's endpoint, where it is another. Default: OPENAI_BASE_URL.",
    )
    questions_api_key: SecretStr | None = Field(
        None,
        validation_alias="RARE_QUESTIONS_API_KEY",
        description="Key for that teacher. Default: OPENAI_API_KEY; none where it has an endpoint of its own.",
    )
    reasoning_model: str | None = Field(
        None,
        validation_alias="RARE_REASONING_MODEL",
        description="The teacher that writes the reasoning. Default: RARE_MODEL.",
    )
    reasoning_base_url: str | None = Field(
        None,
        validation_alias="RARE_REASONING_BASE_URL",
        description="That teacher's endpoint, where it is another. Default: OPENAI_BASE_URL.",
    )
    reasoning_api_key: SecretStr | None = Field(
        None,
        validation_alias="RARE_REASONING_API_KEY",
        description="Key for that teacher. Default: OPENAI_API_KEY; none where it has an endpoint of its own.",
    )
    judge_model: str | None = Field(
        None,
        validation_alias="RARE_JUDGE_MODEL",
        description="The teacher that judges questions, negatives and answers. Default: RARE_MODEL.",
    )
    judge_base_url: str | None = Field(
        None,
        validation_alias="RARE_JUDGE_BASE_URL",
        description="That teacher's endpoint, where it is another. Default: OPENAI_BASE_URL.",
    )
    judge_api_key: SecretStr | None = Field(
        None,
        validation_alias="RARE_JUDGE_API_KEY",
        description="Key for that teacher. Default: OPENAI_API_KEY; none where it has an endpoint of its own.",
    )
    extra_headers: SecretStr | None = Field(
        None,
        validation_alias="RARE_EXTRA_HEADERS",
        description="JSON object of headers sent with every request to the endpoint; secrets.",
    )
    extra_body: SecretStr | None = Field(
        None,
        validation_alias="RARE_EXTRA_BODY",
        description="JSON object of fields sent in every request to the endpoint, over those of the run; not shown. "
        "Stored answers are found without regard to it: set `refresh` where it changes them.",
    )
    structured_output: str = Field(
        "auto",
        pattern="^(auto|json_schema|json_schema_unbounded|json_schema_plain|json_object|text)$",
        validation_alias="RARE_STRUCTURED_OUTPUT",
        description="How JSON is asked for: json_schema, json_schema_unbounded, json_schema_plain, json_object or "
        "text (told in the prompt). Default: the first that the endpoint takes, found out by trying.",
    )
    max_concurrency: int | None = Field(
        None,
        ge=1,
        validation_alias="RARE_MAX_CONCURRENCY",
        description="Requests in flight per step. Default: 64, embedded teacher 2, of which it takes 8 at most.",
    )
    max_in_flight: int | None = Field(
        None,
        ge=1,
        validation_alias="RARE_MAX_IN_FLIGHT",
        description="Requests in flight of all steps on a machine together: one with few left leaves its places "
        "to others. Default: RARE_SHARDS_AT_ONCE times RARE_MAX_CONCURRENCY.",
    )
    requests_per_minute: int | None = Field(
        None,
        ge=1,
        validation_alias="RARE_REQUESTS_PER_MINUTE",
        description="Requests started per minute at most, all steps of an instance together. Default: no limit.",
    )
    tokens_per_minute: int | None = Field(
        None,
        ge=1,
        validation_alias="RARE_TOKENS_PER_MINUTE",
        description="Prompt and completion tokens per minute at most, likewise. Default: no limit.",
    )
    request_timeout: float = Field(
        600.0,
        gt=0,
        validation_alias="RARE_REQUEST_TIMEOUT",
        description="Seconds until a request counts as lost and is sent again.",
    )
    max_cost_usd: float | None = Field(
        None,
        gt=0,
        validation_alias="RARE_MAX_COST_USD",
        description="Stop cleanly once new answers cost this much: all of a `rare-assets run`, of a backfill, "
        "or of a single run together. Default: no limit.",
    )
    max_requests: int | None = Field(
        None,
        ge=1,
        validation_alias="RARE_MAX_REQUESTS",
        description="Stop cleanly after this many new requests, counted likewise. Default: no limit.",
    )
    max_unusable_answers: int = Field(
        20,
        ge=0,
        validation_alias="RARE_MAX_UNUSABLE_ANSWERS",
        description="Stop cleanly after this many new answers in a row that can't be used, with none in a "
        "stage that can, counted likewise. 0: never.",
    )
    endpoint_wait: float = Field(
        120.0,
        gt=0,
        validation_alias="RARE_ENDPOINT_WAIT",
        description="Seconds that an endpoint is waited for which is gone, fails every request or answers none "
        "in time (five times as long while it throttles); then the run stops cleanly.",
    )
    prices: str | None = Field(
        None,
        validation_alias="RARE_PRICES",
        description="JSON file of prices per model, over the shipped table.",
    )
    prompts: str | None = Field(
        None,
        validation_alias="RARE_PROMPTS",
        description="Folder with your own prompt templates; those it lacks come from the package.",
    )
    shards_at_once: int = Field(
        4,
        ge=1,
        validation_alias="RARE_SHARDS_AT_ONCE",
        description="Shards that `rare-assets run` works on side by side (embedded teacher: 1); up to as many more, four a core, ask with the places in flight that those leave.",
    )
    max_reject_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_REJECT_RATE",
        description="Share of rejects in a shard above which a check warns.",
    )
    block_reject_rate: float = Field(
        0.5,
        ge=0,
        le=1,
        validation_alias="RARE_BLOCK_REJECT_RATE",
        description="Share of rejects in a shard above which nothing downstream starts.",
    )
    max_short_of_negatives_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_SHORT_OF_NEGATIVES_RATE",
        description="Share of questions with fewer than num_neg negatives above which a check warns.",
    )
    max_near_duplicate_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_NEAR_DUPLICATE_RATE",
        description="Share of questions in a shard that repeat an earlier one above which a check warns.",
    )
    max_quoting_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_QUOTING_RATE",
        description="Share of questions that quote their document above which a check warns.",
    )
    max_referring_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_REFERRING_RATE",
        description='Share of questions that speak of "the text" above which a check warns.',
    )
    max_lookup_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_LOOKUP_RATE",
        description="Share of questions that one sentence answers above which a check warns.",
    )
    max_compound_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_COMPOUND_RATE",
        description="Share of questions that ask several things at once above which a check warns.",
    )
    max_giveaway_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_GIVEAWAY_RATE",
        description="Share of questions whose words, or whose scenario's, give the answer away above which a check warns.",
    )
    max_same_shape_rate: float = Field(
        0.5,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_SAME_SHAPE_RATE",
        description="Share of questions that begin alike, or miss the length asked for, above which a check warns.",
    )
    max_gold_first_rate: float = Field(
        0.9,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_GOLD_FIRST_RATE",
        description="Share of questions whose gold document BM25 ranks first above which a check warns.",
    )
    max_shared_words_rate: float = Field(
        0.5,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_SHARED_WORDS_RATE",
        description="Share of questions most of whose words are their gold document's above which a check warns.",
    )
    max_gold_unused_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_GOLD_UNUSED_RATE",
        description="Share of reasoning that ignores its gold document above which a check warns.",
    )
    max_other_language_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        validation_alias="RARE_MAX_OTHER_LANGUAGE_RATE",
        description="Share of texts in another language than their document above which a check warns.",
    )
    elasticsearch_url: str | None = Field(
        None,
        validation_alias="ELASTICSEARCH_URL",
        description="Elasticsearch 9: a node, several with commas, or a cloud id. Unset: the embedded index.",
    )
    elasticsearch_api_key: SecretStr | None = Field(
        None, validation_alias="ELASTICSEARCH_API_KEY", description="API key for Elasticsearch."
    )
    elasticsearch_username: str | None = Field(
        None, validation_alias="ELASTICSEARCH_USERNAME", description="User for Elasticsearch."
    )
    elasticsearch_password: SecretStr | None = Field(
        None, validation_alias="ELASTICSEARCH_PASSWORD", description="That user's password."
    )
    elasticsearch_ca_certs: str | None = Field(
        None,
        validation_alias="ELASTICSEARCH_CA_CERTS",
        description="CA file that Elasticsearch's certificate is checked with.",
    )
    elasticsearch_wait: float = Field(
        120.0,
        ge=0,
        validation_alias="RARE_ELASTICSEARCH_WAIT",
        description="Seconds that requests are repeated while Elasticsearch is gone or overloaded.",
    )
    index: str = Field(
        "rare-documents", validation_alias="RARE_INDEX", description="Index (alias) name."
    )
    webhook_url: SecretStr | None = Field(
        None,
        validation_alias="RARE_WEBHOOK_URL",
        description="Where the sensor `tell_failures` posts failed runs and checks; a secret.",
    )
    ui_url: str = Field(
        "http://127.0.0.1:3000",
        validation_alias="RARE_UI_URL",
        description="Address of the Dagster UI, for links in posts; `rare-assets dev` sets its own.",
    )
    cache: str | None = Field(
        None,
        validation_alias="RARE_CACHE",
        description="Folder of this machine for local copies of an index on an object store, and, where it is "
        "set, for all temporary files. Default: this user's cache folder.",
    )
    job_tags: str | None = Field(
        None,
        validation_alias="RARE_JOB_TAGS",
        description="JSON object of tags for the runs of a job, by the job's name: resources on Kubernetes "
        "(`dagster-k8s/config`), a queue of Celery (`dagster-celery/queue`), a priority.",
    )
    config: str | None = Field(
        None,
        validation_alias="RARE_CONFIG",
        description="YAML file of Dagster run config, of `ops:` (`ops: {questions: {config: {...}}}`) and "
        "`resources: {teacher: {config: {...}}}`: the defaults of every run, sensor and backfill. Default: none.",
    )
    dagster_home: str = Field(
        ".rare/dagster",
        validation_alias="DAGSTER_HOME",
        description="The Dagster instance of `rare-assets`' own commands.",
    )


# Where checks begin to warn, or to block: shares of a shard's rows.
THRESHOLDS = tuple(name for name in Settings.model_fields if name.endswith("_rate"))
