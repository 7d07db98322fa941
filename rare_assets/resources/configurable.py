"""What the graph talks to, as Dagster sees it: typed, described resources, settable per deployment.

Each field that is left out comes from the environment when a run starts (`rare_assets.settings`).
Secrets are no fields: they come from the environment alone, so no config or UI page can show them.
"""

import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field, SecretStr

from rare_assets.corpus.passages import Cutting
from rare_assets.corpus.source import CorpusSource
from rare_assets.files.cache import temporary_folder
from rare_assets.files.file_urls import as_path
from rare_assets.resources.own_secrets import own_secret, secret_for
from rare_assets.resources.settable import SettableResource, setting
from rare_assets.settings import Settings
from rare_assets.storage.tables import ParquetTables, TableMissing
from rare_assets.text.shown_url import shown

if TYPE_CHECKING:
    from rare_assets.retriever import Retriever
    from rare_assets.teacher import (
        AnswerStore,
        EndpointOptions,
        EstimatingTeacher,
        Ledger,
        Limits,
        Places,
        Prices,
        Teacher,
    )

# Requests in flight by default.
ENDPOINT_CONCURRENCY = 64
EMBEDDED_CONCURRENCY = 2
# Each takes 90 MB of the embedded teacher's process, whose cores are busy with few.
EMBEDDED_SLOTS = 8
# The embedded model is small: what it has not said by then gets no better by going on.
EMBEDDED_MAX_TOKENS = 200
# By which Elasticsearch knows who asks.
CREDENTIALS = ("api_key", "username", "password")
# A terminal shows how far a step is about as often.
PROGRESS_SECONDS = 1.0


class Storage(SettableResource):
    """Where the tables, the index of the embedded engine and the teacher's answers lie."""

    root: str | None = setting("storage")
    dataset: str | None = Field(
        default=None,
        description="Name of the dataset: without a root of its own, it lies in that folder of RARE_STORAGE.",
    )

    def tables(self) -> ParquetTables:
        """Return the stored tables."""
        return ParquetTables(self._place)

    @property
    def _place(self) -> str:
        if self.root:
            return as_path(self.root)
        root = as_path(Settings().storage)
        return f"{root.rstrip('/')}/{self.dataset}" if self.dataset else root

    @property
    def location(self) -> str:
        """The root, for people: an absolute path or a URL."""
        root = self._place
        place = root.rstrip("/") if "://" in root else Path(root).expanduser().absolute()
        return shown(place)

    def content_hash(self, table: str, shard: str) -> str:
        """Return the hash of what a stored shard holds. Raises TableMissing and StorageError."""
        stored = self.tables().provenance(table, shard)
        if stored is None:
            raise TableMissing(f"Materialize {table} for shard {shard!r} first.")
        return stored.content_hash


class Corpus(SettableResource):
    """The files that hold the documents."""

    url: str | None = setting("source")
    columns: str | None = setting("columns")
    passage_words: int | None = setting("passage_words")
    split_rows: bool | None = setting("split_rows")
    rows_per_shard: int | None = setting("rows_per_shard")
    strip_boilerplate: bool | None = setting("strip_boilerplate")
    files_per_shard: int | None = setting("files_per_shard")
    remove_deleted_shards: bool | None = setting("remove_deleted_shards")

    @property
    def removes_deleted_shards(self) -> bool:
        """Whether shards are removed whose file is gone from the source."""
        if self.remove_deleted_shards is None:
            return Settings().remove_deleted_shards
        return self.remove_deleted_shards

    def source(self) -> CorpusSource:
        """Return the files, and the shards they make."""
        settings = Settings()
        return CorpusSource(
            self.url or settings.source,
            self.rows_per_shard or settings.rows_per_shard,
            columns=settings.columns if self.columns is None else self.columns,
            cutting=Cutting(
                settings.passage_words if self.passage_words is None else self.passage_words,
                settings.split_rows if self.split_rows is None else self.split_rows,
            ),
            strip_boilerplate=settings.strip_boilerplate
            if self.strip_boilerplate is None
            else self.strip_boilerplate,
            files_per_shard=self.files_per_shard or settings.files_per_shard,
        )


class TeacherModel(SettableResource):
    """The model that writes questions and reasoning: an OpenAI-compatible endpoint, or the embedded one."""

    storage: dg.ResourceDependency[Storage]
    model: str | None = setting("model")
    base_url: str | None = setting("openai_base_url")
    questions_model: str | None = setting("questions_model")
    questions_base_url: str | None = setting("questions_base_url")
    reasoning_model: str | None = setting("reasoning_model")
    reasoning_base_url: str | None = setting("reasoning_base_url")
    judge_model: str | None = setting("judge_model")
    judge_base_url: str | None = setting("judge_base_url")
    structured_output: str | None = setting("structured_output")
    max_concurrency: int | None = setting("max_concurrency")
    max_in_flight: int | None = setting("max_in_flight")
    requests_per_minute: int | None = setting("requests_per_minute")
    tokens_per_minute: int | None = setting("tokens_per_minute")
    request_timeout: float | None = setting("request_timeout")
    max_cost_usd: float | None = setting("max_cost_usd")
    max_requests: int | None = setting("max_requests")
    max_unusable_answers: int | None = setting("max_unusable_answers")
    endpoint_wait: float | None = setting("endpoint_wait")
    prices: str | None = setting("prices")
    prompts: str | None = setting("prompts")
    role: str | None = Field(
        default=None, description="Set by the graph: what this one is the teacher of."
    )
    dataset: str | None = Field(
        default=None, description="Name of the dataset, before the variables of keys of its own."
    )

    @property
    def endpoint(self) -> tuple[str, str | None]:
        """The model that answers and where: teachers of one endpoint share what is learnt of it."""
        return self.name, self.base_url or Settings().openai_base_url

    def _is_elsewhere(self, settings: Settings) -> bool:
        """Return True if it has an endpoint of its own, which is sent no secret of the general
        one."""
        name = f"{self.role}_base_url"
        return self.role is not None and bool(getattr(self, name) or getattr(settings, name))

    def _secret(self, settings: Settings, name: str) -> Any:
        """Return a secret of the dataset's own, else that of the environment, if it is for the endpoint asked."""
        role = f"{self.role}_base_url"
        url = role if self._is_elsewhere(settings) else "openai_base_url"
        own = self.base_url if url == "openai_base_url" else getattr(self, role)
        return secret_for(self.dataset, name, own, getattr(settings, url))

    def _api_key(self, settings: Settings) -> SecretStr | None:
        own: SecretStr | None = (
            self._secret(settings, f"{self.role}_api_key") if self.role else None
        )
        if own is not None or self._is_elsewhere(settings):
            return own
        key: SecretStr | None = self._secret(settings, "openai_api_key")
        return key

    @property
    def name(self) -> str:
        """The model that will answer, known without asking it."""
        from rare_assets.teacher import EMBEDDED_MODEL

        return self.model or Settings().model or EMBEDDED_MODEL

    @property
    def prompts_folder(self) -> str | None:
        """Folder of the user's own prompt templates, if there is one."""
        return self.prompts or Settings().prompts

    @property
    def is_embedded(self) -> bool:
        """True if no model is named, so that the one on this machine is asked."""
        return not (self.model or Settings().model)

    @property
    def in_flight(self) -> int:
        """The most requests that one step has in flight."""
        wanted = self.max_concurrency or Settings().max_concurrency
        if self.is_embedded:
            return min(wanted or EMBEDDED_CONCURRENCY, EMBEDDED_SLOTS)
        return wanted or ENDPOINT_CONCURRENCY

    def max_tokens(self, given: int | None) -> int | None:
        """Return the longest answer in tokens: what an asset's options say, else the embedded
        teacher's own bound."""
        return given or (EMBEDDED_MAX_TOKENS if self.is_embedded else None)

    @asynccontextmanager
    async def estimating(
        self,
        *,
        refresh: bool = False,
        retry_rejects: bool = False,
        batch: bool = False,
        window: int | None = None,
        say: Callable[[str], None] | None = None,
    ) -> AsyncIterator["EstimatingTeacher"]:
        """Yield a teacher that asks nothing and counts what would be asked, and its cost in USD.

        Args:
            batch: at the price of the Batch API; what waits in batches is paid for.
            say: told of stored answers that can't be read.
            window: the model's, in tokens; default, what an earlier run learnt of it.
        """
        from rare_assets.teacher import AnswerStore, EstimatingTeacher

        async with AnswerStore(self._answers, say=say) as store:
            endpoint = self._endpoint_name()
            yield EstimatingTeacher(
                self.name,
                store,
                self.load_prices(),
                refresh=refresh,
                retry_rejects=retry_rejects,
                batch=batch,
                window=window or self.known_window(store),
                batches=store.folder("batches") if batch and endpoint else None,
                endpoint=endpoint or "",
            )

    def known_window(self, store: "AnswerStore") -> int | None:
        """Return the tokens that the model takes at once, as earlier runs learnt; nothing is
        asked."""
        from rare_assets.teacher import CONTEXT_TOKENS, Memory

        model = self.model or Settings().model
        if model is None:
            return CONTEXT_TOKENS
        name = self._endpoint_name()
        if name is None:
            return None
        return Memory(store.folder("endpoints"), model, name).load().window or None

    def _endpoint_name(self) -> str | None:
        """Return the name of the model at its endpoint; None for the embedded one, or if its URL is none."""
        from rare_assets.teacher import endpoint_name

        settings = Settings()
        model = self.model or settings.model
        try:
            return model and endpoint_name(self.base_url or settings.openai_base_url, model)
        except ValueError:  # said when it is opened
            return None

    def load_prices(self) -> "Prices":
        """Load the shipped prices, with those of RARE_PRICES over them. Raises ValueError."""
        from rare_assets.teacher import Prices

        return Prices.load(self.prices or Settings().prices)

    @property
    def limited(self) -> bool:
        """Whether a rate, a cost or a number of requests is limited."""
        limits = self._limits(Settings())
        return any(
            (
                limits.requests_per_minute,
                limits.tokens_per_minute,
                limits.max_cost_usd,
                limits.max_requests,
            )
        )

    @property
    def _answers(self) -> str:
        return str(self.storage.tables().root / "teacher_answers")

    @asynccontextmanager
    async def open(
        self,
        *,
        refresh: bool = False,
        retry_rejects: bool = False,
        batch: bool = False,
        ledger: "Ledger | None" = None,
        say: Callable[[str], None] | None = None,
    ) -> AsyncIterator["Teacher"]:
        """Yield a teacher for one step; its answers are stored under the storage root.

        Args:
            refresh: ask anew, whatever is stored.
            retry_rejects: ask anew where no stored answer can be used.
            batch: through the endpoint's Batch API, at half the price and within a day.
            ledger: counts what the limits hold for, default this step's own requests.
            say: called with a line for people about what they would not expect.

        Raises:
            ValueError: the embedded teacher was asked for batches.
        """
        from rare_assets.teacher import AnswerStore, BatchTeacher, OpenAITeacher

        settings = Settings()
        model = self.model or settings.model
        limits = self._limits(settings)
        how: dict[str, Any] = {
            "prices": self.load_prices(),
            "ledger": ledger,
            "say": say,
            "refresh": refresh,
            "retry_rejects": retry_rejects,
            "progress_every_s": PROGRESS_SECONDS,
        }
        teacher: Teacher
        async with AnswerStore(self._answers, say=say) as store:
            if model is None:
                if batch:
                    raise ValueError("mode=batch needs an endpoint: set RARE_MODEL.")
                async with _embedded(store=store, limits=limits, **how) as teacher:
                    yield teacher
                return
            how |= {"model": model, "store": store, "limits": limits}
            how["endpoint"] = self._endpoint(settings, store)
            if batch:
                async with BatchTeacher(**how) as teacher:
                    yield teacher
            else:
                places, batches = self._places(limits.max_concurrency), store.folder("batches")
                async with OpenAITeacher(places=places, batches=batches, **how) as teacher:
                    yield teacher

    def _limits(self, settings: Settings) -> "Limits":
        from rare_assets.teacher import Limits, Patience

        wait = self.endpoint_wait or settings.endpoint_wait
        most_unusable = self.max_unusable_answers
        return Limits(
            max_concurrency=self.in_flight,
            requests_per_minute=self.requests_per_minute or settings.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute or settings.tokens_per_minute,
            request_timeout=self.request_timeout or settings.request_timeout,
            max_cost_usd=self.max_cost_usd or settings.max_cost_usd,
            max_requests=self.max_requests or settings.max_requests,
            max_unusable_answers=settings.max_unusable_answers
            if most_unusable is None
            else most_unusable,
            patience=Patience(dead_after=wait, stalled_after=5 * wait),
        )

    def _endpoint(self, settings: Settings, store: "AnswerStore") -> "EndpointOptions":
        from rare_assets.teacher import EndpointOptions

        mode = self.structured_output or settings.structured_output
        elsewhere = self._is_elsewhere(settings)
        return EndpointOptions(
            base_url=self.base_url or settings.openai_base_url,
            api_key=self._api_key(settings),
            structured_output=None if mode == "auto" else mode,
            extra_headers={} if elsewhere else _secrets_in(self._secret(settings, "extra_headers")),
            extra_body=_fields_in(own_secret(self.dataset, "extra_body") or settings.extra_body),
            memory=store.folder("endpoints"),
        )

    def _places(self, of_step: int) -> "Places":
        """Return the places in flight that this user's steps with the same DAGSTER_HOME share
        here."""
        from rare_assets.teacher import Places

        settings = Settings()
        home = str(Path(settings.dagster_home).expanduser().absolute())
        # Another user could not open the file.
        user = os.getuid() if hasattr(os, "getuid") else 0
        whose = f"{user}:{home}"
        name = f"rare-assets-in-flight-{hashlib.sha256(whose.encode()).hexdigest()[:16]}"
        count = self.max_in_flight or settings.max_in_flight or settings.shards_at_once * of_step
        return Places(Path(temporary_folder()) / name, count)


@asynccontextmanager
async def _embedded(*, limits: "Limits", **how: Any) -> AsyncIterator["Teacher"]:
    from rare_assets.teacher import CONTEXT_TOKENS, EmbeddedServer, EndpointOptions, OpenAITeacher

    # What has no price can't reach a cost.
    unpriced = replace(limits, max_cost_usd=None)
    with EmbeddedServer(slots=limits.max_concurrency) as server:
        endpoint = EndpointOptions(
            base_url=server.base_url, api_key=SecretStr("none is needed"), window=CONTEXT_TOKENS
        )
        async with OpenAITeacher(
            model=server.model, endpoint=endpoint, limits=unpriced, **how
        ) as teacher:
            yield teacher


# What may have a teacher of its own.
ROLES = ("questions", "reasoning", "judge")


def teacher_of(teacher: TeacherModel, role: str) -> TeacherModel:
    """Return the teacher that does one thing: the settings of that name over the general ones.

    A teacher of somebody's own class does all.
    """
    if not isinstance(teacher, TeacherModel):
        return teacher
    settings = Settings()
    model, base_url = (
        getattr(teacher, f"{role}_{name}") or getattr(settings, f"{role}_{name}")
        for name in ("model", "base_url")
    )
    key = f"{role}_api_key"
    if not (model or base_url or getattr(settings, key) or own_secret(teacher.dataset, key)):
        return teacher
    own = dict(teacher)
    chosen = {"model": model or teacher.model, "base_url": base_url or teacher.base_url}
    return type(teacher)(**{**own, **chosen, "role": role})


def judges_apart(judge: TeacherModel, teacher: TeacherModel) -> bool:
    """Return True if a judge is another than the teacher whose answers it judges. One of somebody's
    own class is both."""
    return judge is not teacher and judge.endpoint != teacher.endpoint


def _fields_in(given: SecretStr | None) -> dict[str, Any]:
    return json.loads(given.get_secret_value()) if given is not None else {}


def _secrets_in(given: SecretStr | None) -> dict[str, SecretStr]:
    return {name: SecretStr(value) for name, value in _fields_in(given).items()}


class Bm25Retriever(SettableResource):
    """BM25 over the whole corpus: Elasticsearch where ELASTICSEARCH_URL is set, else the embedded engine."""

    storage: dg.ResourceDependency[Storage]
    elasticsearch_url: str | None = setting("elasticsearch_url")
    ca_certs: str | None = setting("elasticsearch_ca_certs")
    wait: float | None = setting("elasticsearch_wait")
    index: str | None = setting("index")
    dataset: str | None = Field(
        default=None,
        description="Name of the dataset: without an index of its own, it is RARE_INDEX with that name behind "
        "it.",
    )

    def _secret(self, name: str) -> Any:
        return secret_for(self.dataset, name, self.elasticsearch_url, Settings().elasticsearch_url)

    @property
    def engine(self) -> Literal["elasticsearch", "embedded"]:
        """Which engine ranks."""
        url = self.elasticsearch_url or Settings().elasticsearch_url
        return "elasticsearch" if url else "embedded"

    @property
    def _name(self) -> str:
        return self.index or "-".join(filter(None, [Settings().index, self.dataset]))

    @property
    def place(self) -> str | None:
        """Where the index lies on a server, for people; None where it lies in the storage."""
        url = self.elasticsearch_url or Settings().elasticsearch_url
        return f"{self._name} of {shown(url)}" if url else None

    @contextmanager
    def open(self, *, first_wait: float | None = None) -> Iterator["Retriever"]:
        """Yield the retriever, for one step or for a command.

        Args:
            first_wait: seconds to wait for an Elasticsearch that this process has never reached.
                Default: as long as for one that is gone, since a step may start while a server
                that the command has seen is started anew.
        """
        settings = Settings()
        url = self.elasticsearch_url or settings.elasticsearch_url
        index = self._name
        retriever: Retriever
        if url:
            from rare_assets.retriever import ElasticsearchRetriever

            retriever = ElasticsearchRetriever(
                url,
                index,
                **{name: self._secret(f"elasticsearch_{name}") for name in CREDENTIALS},
                ca_certs=self.ca_certs or settings.elasticsearch_ca_certs,
                wait_seconds=settings.elasticsearch_wait if self.wait is None else self.wait,
                first_wait_seconds=first_wait,
            )
        else:
            from rare_assets.retriever import EmbeddedRetriever

            retriever = EmbeddedRetriever(str(self.storage.tables().root / "corpus_index" / index))
        try:
            yield retriever
        finally:
            retriever.close()


FIRST_WAIT = 5  # seconds until a user is told that no Elasticsearch was ever there
