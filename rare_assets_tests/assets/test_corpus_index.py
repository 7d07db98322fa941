"""The asset `corpus_index`: it syncs with what is registered, and says what it found."""

# ruff: noqa: RUF001

import json
import logging

import pytest

from rare_assets.command.plan import Planner
from rare_assets.resources.dataset import UNNAMED
from rare_assets.retriever.embedded import engine as embedded
from rare_assets.stages.options import Options, OptionsError
from rare_assets_tests.support.graph import Graph, failed_checks, failure_text, metadata
from rare_assets_tests.support.passages import passage, write_jsonl


@pytest.fixture
def graph(only_key_set, tmp_path):
    graph = Graph(tmp_path)
    write_jsonl(graph.source / "a.jsonl", range(4))
    write_jsonl(graph.source / "b.jsonl", range(4, 9))
    graph.register()
    for shard in graph.shards:
        assert graph.make("documents_job", shard).success
    return graph


def counts(result):
    names = ("dagster/row_count", "shards", "shards_indexed", "shards_removed", "documents_indexed")
    made = metadata(result, "corpus_index")
    return tuple(made[name] for name in names)


def test_a_second_sync_indexes_nothing(graph):
    first = graph.make("corpus_index_job")
    assert counts(first) == (9, 2, 2, 0, 9)
    second = graph.make("corpus_index_job")
    assert counts(second) == (9, 2, 0, 0, 0)
    states = [metadata(result, "corpus_index")["index_state"] for result in (first, second)]
    assert states[0] == states[1]


def test_only_a_shard_of_other_content_is_indexed_again(graph):
    graph.make("corpus_index_job")
    write_jsonl(graph.source / "a.jsonl", range(10, 13))
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    result = graph.make("corpus_index_job")
    assert counts(result) == (8, 2, 1, 0, 3)
    assert failed_checks(result) == []


def test_what_the_engine_warns_of_is_in_the_log_and_on_the_asset(graph, monkeypatch):
    assert metadata(graph.make("corpus_index_job"), "corpus_index")["warnings"] is None
    monkeypatch.setattr(embedded, "LIMIT", 8)
    result = graph.make("corpus_index_job")

    warning = (
        "9 passages in the embedded index, which is meant for up to 8: set ELASTICSEARCH_URL to use "
        "Elasticsearch"
    )
    logged = graph.instance.all_logs(result.run_id)
    assert [entry.user_message for entry in logged if entry.level == logging.WARNING] == [warning]
    assert metadata(result, "corpus_index")["warnings"] == warning


def test_a_shard_that_is_no_longer_registered_leaves_the_index(graph):
    graph.make("corpus_index_job")
    graph.instance.delete_dynamic_partition(UNNAMED.partitions_name, "a.jsonl")
    result = graph.make("corpus_index_job")
    assert counts(result) == (5, 1, 0, 1, 0)
    assert failed_checks(result) == []


def test_a_shard_without_documents_is_counted_and_not_waited_for(graph):
    write_jsonl(graph.source / "c.jsonl", range(9, 12))
    graph.register()
    result = graph.make("corpus_index_job")
    assert result.success
    assert metadata(result, "corpus_index")["shards_without_documents"] == 1
    assert counts(result) == (9, 2, 2, 0, 9)


def test_of_two_shards_that_share_an_id_the_index_keeps_the_one_it_holds(graph):
    (graph.source / "c.jsonl").write_text('{"id": "p002", "text": "Something else altogether."}\n')
    graph.register()
    assert graph.make("documents_job", "c.jsonl").success
    assert graph.make("corpus_index_job").success
    with graph.retriever.open() as engine:
        assert sorted(engine.state().shards) == ["a.jsonl", "b.jsonl"]


def test_a_text_under_two_ids_is_allowed_and_reported(graph):
    twin = passage(2).replace('"', "")
    (graph.source / "c.jsonl").write_text(f'{{"id": "twin", "text": "{twin}"}}\n')
    graph.register()
    assert graph.make("documents_job", "c.jsonl").success
    result = graph.make("corpus_index_job")
    assert result.success
    made = metadata(result, "corpus_index")
    assert made["duplicate_texts"] == 1
    (record,) = made["duplicates"].records
    assert set(record.data["doc_ids"].split(", ")) == {"p002", "twin"}
    assert failed_checks(result) == ["corpus_index/texts_distinct_across_shards"]


GERMAN = [
    "Die galvanische Zelle wandelt chemische Energie unmittelbar in elektrische um.",
    "Ein Fluss trägt Geröll und Schlamm aus den Bergen in die Ebene, wo er langsamer wird und sie ablegt.",
    "Wenn ein Ventil plötzlich schließt, läuft eine Druckwelle durch die Rohrleitung zurück bis zum Behälter.",
]
CHINESE = [
    "电池是一种把化学能直接转换成电能的装置，放电时负极上的金属失去电子。",
    "河流把山上的泥沙带到平原，流速变慢时泥沙便沉积下来，河床因此逐年抬高。",
    "阀门突然关闭时，压力波沿着管道传回水箱，有时会把管道胀裂。",
]
THAI = [
    "แบตเตอรี่เป็นอุปกรณ์ที่เปลี่ยนพลังงานเคมีให้เป็นพลังงานไฟฟ้าโดยตรง",
    "แม่น้ำพัดพาตะกอนจากภูเขามายังที่ราบ เมื่อกระแสน้ำช้าลงตะกอนจะตกทับถม",
]
HINDI = [
    "बैटरी रासायनिक ऊर्जा को सीधे विद्युत ऊर्जा में बदलती है और धीरे धीरे खाली हो जाती है।",
    "नदी पहाड़ों से मिट्टी मैदान में लाती है, जहाँ धारा धीमी होने पर वह जम जाती है।",
]


@pytest.fixture
def of_language(only_key_set, tmp_path):
    """A graph whose documents are these texts."""

    def make(*texts, **engine):
        graph = Graph(tmp_path, **engine)
        put(graph, "a.jsonl", texts)
        return graph

    return make


def put(graph, name, texts):
    lines = (json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    (graph.source / name).write_text("\n".join(lines))
    graph.register()
    assert graph.make("documents_job", name).success


def fit(result):
    (found,) = [
        e for e in result.get_asset_check_evaluations() if e.check_name == "analyzer_fits_language"
    ]
    return found.passed, {name: value.value for name, value in found.metadata.items()}


def test_an_analyzer_of_another_language_is_told(of_language):
    graph = of_language(*GERMAN)
    passed, said = fit(graph.make("corpus_index_job"))
    assert not passed
    assert (said["analyzer"], said["fitting_analyzer"]) == ("english", "german")
    assert said["other_language_rate"] == 1.0
    assert said["examples"][0]["text"] in GERMAN
    assert said["examples"][0]["language"] == "de"
    for analyzer in ("german", "standard"):
        passed, said = fit(graph.make("corpus_index_job", corpus_index={"analyzer": analyzer}))
        assert passed, said


def test_english_documents_fit_the_default(graph):
    passed, said = fit(graph.make("corpus_index_job"))
    assert passed, said
    assert set(said["languages"]) == {"en"}


@pytest.mark.parametrize(
    ("texts", "analyzer"),
    [(GERMAN, "german"), (CHINESE, "cjk"), ([passage(1), passage(2)], "english")],
)
def test_auto_chooses_by_the_documents_and_stays_with_its_choice(of_language, texts, analyzer):
    graph = of_language(*texts)
    auto = {"corpus_index": {"analyzer": "auto"}}
    first = graph.make("corpus_index_job", **auto)
    assert first.success
    assert metadata(first, "corpus_index")["analyzer"] == analyzer
    other = CHINESE if texts is GERMAN else GERMAN
    put(graph, "b.jsonl", [f"{number}. {text}" for number in range(9) for text in other])
    assert metadata(graph.make("corpus_index_job", **auto), "corpus_index")["analyzer"] == analyzer
    run_config = {"ops": {"corpus_index": {"config": {"analyzer": "auto"}}}}
    planner = Planner(
        graph.tables, graph.retriever, graph.teacher, Options.from_run_config(run_config)
    )
    assert planner.index(graph.shards) is None


def test_auto_says_what_the_embedded_engine_lacks(of_language):
    graph = of_language(*HINDI)
    result = graph.make("corpus_index_job", corpus_index={"analyzer": "auto"})
    assert metadata(result, "corpus_index")["analyzer"] == "standard"
    [warning] = [
        entry.user_message
        for entry in graph.instance.all_logs(result.run_id)
        if entry.level == logging.WARNING
    ]
    assert "no analyzer 'hindi': set ELASTICSEARCH_URL" in warning


@pytest.mark.parametrize("analyzer", ["auto", "thai"])
def test_what_nothing_here_can_cut_into_words_is_refused(of_language, analyzer):
    graph = of_language(*THAI)
    result = graph.make("corpus_index_job", corpus_index={"analyzer": analyzer})
    assert not result.success
    assert "no analyzer 'thai': set ELASTICSEARCH_URL" in failure_text(result)


def test_an_unknown_analyzer_is_refused_by_its_name():
    run_config = {"ops": {"corpus_index": {"config": {"analyzer": "klingon"}}}}
    with pytest.raises(OptionsError, match=r"analyzer: .*'german'"):
        Options.from_run_config(run_config)
