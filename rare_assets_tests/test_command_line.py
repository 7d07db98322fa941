"""`rare-assets run` as a user meets it: exit codes, what it prints, what it asks and what it keeps."""

import functools
import json
import os
import re
import resource
import subprocess

import dagster as dg
import pytest
from click.testing import CliRunner

from rare_assets.command.cli import main
from rare_assets.operators.templates import PACKAGED
from rare_assets_tests.support.command import COMMAND, Command
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import API_KEY, MODEL
from rare_assets_tests.support.passages import row, write_json_list, write_jsonl
from rare_assets_tests.support.ports import free_port

TABLES = ("documents", "questions", "hard_negatives", "reasoning")
# Shards and their documents: 40 in four files, one of them in a folder and in DataFlow's form.
CORPUS = {"a.jsonl": 12, "b.jsonl": 10, "c.jsonl": 10, "more/d.json": 8}
KEYS = {"a.jsonl": 12, "b.jsonl": 10, "c.jsonl": 10, "more__d.json": 8}
# What moves a terminal's cursor, or colours its text.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def write_corpus(folder):
    first = 0
    for name, size in CORPUS.items():
        write = write_json_list if name.endswith(".json") else write_jsonl
        write(folder / name, range(first, first + size))
        first += size


def stages(requests):
    """How many requests were for questions, and how many for reasoning."""
    questions = sum("response_format" in request.body for request in requests)
    return questions, len(requests) - questions


@pytest.fixture(scope="module")
def endpoint():
    with FakeEndpoint(key=API_KEY, models=[MODEL]) as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def forget(endpoint):
    """Each test sees its own requests alone."""
    endpoint.requests.clear()


class Finished:
    """A finished run of the command: its exit code, what it printed, the requests it sent."""

    def __init__(self, command, endpoint, *arguments, **settings):
        endpoint.requests.clear()
        done = command.run(*arguments, **settings)
        self.code, self.said = done.returncode, done.stdout
        self.sent = list(endpoint.requests)


@pytest.fixture(scope="module")
def command(endpoint, tmp_path_factory):
    """A workplace whose every name has blanks and letters beyond ASCII, one of them brackets."""
    folder = tmp_path_factory.mktemp("workplace") / "Größe & Maß 日本"
    settings = {"RARE_SOURCE": "Korpus № 1", "RARE_STORAGE": "Ablage [neu] über"}
    command = Command(folder, endpoint.url, **settings)
    command.corpus = folder / "Korpus № 1"
    write_corpus(command.corpus)
    return command


@pytest.fixture(scope="module")
def one_shard(command, endpoint):
    return Finished(command, endpoint, "run", "--shard", "b.jsonl")


@pytest.fixture(scope="module")
def whole(command, endpoint, one_shard):
    return Finished(command, endpoint, "run")


@pytest.fixture(scope="module")
def again(command, endpoint, whole):
    return Finished(command, endpoint, "run")


@pytest.fixture(scope="module")
def redone(command, endpoint, again):
    return Finished(command, endpoint, "run", "--all")


@pytest.fixture(scope="module")
def grown(command, endpoint, redone):
    """A run after one document came to the end of a file."""
    with (command.corpus / "c.jsonl").open("a") as lines:
        lines.write(json.dumps(row(40)) + "\n")
    return Finished(command, endpoint, "run")


def test_one_shard_is_asked_about_alone_with_negatives_of_the_whole_corpus(command, one_shard):
    assert one_shard.code == 0, one_shard.said
    assert stages(one_shard.sent) == (10, 10)
    indexed = command.tables.scan_file(command.tables.root / "corpus_index" / "shards.parquet")
    assert indexed.collect()["shard"].to_list() == list(KEYS)
    mined = command.tables.scan("hard_negatives", "b.jsonl").collect()["negatives"]
    ids = {negative["doc_id"] for negatives in mined for negative in negatives}
    assert ids - {f"p{number:03}" for number in range(12, 22)}


def test_the_whole_corpus_gives_a_row_a_document_in_every_table(command, whole):
    assert whole.code == 0, whole.said
    # The shard that was made before is not asked about again.
    assert stages(whole.sent) == (30, 30)
    for table in TABLES:
        assert command.n_rows(table) == KEYS


def test_the_end_shows_what_was_made_where_and_one_example(command, whole):
    lines = whole.said.splitlines()
    for table in TABLES:
        (line,) = (line for line in lines if line.startswith(f"│ {table} "))
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert cells == [table, "4 of 4", "40", "0", f"Ablage [neu] über/{table}/"]
    for label in ("scenario", "question", "gold document", "hard negative 3", "reasoning"):
        assert any(line.startswith(f"  {label}") for line in lines), label
    assert "rare-assets dev" in lines[-1]


def test_progress_is_told_line_by_line_where_there_is_no_terminal(whole):
    assert "questions: 3 to make (missing)" in whole.said
    assert "questions: a.jsonl: 12 rows" in whole.said
    assert "reasoning: more__d.json: 8 rows" in whole.said


def test_a_second_run_makes_and_asks_nothing(again):
    assert (again.code, again.sent) == (0, [])
    assert "to make" not in again.said


def test_all_makes_everything_anew_from_stored_answers(redone):
    assert (redone.code, redone.sent) == (0, [])
    for table, count in (("documents", 4), ("corpus_index", 1), ("questions", 4)):
        assert f"{table}: {count} to make (asked for)" in redone.said
    assert "reasoning: more__d.json: 8 rows" in redone.said


def test_one_document_more_costs_one_request_a_stage(command, grown):
    assert grown.code == 0, grown.said
    assert stages(grown.sent) == (1, 1)
    for table in TABLES:
        assert command.n_rows(table) == {**KEYS, "c.jsonl": 11}


def test_the_instance_holds_every_run_of_the_command(command, grown):
    runs = command.runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    made = [(run.job_name, run.tags.get("dagster/partition")) for run in reversed(runs)]
    before_index = made[: made.index(("corpus_index_job", None))]
    read = sorted(shard for job, shard in before_index if job == "documents_job")
    assert read == sorted(KEYS)
    asked = [shard for job, shard in made[:7] if job == "rare_job"]
    assert asked == ["b.jsonl", "b.jsonl"]  # its questions, and the rest with the index there
    with dg.DagsterInstance.from_config(str(command.home)) as instance:
        made = instance.get_materialized_partitions(dg.AssetKey("reasoning"))
    assert made == set(KEYS)


def test_the_api_key_is_in_no_file_and_no_output(command, grown):
    assert API_KEY not in command.printed
    files = [path for path in command.folder.rglob("*") if path.is_file()]
    assert any(command.home in path.parents for path in files)
    assert any("teacher_answers" in path.parts for path in files)
    assert [path for path in files if API_KEY.encode() in path.read_bytes()] == []


# ---- options and settings; each test makes one shard of a small corpus


@pytest.fixture
def small(endpoint, tmp_path):
    command = Command(tmp_path, endpoint.url, RARE_SHARDS_AT_ONCE="1")
    write_jsonl(command.corpus / "a.jsonl", range(8))
    return command


class Here:
    """The command in this process, where it starts no other; a process of its own takes seconds to start."""

    def __init__(self, small, environment, *arguments, **settings):
        for name, value in {**small.environment, **settings}.items():
            environment.setenv(name, value)
        environment.chdir(small.folder)
        result = CliRunner().invoke(main, list(arguments))
        self.code, self.said = result.exit_code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)


def test_config_reaches_the_assets_and_prompts_of_ones_own_are_asked_with(small, endpoint):
    options = small.folder / "options.yaml"
    options.write_text("ops: {hard_negatives: {config: {num_neg: 2}}}")
    first = Finished(small, endpoint, "run", "--config", str(options))
    assert first.code == 0, first.said
    mined = small.tables.scan("hard_negatives", "a.jsonl").collect()
    assert mined["hard_negatives"].list.len().to_list() == [2] * 8

    prompts = small.folder / "prompts"
    prompts.mkdir()
    wording = (PACKAGED / "reason_distill.md").read_text()
    (prompts / "reason_distill.md").write_text(f"{wording}\nWrite in the style of a dry logbook.\n")
    changed = Finished(small, endpoint, "run", "--config", str(options), RARE_PROMPTS=str(prompts))
    assert changed.code == 0, changed.said
    assert "reasoning: 1 to make (prompt)" in changed.said
    assert stages(changed.sent) == (0, 8)
    assert all("dry logbook" in request.raw.decode() for request in changed.sent)


def cells(said, first):
    """The cells of the row of a printed table that begins with this."""
    (line,) = (line for line in said.splitlines() if line.startswith(f"│ {first} "))
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


def test_status_shards_and_dry_run_say_what_there_is_and_what_a_run_would_cost(
    small, endpoint, nothing_set
):
    prices = {
        "models": {MODEL: {"prompt_usd_per_million": 1.0, "completion_usd_per_million": 10.0}}
    }
    (small.folder / "prices.json").write_text(json.dumps(prices))
    small.environment["RARE_PRICES"] = "prices.json"
    write_jsonl(small.corpus / "b.jsonl", range(8, 11))
    dry = Here(small, nothing_set, "run", "--dry-run")
    assert (dry.code, endpoint.requests) == (0, [])
    assert cells(dry.said, "reasoning")[:3] == ["2", "at most 11", "0"]
    assert cells(Here(small, nothing_set, "status").said, "questions")[:3] == ["0", "0", "2"]
    assert not small.tables.root.joinpath("questions").exists()

    made = Finished(small, endpoint, "run", "--shard", "a.jsonl")
    assert made.code == 0, made.said
    stored = [small.tables.scan(table, "a.jsonl").collect() for table in ("questions", "reasoning")]
    prompt, completion = (
        sum(frame[f"{kind}_tokens"].sum() for frame in stored) for kind in ("prompt", "completion")
    )
    cost = f"${(prompt + 10 * completion) / 1e6:.4f}"
    shards = Here(small, nothing_set, "shards")
    assert cells(shards.said, "a.jsonl") == ["8", "8", "8", "8", "8", cost]
    assert cells(shards.said, "b.jsonl") == ["3", "3", "-", "-", "-", "$0.0000"]
    status = Here(small, nothing_set, "status")
    assert cells(status.said, "documents") == ["2", "0", "0", "11", "0"]
    assert cells(status.said, "reasoning") == ["1", "0", "1", "8", "0"]
    spent = f"{prompt:,} prompt and {completion:,} completion tokens, {cost} at online prices."
    assert spent in status.said

    # What is stored is free, whatever is made again.
    endpoint.requests.clear()
    again = Here(small, nothing_set, "run", "--all", "--dry-run", "--shard", "a.jsonl")
    assert cells(again.said, "questions")[:3] == ["1", "0", "8"]
    assert cells(again.said, "reasoning")[:3] == ["1", "0", "8"]
    assert endpoint.requests == []
    write_jsonl(small.corpus / "a.jsonl", range(7))
    changed = Here(small, nothing_set, "shards")
    assert cells(changed.said, "a.jsonl")[1] == "8 (rows, version)"


def test_a_deleted_file_is_told_and_takes_its_shard_along_only_if_that_is_set(
    small, endpoint, nothing_set
):
    write_jsonl(small.corpus / "b.jsonl", range(8, 11))
    assert Finished(small, endpoint, "run").code == 0
    (small.corpus / "b.jsonl").unlink()
    told = Here(small, nothing_set, "status", RARE_REMOVE_DELETED_SHARDS="true")
    assert "1 registered shards are not in this source: b.jsonl." in told.said
    kept = Finished(small, endpoint, "run")
    assert "RARE_REMOVE_DELETED_SHARDS=true" in kept.said
    assert small.n_rows("reasoning") == {"a.jsonl": 8, "b.jsonl": 3}

    removed = Finished(small, endpoint, "run", RARE_REMOVE_DELETED_SHARDS="true")
    assert removed.code == 0, removed.said
    assert "1 shards whose files are gone were removed" in removed.said
    assert all(small.n_rows(table) == {"a.jsonl": 8} for table in TABLES)
    indexed = small.tables.scan_file(small.tables.root / "corpus_index" / "shards.parquet")
    assert indexed.collect()["shard"].to_list() == ["a.jsonl"]

    # Its answers were paid for: they are there when it comes back.
    write_jsonl(small.corpus / "b.jsonl", range(8, 11))
    back = Finished(small, endpoint, "run")
    assert (back.code, small.n_rows("questions")) == (0, {"a.jsonl": 8, "b.jsonl": 3})
    assert stages(back.sent)[0] == 0


def test_a_terminal_gets_a_bar_a_table_that_fits_it(small):
    code, shown = small.run_on_terminal("run", columns=80)
    assert code == 0, shown
    # Each picture of the bars is drawn over the last.
    lines = [CONTROL.sub("", line).rstrip() for line in shown.splitlines()]
    for name in (*TABLES, "corpus_index", "asked in all"):
        bars = [line for line in lines if line.startswith(f"{name} ") and "━" in line]
        assert max(map(len, bars)) <= 80
        total = 16 if name == "asked in all" else 8
        assert f" {total}/{total} " in bars[-1]
    assert "to make" not in shown
    assert "rare-assets dev" in lines[-1]


# what is wrong: YAML of --config, settings, and words that the message must hold
WRONG = {
    "a field out of range": (
        "ops: {hard_negatives: {config: {num_neg: 0}}}",
        {},
        ["hard_negatives", "num_neg", "greater than or equal to 1"],
    ),
    "a field that does not exist": (
        "ops: {questions: {config: {num_question: 2}}}",
        {},
        ["questions", "num_question"],
    ),
    "an asset that does not exist": (
        "ops: {question: {config: {num_questions: 2}}}",
        {},
        ["no asset question ", "questions, hard_negatives, reasoning"],
    ),
    "not a mapping": ("[1, 2]", {}, ["options.yaml"]),
    "not YAML": ("ops: {", {}, ["options.yaml"]),
    "a setting out of range": (None, {"RARE_SHARDS_AT_ONCE": "0"}, ["RARE_SHARDS_AT_ONCE"]),
    "a setting of another type": (None, {"RARE_MAX_COST_USD": "ten"}, ["RARE_MAX_COST_USD"]),
    "a folder without prompts": (None, {"RARE_PROMPTS": "nowhere"}, ["nowhere"]),
    "prices that are not there": (None, {"RARE_PRICES": "nowhere.json"}, ["nowhere.json"]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_options_end_the_command_with_one_clear_message(small, endpoint, nothing_set, wrong):
    config, settings, words = WRONG[wrong]
    arguments = []
    if config is not None:
        (small.folder / "options.yaml").write_text(config)
        arguments = ["--config", "options.yaml"]
    run = Here(small, nothing_set, "run", *arguments, **settings)
    assert run.code in (1, 2), run.said
    assert [word for word in words if word not in run.said] == [], run.said
    assert endpoint.requests == []


def test_an_unknown_shard_is_refused_with_the_shards_there_are(small, endpoint, nothing_set):
    run = Here(small, nothing_set, "run", "--shard", "z.jsonl")
    assert (run.code, endpoint.requests) == (1, [])
    assert "no shard z.jsonl. It has: a.jsonl." in run.said


def test_a_missing_source_is_named(small, endpoint, nothing_set):
    run = Here(small, nothing_set, "run", "--source", "elsewhere")
    assert (run.code, endpoint.requests) == (1, [])
    assert str(small.folder / "elsewhere") in run.said


def test_a_limit_holds_for_all_shards_together(small, endpoint):
    write_jsonl(small.corpus / "b.jsonl", range(8, 16))
    limits = {"RARE_MAX_REQUESTS": "5", "RARE_MAX_CONCURRENCY": "1", "RARE_SHARDS_AT_ONCE": "2"}
    run = Finished(small, endpoint, "run", **limits)
    assert run.code == 1
    assert "limit of 5 requests (max_requests)" in run.said
    assert len(run.sent) == 5
    rest = Finished(small, endpoint, "run")
    assert rest.code == 0, rest.said
    assert len(run.sent) + len(rest.sent) == 32


def test_a_home_without_room_ends_the_command_with_one_message(small, nothing_set):
    """As on a full disk: no file of the command may grow beyond 64 KB."""
    home = small.folder / "home"
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (2**16, 2**16))
    run = subprocess.run(
        [*COMMAND, "register"],
        cwd=small.folder,
        env={**small.environment, "DAGSTER_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=limit,
        check=False,
    )
    assert run.returncode == 1
    (line,) = run.stdout.splitlines()
    assert line.startswith(f"Error: DAGSTER_HOME {home} can't be used (")
    enough = Here(small, nothing_set, "register", DAGSTER_HOME=str(home))
    assert enough.code == 0, enough.said
    assert "1 shards (1 new, 0 changed)" in enough.said
    assert not small.tables.exists("documents", "a.jsonl")
    again = Here(small, nothing_set, "register", DAGSTER_HOME=str(home))
    assert "1 shards (0 new, 0 changed)" in again.said


def test_a_shard_that_is_left_out_whole_is_told_loudly(small, endpoint):
    options = small.folder / "options.yaml"
    options.write_text("ops: {questions: {config: {min_words: 1000}}}")
    run = Finished(small, endpoint, "run", "--config", str(options))
    assert run.code == 0, run.said
    assert "warning a.jsonl: all of its documents were left out as too short, 8 of them" in run.said
    assert "min_words is 1000" in run.said
    assert run.sent == []


def test_a_file_that_cannot_be_read_fails_its_shard_and_no_other(small, endpoint):
    (small.corpus / "b.parquet").write_bytes(b"PAR1 this is no Parquet file")
    run = Finished(small, endpoint, "run")
    assert run.code == 1
    assert "b.parquet" in run.said.split("failed", 1)[1]
    assert stages(run.sent) == (8, 8)
    assert small.n_rows("reasoning") == {"a.jsonl": 8}


def test_a_refused_key_stops_the_command_early_with_one_message(tmp_path):
    with FakeEndpoint(key="sk-another", latency=0.02) as endpoint:
        command = Command(tmp_path, endpoint.url)
        write_corpus(command.corpus)
        run = Finished(command, endpoint, "run")
    assert run.code == 1
    # At most what each of four steps that ask had in flight when its first refusal came, of 40 documents.
    assert len(run.sent) <= 32
    report = run.said.split("RARE data", 1)[1]
    assert report.count("Incorrect API key") == 1
    assert "401" in report
    assert API_KEY not in run.said
    assert "Traceback" not in run.said


def test_a_server_that_is_no_elasticsearch_ends_the_command_with_one_message(
    small, endpoint, nothing_set
):
    url = endpoint.url.removesuffix("/v1")
    run = Here(small, nothing_set, "run", ELASTICSEARCH_URL=url)
    assert run.code == 1
    assert url in run.said
    assert "Elasticsearch" in run.said


@pytest.mark.parametrize("asked", ["run", "status"])
def test_an_elasticsearch_that_is_not_there_is_told_soon_with_one_message(small, endpoint, asked):
    url = f"http://127.0.0.1:{free_port()}"
    run = Finished(small, endpoint, asked, ELASTICSEARCH_URL=url)
    assert (run.code, run.sent) == (1, [])
    assert f"No Elasticsearch at {url}, waiting up to 5 s for it" in run.said
    assert f"There is no Elasticsearch at {url}" in run.said
    assert "Traceback" not in run.said


def test_settings_of_elasticsearch_that_contradict_each_other_end_it_with_one_message(
    small, nothing_set
):
    wrong = {"ELASTICSEARCH_URL": "http://127.0.0.1:9", "ELASTICSEARCH_USERNAME": "me"}
    run = Here(small, nothing_set, "status", **wrong)
    assert run.code == 1
    assert "ELASTICSEARCH_PASSWORD" in run.said


def test_source_and_storage_may_lie_in_an_object_store(endpoint, tmp_path, s3_bucket):
    import s3fs

    store = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    storage = f"{s3_bucket}/made/of rare"
    command = Command(tmp_path, endpoint.url, RARE_STORAGE=storage, **store)
    local = write_jsonl(tmp_path / "local.jsonl", range(8))
    s3fs.S3FileSystem().put(str(local), f"{s3_bucket}/corpus/a.jsonl")
    first = Finished(command, endpoint, "run", "--source", f"{s3_bucket}/corpus")
    assert first.code == 0, first.said
    assert stages(first.sent) == (8, 8)
    assert command.tables.scan("reasoning", "a.jsonl").collect().height == 8
    redone = Finished(command, endpoint, "run", "--source", f"{s3_bucket}/corpus", "--all")
    assert (redone.code, redone.sent) == (0, [])
    assert not (tmp_path / ".rare" / "storage").exists()
