"""Rows of a source file to documents: what is taken, what is rejected and why."""

import hashlib
import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from rare_assets.corpus.columns import Columns, ColumnsError
from rare_assets.corpus.formats import SourceError, SourceRow
from rare_assets.corpus.passages import Cutting
from rare_assets.corpus.source import CorpusSource
from rare_assets.operators.read_documents import MissingColumn, NoUsableRow, read_documents
from rare_assets.schemas import Documents, DocumentsRejects

GOOD = {"text": "a usable row"}


def read(*values):
    """Documents and rejects of the values as rows of `f.jsonl`, after a usable row 1."""
    rows = [SourceRow(n, value) for n, value in enumerate((GOOD, *values), 1)]
    return read_documents(rows, file="f.jsonl")


def rejects_of(*values):
    return read(*values).rejects.select("row", "reason").rows()


def document(value):
    return read(value).rows.row(1, named=True)


def test_a_row_becomes_a_document():
    value = {"id": "x7", "text": "Two  words\nand more. ", "title": "T", "answer": "A", "other": 1}
    value |= {"question": "Q?", "scenario": 5}
    expected = pl.DataFrame(
        {
            "doc_id": "x7",
            "text": "Two  words\nand more. ",
            "title": "T",
            "question": "Q?",
            "scenario": "5",
            "answer": "A",
            "parent_id": "x7",
            "passage": 1,
            "char_start": None,
            "char_end": None,
            "text_hash": hashlib.sha256(b"Two  words\nand more.").hexdigest()[:32],
            "source": "sub/f.csv:5",
            "n_words": 4,
        },
        schema_overrides={"char_start": pl.Int64, "char_end": pl.Int64},
    )
    produced = read_documents([SourceRow(5, value)], file="sub/f.csv")
    assert_frame_equal(produced.rows, expected, check_column_order=False)
    assert Documents.is_valid(produced.rows)
    assert DocumentsRejects.is_valid(produced.rejects)
    assert produced.rejects.is_empty()


@pytest.mark.parametrize(
    "values", [{}, {"id": None}, {"id": math.nan}, {"id": None, "title": None, "answer": None}]
)
def test_without_an_id_the_text_gives_one(values):
    row = document({"text": "water", **values})
    assert row["doc_id"] == "d-" + hashlib.sha256(b"water").hexdigest()[:16]
    assert (row["title"], row["answer"]) == (None, None)


@pytest.mark.parametrize(
    ("given", "doc_id"),
    [
        ("a b/ü", "a b/ü"),
        (0, "0"),
        (-12, "-12"),
        (10**30, str(10**30)),
        (3.0, "3"),
        ("007", "007"),
        (Decimal("2.0"), "2"),
        (date(2024, 2, 29), "2024-02-29"),
        (datetime(2024, 2, 29, 1, tzinfo=UTC), "2024-02-29T01:00:00+00:00"),
        (b"a-1", "a-1"),
        (bytes(range(250, 256)), "fafbfcfdfeff"),
    ],
)
def test_strings_and_whole_numbers_are_ids(given, doc_id):
    assert document({"id": given, "text": "x"})["doc_id"] == doc_id


@pytest.mark.parametrize(
    "given", [True, 1.5, math.inf, "", " \t", [1], {"a": 1}, b"", "\ud800", Decimal("1.5")]
)
def test_any_other_id_is_rejected(given):
    assert rejects_of({"id": given, "text": "x"}) == [(2, "bad_id")]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1, 2], "not_an_object"),
        ("text", "not_an_object"),
        (None, "not_an_object"),
        (7, "not_an_object"),
        ({}, "no_text"),
        ({"Text": "x"}, "no_text"),
        ({"text": None}, "no_text"),
        ({"text": math.nan}, "no_text"),
        ({"text": 5}, "text_not_a_string"),
        ({"text": ["a"]}, "text_not_a_string"),
        ({"text": b"caf\xe9"}, "not_utf8"),
        ({"text": False}, "text_not_a_string"),
        ({"text": ""}, "empty_text"),
        ({"text": " \n\t\u00a0\u2003"}, "empty_text"),
        ({"text": "broken \udcff byte"}, "not_utf8"),
        ({"text": "half an emoji \ud83d"}, "not_utf8"),
    ],
)
def test_row_without_a_usable_text_is_rejected_and_the_rest_stays(value, reason):
    produced = read(value, {"text": "another"})
    assert produced.rows["text"].to_list() == ["a usable row", "another"]
    assert produced.rejects.select("file", "row", "reason").rows() == [("f.jsonl", 2, reason)]


@pytest.mark.parametrize("problem", ["broken_json", "not_utf8", "bad_csv_row"])
def test_problem_of_the_source_is_the_reason(problem):
    rows = [SourceRow(1, GOOD), SourceRow(9, None, problem, "why")]
    produced = read_documents(rows, file="f")
    assert produced.rejects.rows() == [("f", 9, problem, "why")]


def test_first_of_equal_texts_stays():
    values = [{"id": 1, "text": "x"}, {"id": 2, "text": "x"}, {"id": 2, "text": "y"}]
    produced = read(*values)
    assert produced.rows["doc_id"].to_list()[1:] == ["1", "2"]
    assert produced.rejects.rows() == [("f.jsonl", 3, "duplicate_text", "equal to row 2")]


def test_first_of_equal_ids_stays():
    values = [{"id": 1, "text": "x"}, {"id": "1", "text": "y"}, {"id": 1, "text": "x"}]
    produced = read(*values)
    assert produced.rows["text"].to_list()[1:] == ["x"]
    assert produced.rejects.select("row", "reason").rows() == [
        (3, "duplicate_id"),
        (4, "duplicate_text"),
    ]
    assert produced.rejects["detail"][0] == "'1' is the id of row 2"


def test_equal_up_to_surrounding_space_and_unicode_form_is_equal():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    produced = read({"text": composed}, {"text": f"  {decomposed}\n"}, {"text": "cafe"})
    assert produced.rows["text"].to_list()[1:] == [composed, "cafe"]
    assert produced.rejects["reason"].to_list() == ["duplicate_text"]
    assert (
        read({"text": decomposed}).rows["text_hash"][1]
        == (read({"text": composed}).rows["text_hash"][1])
    )
    assert document({"text": decomposed})["text"] == decomposed


@pytest.mark.parametrize("field", ["title", "question", "scenario", "answer"])
@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (4, "4"),
        (2.5, "2.5"),
        (True, "true"),
        (False, "false"),
        (Decimal("1.20"), "1.20"),
        ("", ""),
        (math.nan, None),
        ([1], None),
        ({"a": 1}, None),
        (b"caf\xc3\xa9", "café"),
        (date(2024, 2, 29), "2024-02-29"),
        ("half \ud83d", "half ?"),
    ],
)
def test_title_and_answer_never_cost_the_row(field, given, stored):
    assert document({"text": "x", field: given})[field] == stored


def test_detail_is_short_whatever_the_row_holds():
    huge = {"id": "x" * 10**6, "n": list(range(10**5)), "\udcff": {"deep": [[[[[1]]]]]}}
    produced = read(huge, {**huge, "text": 1}, ["y" * 10**6], {**huge, "text": "\udcff" * 10**5})
    assert produced.rejects.height == 4
    assert all(0 < len(detail) <= 200 for detail in produced.rejects["detail"])
    assert produced.rejects["detail"][1].startswith("int: {'id': 'xxx")


def test_rows_and_rejects_add_up_to_the_rows_given():
    values = [{"text": "x"}, {"text": "x"}, [], {"text": "y", "id": 1}, {"text": "z", "id": 1}, {}]
    produced = read(*values)
    assert produced.rows.height + produced.rejects.height == 1 + len(values)


def test_bytes_that_are_utf8_are_text():
    assert document({"text": "über".encode()})["text"] == "über"


class TestPassages:
    LONG = "# Pipes\n\n" + "\n\n".join(
        f"## Part {n}\n\n" + f"Sentence {n} has a number of words that make it long. " * 20
        for n in range(5)
    )

    def read(self, file, value, **options):
        return read_documents([SourceRow(1, value)], file=file, cutting=Cutting(**options)).rows

    def test_a_text_file_is_cut_and_each_passage_is_found_again(self):
        rows = self.read("d/a.md", {"text": self.LONG, "title": "Pipes"})
        assert rows["title"].to_list() == [f"Pipes > Part {n}" for n in range(5)]
        assert rows["parent_id"].unique().to_list() == ["d/a.md"]
        assert rows["passage"].to_list() == [1, 2, 3, 4, 5]
        for row in rows.iter_rows(named=True):
            assert self.LONG[row["char_start"] : row["char_end"]] == row["text"]
            digest = hashlib.sha256(row["text"].encode()).hexdigest()
            assert row["doc_id"] == f"d-{digest[:16]}"
            assert row["source"] == "d/a.md:1"

    def test_a_text_file_that_fits_stays_as_it_was(self):
        text = "# T\n\nFew words.\n"
        (row,) = self.read("a.md", {"text": text, "title": "T"}).to_dicts()
        assert (row["text"], row["title"], row["passage"]) == (text, "T", 1)
        assert (row["char_start"], row["char_end"]) == (0, len(text))
        assert row["doc_id"] == "d-" + hashlib.sha256(text.strip().encode()).hexdigest()[:16]

    def test_zero_words_cut_nothing(self):
        assert self.read("a.md", {"text": self.LONG}, passage_words=0).height == 1

    def test_an_inserted_passage_changes_no_others_id(self):
        before = self.read("a.md", {"text": self.LONG})["doc_id"].to_list()
        longer = self.LONG.replace("## Part 2", "## New\n\n" + "New words. " * 40 + "\n\n## Part 2")
        after = self.read("a.md", {"text": longer})["doc_id"].to_list()
        assert [doc_id for doc_id in after if doc_id in before] == before
        assert len(after) == len(before) + 1

    def test_rows_are_cut_where_that_is_asked_for(self):
        value = {"id": "x", "text": self.LONG, "title": "T", "answer": "A"}
        assert self.read("a.jsonl", value).height == 1
        rows = self.read("a.jsonl", value, split_rows=True)
        assert rows["doc_id"].to_list() == [f"x#{n}" for n in range(1, rows.height + 1)]
        assert rows.height > 3
        assert rows["parent_id"].unique().to_list() == ["x"]
        assert rows["title"].unique().to_list() == ["T"]
        text = rows.select(text=pl.struct("char_start", "char_end")).to_series().to_list()
        assert [self.LONG[t["char_start"] : t["char_end"]] for t in text] == rows["text"].to_list()
        del value["id"]
        rows = self.read("a.jsonl", value, split_rows=True)
        assert all(doc_id.startswith("d-") for doc_id in rows["doc_id"])
        assert rows["parent_id"].unique().to_list() == [
            "d-" + hashlib.sha256(self.LONG.strip().encode()).hexdigest()[:16]
        ]

    def test_a_row_with_a_question_stays_whole(self):
        value = {"text": self.LONG, "question": "Why?"}
        assert self.read("a.jsonl", value, split_rows=True).height == 1

    def test_a_passage_that_stands_twice_is_kept_once(self):
        part = "The same words in both sections of this file, over and over. " * 15
        text = f"## A\n\n{part}\n\n## A\n\n{part}"
        produced = read_documents([SourceRow(1, {"text": text})], file="a.md")
        assert produced.rows.height == 1
        assert produced.rejects["reason"].to_list() == ["duplicate_text"]


class TestColumns:
    def read(self, setting, *values):
        rows = [SourceRow(n, value) for n, value in enumerate(values, 1)]
        return read_documents(rows, file="f.jsonl", columns=Columns.parse(setting))

    def test_columns_have_the_names_that_were_given(self):
        value = {
            "_id": 7,
            "doc": {"body": {"text": "water"}},
            "id": "no",
            "q.a": "literal",
            "q": {"a": 1},
        }
        setting = "text=doc.body.text, id=_id, question=q.a"
        row = self.read(setting, value).rows.row(0, named=True)
        assert (row["doc_id"], row["text"], row["question"]) == ("7", "water", "literal")

    def test_a_row_may_lack_a_column_that_others_have(self):
        produced = self.read("id=_id", {"_id": 1, "text": "a"}, {"text": "b"})
        assert produced.rows["doc_id"].to_list() == [
            "1",
            "d-" + hashlib.sha256(b"b").hexdigest()[:16],
        ]

    def test_a_column_that_was_named_and_is_nowhere_is_an_error(self):
        with pytest.raises(
            MissingColumn,
            match=r"f\.jsonl: needs exactly one column `docid` for id; its columns: text, _id",
        ) as e:
            self.read("id=docid", {"text": "a", "_id": 1}, {"text": "b"})
        assert "RARE_COLUMNS=id=_id" in str(e.value)
        assert e.value.file == "f.jsonl"

    def test_without_text_what_is_there_is_named_and_what_to_set(self):
        with pytest.raises(
            NoUsableRow,
            match=r"no_text 1.* It needs exactly one column `text`; its columns: Contents, n\..*RARE_COLUMNS=text=Contents",
        ):
            self.read("", {"Contents": "a", "n": 1})

    @pytest.mark.parametrize(
        ("rows", "told"),
        [
            ([{"te\ud800xt": "a", "b\nc": 1}], r"its columns: te\ud800xt, b\nc. To use"),
            (
                [{"a\ud800": {"Text": "b"}}],
                r"its columns: a\ud800.Text. To use it, set RARE_COLUMNS=text=a\ud800",
            ),
            ([{"x" * 200: 1}], f"its columns: {'x' * 99}…. To use"),
            ([{str(n): 1 for n in range(51)}], "47, 48, 49 and 1 more. To use"),
            ([{str(n): 1} for n in range(51)], "47, 48, 49 and 1 more. To use"),
            ([{str(n): 1} for n in range(6000)], "47, 48, 49 and at least 4,950 more. To use"),
            ([{str(n): 1 for n in range(6000)}], "47, 48, 49 and at least 4,950 more. To use"),
        ],
    )
    def test_a_message_names_some_columns_and_those_in_print(self, rows, told):
        with pytest.raises(NoUsableRow) as e:
            self.read("", *rows)
        assert told in str(e.value)
        assert str(e.value).isprintable()
        assert len(str(e.value)) < 1000

    def test_a_column_that_may_be_the_id_is_named_and_not_taken(self):
        said = []
        rows = [SourceRow(1, {"_id": "x", "text": "a"}), SourceRow(2, {"_id": "y", "text": "b"})]
        produced = read_documents(rows, file="corpus.jsonl", say=said.append)
        assert all(doc_id.startswith("d-") for doc_id in produced.rows["doc_id"])
        (told,) = said
        assert told.startswith("corpus.jsonl: there is no column `id`")
        assert told.endswith("set RARE_COLUMNS=id=_id.")
        read_documents(rows, file="f", columns=Columns.parse("id=_id"), say=said.append)
        read_documents([SourceRow(1, {"text": "a"})], file="f", say=said.append)
        assert said == [told]

    @pytest.mark.parametrize("setting", ["text", "text=", "=a", "txt=a", "text=a,text=b"])
    def test_a_setting_that_cannot_be_used_is_told(self, setting):
        with pytest.raises(ColumnsError, match="text=contents,id=_id"):
            Columns.parse(setting)


def test_shard_without_a_usable_row_is_an_error_with_the_counts():
    rows = [SourceRow(4, {"text": ""}), SourceRow(5, {"a": 1}), SourceRow(6, {"text": " "})]
    message = (
        r"f\.csv: no usable row among 3 \(empty_text 2, no_text 1\)\. First, row 4: empty_text"
    )
    with pytest.raises(SourceError, match=message):
        read_documents(rows, file="f.csv")


def test_shard_without_rows_is_an_error():
    with pytest.raises(SourceError, match=r"f\.csv: no usable row: it has no rows"):
        read_documents([], file="f.csv")


class TestFromFiles:
    """The way from a file's bytes to the table, where the format decides about a row."""

    def produce(self, path):
        source = CorpusSource(str(path), 100)
        (shard,) = source.shards()
        return read_documents(source.read(shard), file=shard.file)

    def test_one_bad_row_of_each_kind_in_jsonl(self, tmp_path):
        lines = [
            b'{"id": 1, "text": "one", "answer": 4}',
            b"",
            b'{"text": "broken',
            b'{"text": "caf\xe9"}',
            b'["a"]',
            b'{"id": 1, "text": "two"}',
            b'{"text": NaN}',
            b'{"text": "three", "title": {"en": "x"}}',
        ]
        (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
        produced = self.produce(tmp_path)
        assert produced.rows.select("source", "text", "title", "answer").rows() == [
            ("a.jsonl:1", "one", None, "4"),
            ("a.jsonl:8", "three", None, None),
        ]
        assert produced.rejects.select("row", "reason").rows() == [
            (3, "broken_json"),
            (4, "not_utf8"),
            (5, "not_an_object"),
            (6, "duplicate_id"),
            (7, "no_text"),
        ]

    def test_a_json_list_as_dataflow_reads_it(self, tmp_path):
        content = json.dumps([{"text": "a"}, {"text": "b"}, 3, {"text": "\ud800"}])
        (tmp_path / "a.json").write_text(content)
        produced = self.produce(tmp_path)
        assert produced.rows["text"].to_list() == ["a", "b"]
        assert produced.rejects["reason"].to_list() == ["not_an_object", "not_utf8"]

    def test_broken_bytes_in_a_json_list_cost_their_row(self, tmp_path):
        (tmp_path / "a.json").write_bytes(b'[{"text": "a"}, {"text": "\xff"}]')
        produced = self.produce(tmp_path)
        assert produced.rows["text"].to_list() == ["a"]
        assert produced.rejects.select("row", "reason").rows() == [(2, "not_utf8")]

    def test_csv_rows(self, tmp_path):
        content = b'id,text,answer\n1,"a, b",\n,c,7\n2,,x\n3,\xff,x\n4,d\n1,e,x\n'
        (tmp_path / "a.csv").write_bytes(content)
        produced = self.produce(tmp_path)
        c_id = "d-" + hashlib.sha256(b"c").hexdigest()[:16]
        assert produced.rows.select("doc_id", "text", "answer").rows() == [
            ("1", "a, b", None),
            (c_id, "c", "7"),
        ]
        assert produced.rejects.select("row", "reason").rows() == [
            (3, "empty_text"),
            (4, "not_utf8"),
            (5, "bad_csv_row"),
            (6, "duplicate_id"),
        ]

    def test_parquet_with_missing_values_as_pandas_writes_them(self, tmp_path):
        frame = pl.DataFrame(
            {
                "id": [1.0, math.nan, None, 2.5],
                "text": ["a", "b", None, "c"],
                "title": [math.nan, 1.5, None, None],
            }
        )
        frame.write_parquet(tmp_path / "a.parquet")
        produced = self.produce(tmp_path)
        b_id = "d-" + hashlib.sha256(b"b").hexdigest()[:16]
        assert produced.rows.select("doc_id", "title").rows() == [("1", None), (b_id, "1.5")]
        assert produced.rejects.select("row", "reason").rows() == [(3, "no_text"), (4, "bad_id")]

    def test_parquet_with_numbers_for_text_has_no_usable_row(self, tmp_path):
        pl.DataFrame({"text": [1, 2]}).write_parquet(tmp_path / "a.parquet")
        with pytest.raises(SourceError, match=r"a\.parquet: .*text_not_a_string 2"):
            self.produce(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf\n"])
    def test_jsonl_without_rows(self, tmp_path, content):
        (tmp_path / "a.jsonl").write_bytes(content)
        with pytest.raises(SourceError, match=r"a\.jsonl: no usable row: it has no rows"):
            self.produce(tmp_path)

    def test_text_file_with_nothing_but_space(self, tmp_path):
        (tmp_path / "a.txt").write_text(" \n")
        with pytest.raises(SourceError, match=r"a\.txt: no usable row among 1 \(empty_text 1\)"):
            self.produce(tmp_path)

    def test_markdown_title(self, tmp_path):
        (tmp_path / "a.md").write_text("# Head\n\nBody.\n")
        row = self.produce(tmp_path).rows.row(0, named=True)
        assert (row["title"], row["text"], row["n_words"]) == ("Head", "# Head\n\nBody.\n", 3)
