"""Each format's rows, by the rules of its trainer's loader; expectations are written from the documents."""

import json
import re

import polars as pl
import pytest

from rare_assets.exports.formats import FORMATS
from rare_assets_tests.exports.conftest import make
from rare_assets_tests.exports.corpus import document, question, store, write

ONE_SIDE = {"validation_share": 0.0, "test_share": 0.0}
TEXT = {f"d{n}": f"Title {n}\n\n{document(n)['text']}" for n in range(40)}
ASKED = {f"d{n}": question(document(n)) for n in range(40)}
GOLD = [f"d{n}" for n in range(20)]
NEGATIVES = {f"d{n}": [f"d{(n + k) % 40}" for k in (1, 2, 3)] for n in range(40)}


def rows(out, name, split="train", shard="a.jsonl"):
    extension = FORMATS[name].extension
    path = out / name / split / f"{shard}{extension}"
    if extension == ".parquet":
        return pl.read_parquet(path).to_dicts()
    if extension == ".json":
        return json.loads(path.read_text())
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids(out, name, split="train", shard="a.jsonl"):
    return pl.read_parquet(out / name / split / f"{shard}.ids.parquet")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    from rare_assets.storage.tables import ParquetTables

    folder = tmp_path_factory.mktemp("formats")
    tables = ParquetTables(str(folder / "storage"))
    documents = [document(n) for n in range(40)]
    store(tables, {"a.jsonl": documents[:20], "b.jsonl": documents[20:]})
    make(tables, str(folder / "out"), num_neg=2, **ONE_SIDE)
    return folder / "out"


def test_sentence_transformers_has_texts_alone_in_the_order_that_is_read(exported):
    frame = pl.read_parquet(exported / "sentence-transformers/train/a.jsonl.parquet")
    assert frame.columns == ["anchor", "positive", "negative_1", "negative_2"]
    assert frame.rows() == [
        (ASKED[d]["question"], TEXT[d], *(TEXT[n] for n in NEGATIVES[d][:2])) for d in GOLD
    ]


@pytest.mark.parametrize(
    "name",
    [
        "sentence-transformers",
        "cross-encoder",
        "flag-embedding",
        "reasonir",
        "messages",
        "prompt-completion",
        "rare",
        "dataflow",
    ],
)
def test_a_sidecar_has_the_ids_of_each_row(exported, name):
    frame = ids(exported, name)
    assert frame.schema == {"row": pl.Int64, "question_id": pl.String, "doc_id": pl.String}
    assert frame.rows() == [(row, f"{d}-q0", d) for row, d in enumerate(GOLD)]


def test_cross_encoder_labels_go_with_docs(exported):
    assert rows(exported, "cross-encoder")[3] == {
        "query": ASKED["d3"]["question"],
        "docs": [TEXT["d3"], *(TEXT[n] for n in NEGATIVES["d3"])],
        "labels": [1, 0, 0, 0],
    }


def test_flag_embedding_has_lists_scores_and_both_kinds_of_prompt(exported):
    row = rows(exported, "flag-embedding")[0]
    assert row["query"] == ASKED["d0"]["question"]
    assert (row["pos"], row["neg"]) == ([TEXT["d0"]], [TEXT[n] for n in NEGATIVES["d0"]])
    assert (row["pos_scores"], row["neg_scores"]) == ([10.0], [4.0, 3.0, 2.0])
    assert row["prompt"] == row["query_prompt"] != ""
    # What their loader takes to mean something else.
    assert "symmetric" not in row["type"]
    assert row["type"] != "only_1neg"


def test_tevatron_finds_every_id_in_its_corpus_with_title_and_text(exported):
    row = rows(exported, "tevatron")[7]
    assert set(row) == {
        "query_id",
        "query_text",
        "query_image",
        "positive_document_ids",
        "negative_document_ids",
        "answer",
        "source",
    }
    assert (row["positive_document_ids"], row["negative_document_ids"]) == (["d7"], NEGATIVES["d7"])
    corpus = {}
    for shard in ("a.jsonl", "b.jsonl"):
        for line in (exported / f"tevatron/corpus/{shard}.jsonl").read_text().splitlines():
            found = json.loads(line)
            corpus[found["docid"]] = (found["text"], found["image"])
    assert corpus == {d: (text, None) for d, text in TEXT.items()}


def test_reasonir_pairs_every_text_with_its_instruction(exported):
    row = rows(exported, "reasonir")[0]
    instruction, text = row["query"]
    assert instruction
    assert text == ASKED["d0"]["question"]
    assert row["pos"] == [["", TEXT["d0"]]]
    assert row["neg"] == [["", TEXT[n]] for n in NEGATIVES["d0"]]


def prompt(n):
    """As the teacher saw it: the first negative, the gold document, the others."""
    first, *others = NEGATIVES[f"d{n}"]
    shown = [TEXT[d] for d in (first, f"d{n}", *others)]
    documents = "\n\n".join(f"## Document {k}\n\n{text}" for k, text in enumerate(shown, start=1))
    asked = ASKED[f"d{n}"]
    return (
        f"# Retrieved Documents\n\n{documents}\n\n# Question\n\n"
        f"{asked['scenario']}\n\n{asked['question']}"
    )


def test_messages_hold_the_prompt_and_the_chain_between_tags(exported):
    user, assistant = rows(exported, "messages")[4]["messages"]
    assert user["role"] == "user"
    assert user["content"].endswith(f"\n\n{prompt(4)}")
    assert assistant == {
        "role": "assistant",
        "content": "<think>\nDocument 2 says why, of d4.\n</think>\n\nanswer d4",
    }


def test_prompt_and_completion_are_the_same_messages_apart(exported):
    chats, apart = rows(exported, "messages"), rows(exported, "prompt-completion")
    assert [row["prompt"] + row["completion"] for row in apart] == [r["messages"] for r in chats]


def test_llama_factory_finds_folders_of_one_type_and_mapped_columns(exported):
    folder = exported / "llama-factory"
    info = json.loads((folder / "dataset_info.json").read_text())
    assert list(info) == ["rare_train"]
    named = folder / info["rare_train"]["file_name"]
    # Its loader takes every file of the folder, and wants one ending.
    assert {path.suffix for path in named.iterdir()} == {".jsonl"}
    row = rows(exported, "llama-factory")[4]
    assert set(info["rare_train"]["columns"].values()) <= set(row)
    assert row["output"].startswith("<think>\n")
    assert (row["input"], row["history"], row["question_id"]) == ("", [], "d4-q0")


def test_verl_has_rows_with_a_gold_answer_alone(exported):
    found = rows(exported, "verl")
    assert [row["reward_model"] for row in found] == [
        {"style": "rule", "ground_truth": f"answer {n}"} for n in range(1, 20, 2)
    ]
    assert [row["extra_info"]["index"] for row in found] == list(range(10))
    assert found[0]["extra_info"]["split"] == "train"
    [message] = found[0]["prompt"]
    assert message["content"].endswith(prompt(1))
    assert "<answer>" in message["content"]


def test_rare_has_its_four_fields(exported):
    row = rows(exported, "rare")[3]
    assert row["instruction"].endswith(prompt(3))
    assert row["predict"] == (
        "<think>\nDocument 2 says why, of d3.\n</think>\n<answer>answer d3</answer>"
    )
    assert (row["id"], row["output"]) == ("d3-q0", "<answer>answer 3</answer>")
    # Without a gold answer the teacher's own stands.
    assert rows(exported, "rare")[4]["output"] == "<answer>answer d4</answer>"


def test_dataflow_has_the_five_columns(exported):
    assert rows(exported, "dataflow")[2] == {
        "text": TEXT["d2"],
        "question": ASKED["d2"]["question"],
        "scenario": ASKED["d2"]["scenario"],
        "hard_negatives": [TEXT[n] for n in NEGATIVES["d2"]],
        "reasoning": "Document 2 says why, of d2.",
    }


def test_beir_has_a_folder_a_split_with_title_and_text_apart(exported):
    folder = exported / "beir/train"
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    assert corpus == [
        {"_id": f"d{n}", "title": f"Title {n}", "text": document(n)["text"]} for n in range(40)
    ]
    queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    assert queries[0] == {"_id": "d0-q0", "text": ASKED["d0"]["question"]}
    header, *pairs = (folder / "qrels/test.tsv").read_text().splitlines()
    assert header == "query-id\tcorpus-id\tscore"
    assert pairs == [f"d{n}-q0\td{n}\t1" for n in range(40)]


def test_a_document_of_the_same_text_is_relevant_too(tables, out):
    twin = {**document(0), "doc_id": "twin"}
    twins = [document(0), *(document(n) for n in range(2, 8)), twin]
    store(tables, {"a.jsonl": twins, "b.jsonl": [document(n) for n in range(20, 40)]})
    make(tables, str(out), ["beir"], **ONE_SIDE)
    pairs = (out / "beir/train/qrels/test.tsv").read_text().splitlines()
    assert {"d0-q0\td0\t1", "d0-q0\ttwin\t1", "twin-q0\td0\t1"} <= set(pairs)


def test_a_title_is_not_said_twice(tables, out):
    documents = [document(n) for n in range(4)]
    documents[0]["title"] = "About 0"
    documents[1]["title"] = " "
    documents[2]["title"] = None
    store(tables, {"a.jsonl": documents, "b.jsonl": [document(20)]}, of=[*documents, document(20)])
    make(tables, str(out), ["cross-encoder"], **ONE_SIDE)
    positives = [row["docs"][0] for row in rows(out, "cross-encoder")]
    assert positives == [*(d["text"] for d in documents[:3]), TEXT["d3"]]


@pytest.mark.parametrize(
    ("thinking", "message"),
    [
        (
            "reasoning_content",
            {"content": "answer d0", "reasoning_content": "Document 2 says why, of d0."},
        ),
        ("none", {"content": "answer d0"}),
    ],
)
def test_the_chain_goes_where_the_options_say(tables, out, thinking, message):
    make(tables, str(out), ["messages", "prompt-completion"], thinking=thinking, **ONE_SIDE)
    assert rows(out, "messages")[0]["messages"][-1] == {"role": "assistant", **message}
    assert rows(out, "prompt-completion")[0]["completion"] == [{"role": "assistant", **message}]


def test_a_teacher_that_set_no_answer_apart_is_learned_from_as_it_wrote(tables, out):
    documents = [document(n) for n in range(20)]
    store(tables, {"a.jsonl": documents}, answers={"answer": None})
    make(tables, str(out), ["messages"], **ONE_SIDE)
    assert rows(out, "messages")[0]["messages"][-1]["content"] == "Document 2 says why, of d0."


def test_options_set_query_system_and_instructions(tables, out):
    make(
        tables,
        str(out),
        query="scenario_question",
        system_prompt="Be brief.",
        query_instruction="Find.",
        passage_instruction="Passage.",
        task_instruction="Answer.",
        **ONE_SIDE,
    )
    asked = f"{ASKED['d0']['scenario']}\n\n{ASKED['d0']['question']}"
    assert rows(out, "cross-encoder")[0]["query"] == asked
    assert rows(out, "reasonir")[0]["query"] == ["Find.", asked]
    assert rows(out, "reasonir")[0]["pos"] == [["Passage.", TEXT["d0"]]]
    system, user, _ = rows(out, "messages")[0]["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"] == f"Answer.\n\n{prompt(0)}"


def test_rows_without_a_negative_are_left_out_where_a_trainer_would_trip(tables, out):
    documents = [document(n) for n in range(3)]
    store(tables, {"a.jsonl": documents, "b.jsonl": [document(20)]})
    mined = [
        {**row, "hard_negatives": [], "negatives": []} if row["doc_id"] == "d1" else row
        for row in tables.scan("hard_negatives", "a.jsonl").collect().to_dicts()
    ]
    write(tables, "hard_negatives", "a.jsonl", mined)
    make(tables, str(out), **ONE_SIDE)
    for name in ("sentence-transformers", "cross-encoder", "flag-embedding", "reasonir"):
        assert ids(out, name)["doc_id"].to_list() == ["d0", "d2"], name
    counts = json.loads((out / "manifest/reasonir/a.jsonl.json").read_text())["counts"]
    assert ["without: no negative", 3, 2] in counts


def test_reasoning_of_an_older_state_is_not_shown_with_other_documents(tables, out):
    mined = tables.scan("hard_negatives", "a.jsonl").collect().to_dicts()
    mined[0]["hard_negatives"] = mined[0]["hard_negatives"][:1]
    mined[0]["negatives"] = mined[0]["negatives"][:1]
    write(tables, "hard_negatives", "a.jsonl", mined)
    make(tables, str(out), ["messages"], **ONE_SIDE)
    assert ids(out, "messages")["doc_id"].to_list() == GOLD[1:]


def test_every_sampled_answer_is_a_row_of_reasoning_formats_and_one_of_retrievers(tables, out):
    made = tables.scan("reasoning", "a.jsonl").collect().to_dicts()
    again = [{**row, "sample_index": 1, "answer": "wrong", "answer_correct": False} for row in made]
    third = [{**row, "sample_index": 2, "answer": "right", "answer_correct": True} for row in made]
    write(tables, "reasoning", "a.jsonl", [*made, *again, *third])
    make(tables, str(out), **ONE_SIDE)
    # What is known to be wrong teaches nothing good.
    assert len(rows(out, "messages")) == 40
    assert len(rows(out, "cross-encoder")) == 20


# What a trainer would trip over, by format and rule: what is different from a good row.
BAD: dict[tuple[str, str], dict] = {
    ("sentence-transformers", "blank text"): {"positive": " "},
    ("cross-encoder", "blank text"): {"query": ""},
    ("cross-encoder", "labels do not go with docs"): {"labels": [1, 0]},
    ("cross-encoder", "one label only"): {"labels": [1, 1, 1, 1]},
    ("flag-embedding", "blank text"): {"neg": []},
    ("flag-embedding", "scores do not go with texts"): {"pos_scores": []},
    ("tevatron", "blank text"): {"query_text": " "},
    ("tevatron", "no document"): {"negative_document_ids": []},
    ("reasonir", "not a pair"): {"query": ["a question alone"]},
    ("reasonir", "no passage"): {"neg": []},
    ("messages", "does not end with an answer"): {"messages": [{"role": "user", "content": "x"}]},
    ("messages", "blank message"): {"messages": [{"role": "assistant", "content": " "}]},
    ("prompt-completion", "not one answer"): {"completion": []},
    ("prompt-completion", "no prompt"): {"prompt": []},
    ("llama-factory", "blank text"): {"output": ""},
    ("verl", "no gold answer"): {"reward_model": {"style": "rule", "ground_truth": " "}},
    ("verl", "no prompt"): {"prompt": []},
    ("verl", "blank source"): {"data_source": ""},
    ("rare", "blank text"): {"predict": " "},
    ("dataflow", "blank text"): {"hard_negatives": []},
}


def test_every_rule_of_a_format_passes_good_rows_and_sees_a_bad_one(exported):
    seen = set()
    for (name, rule), change in BAD.items():
        good = pl.DataFrame(rows(exported, name), infer_schema_length=None)
        bad = pl.DataFrame([{**good.row(0, named=True), **change}], schema=good.schema)
        broken = FORMATS[name].broken[rule]
        both = pl.concat([good, bad]).select(broken).to_series().to_list()
        assert both == [False] * good.height + [True], (name, rule)
        seen.add((name, rule))
    # The rows of beir are tested as the files that they become.
    there = {
        (name, rule) for name, each in FORMATS.items() if not each.parts for rule in each.broken
    }
    assert seen == there


def test_the_readme_and_the_help_name_every_format():
    from rare_assets.command.cli import main
    from rare_assets_tests.test_readme import README

    assert set(FORMATS) <= set(re.findall(r"`([a-z-]+)`", README))
    (listed,) = re.findall(r"Formats: (.*?)\.", " ".join(main.commands["export"].help.split()))
    assert sorted(listed.split(", ")) == sorted(FORMATS)
