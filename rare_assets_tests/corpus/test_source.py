"""Files to shards to rows, on real folders, a real S3 server and fsspec's memory."""

import gzip
import io
import json
import os
import re
import tempfile
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import fsspec
import polars as pl
import pytest
from backports import zstd

from rare_assets.corpus.columns import Columns
from rare_assets.corpus.formats import SourceError, UnreadableFile
from rare_assets.corpus.formats import base as source_formats
from rare_assets.corpus.formats.delimited import Csv, Tsv
from rare_assets.corpus.shards import Shard
from rare_assets.corpus.source import CorpusSource, UnknownShard
from rare_assets.operators.read_documents import read_documents

EPOCH = datetime.fromisoformat("1970-01-01")
TEXTS = ["one", 'two "quoted"', "three,\nfour", "fünf", "six"]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path, texts):
    lines = ["n,text", *(f'{n},"{t.replace(chr(34), chr(34) * 2)}"' for n, t in enumerate(texts))]
    path.write_text("\n".join(lines) + "\n")


def write(path, texts):
    """The texts as a file of the format that the name asks for."""
    if path.suffix in (".jsonl", ".ndjson"):
        write_jsonl(path, [{"text": text} for text in texts])
    elif path.suffix == ".json":
        path.write_text(json.dumps([{"text": text} for text in texts], indent=1))
    elif path.suffix == ".parquet":
        pl.DataFrame({"n": range(len(texts)), "text": texts}).write_parquet(path, row_group_size=3)
    else:
        write_csv(path, texts)


def texts_of(source, shard):
    return [(row.row, row.value["text"]) for row in source.read(shard)]


@contextmanager
def without_rights():
    """As a user whom file permissions bind: root gives its rights up for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that any user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def opened(monkeypatch):
    """Names of the files whose bytes were asked for, in order."""
    names = []
    stored_open, stored_polars = (
        source_formats.StoredFile.open,
        source_formats.StoredFile.for_polars,
    )

    def count(original):
        def counted(self):
            names.append(self.name)
            return original(self)

        return counted

    monkeypatch.setattr(source_formats.StoredFile, "open", count(stored_open))
    monkeypatch.setattr(source_formats.StoredFile, "for_polars", count(stored_polars))
    return names


class TestFiles:
    def test_folder_is_listed_recursively_sorted_and_without_hidden_names(self, tmp_path):
        for name in (
            "b.txt",
            "a/z.md",
            "a/B.jsonl",
            ".x.txt",
            "_SUCCESS",
            ".git/c.pdf",
            "a/_t/d.x",
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_text("text")

        files = CorpusSource(str(tmp_path), 10).files()

        assert [file.path for file in files] == ["a/B.jsonl", "a/z.md", "b.txt"]
        assert [file.size for file in files] == [4, 4, 4]
        with fsspec.open(files[2].url) as stream:
            assert stream.read() == b"text"

    @pytest.mark.parametrize(
        ("pattern", "paths"),
        [
            ("", ["d/c.txt", "d/e/b.md", "d/e/f.txt", "g.txt"]),
            ("/g.txt", ["g.txt"]),
            ("/d/e", ["b.md", "f.txt"]),
            ("/d/*.txt", ["c.txt"]),
            ("/d/**/*.txt", ["c.txt", "e/f.txt"]),
            ("/*/e/[a-c].md", ["d/e/b.md"]),
        ],
    )
    @pytest.mark.parametrize("protocol", ["", "file://"])
    def test_source_can_be_a_folder_a_file_or_a_pattern(self, tmp_path, protocol, pattern, paths):
        for name in ("d/c.txt", "d/e/b.md", "d/e/f.txt", "g.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_text(name)

        source = CorpusSource(f"{protocol}{tmp_path}{pattern}", 10)

        assert [file.path for file in source.files()] == paths
        for shard in source.shards():
            ((_, text),) = texts_of(source, shard)
            assert text.endswith(shard.file)

    def test_existing_name_that_looks_like_a_pattern_is_taken_literally(self, tmp_path):
        (tmp_path / "part[1].txt").write_text("literal")
        (tmp_path / "part1.txt").write_text("matched")
        source = CorpusSource(str(tmp_path / "part[1].txt"), 10)
        assert texts_of(source, source.shards()[0]) == [(1, "literal")]

    def test_parquet_name_that_looks_like_a_pattern_is_taken_literally(self, tmp_path):
        write(tmp_path / "a[1].parquet", ["literal"])
        write(tmp_path / "a1.parquet", ["matched"])
        source = CorpusSource(str(tmp_path), 10)
        texts = {s.file: texts_of(source, s) for s in source.shards()}
        assert texts == {"a[1].parquet": [(1, "literal")], "a1.parquet": [(1, "matched")]}

    def test_links_are_followed_and_cycles_end(self, tmp_path):
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "a.txt").write_text("far")
        corpus = tmp_path / "corpus"
        corpus.mkdir()
        (corpus / "folder").symlink_to(tmp_path / "outside")
        (corpus / "b.txt").symlink_to(tmp_path / "outside" / "a.txt")
        (tmp_path / "outside" / "loop").symlink_to(corpus)

        source = CorpusSource(str(corpus), 10)
        shards = source.shards()

        assert [shard.file for shard in shards] == ["b.txt", "folder/a.txt"]
        assert source.shard("b.txt", shards) == shards[0]

    def test_unknown_formats_are_all_named_with_the_remedy(self, tmp_path):
        for name in ("a.txt", "b.epub", "c/data", "d.txt.gz"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("x")
        with pytest.raises(SourceError, match=r"b\.epub, c/data, d\.txt\.gz\. .*\.ndjson") as e:
            CorpusSource(str(tmp_path), 10).shards()
        assert "folder/*.jsonl" in str(e.value)
        assert "a.txt" not in str(e.value)

    def test_extension_may_be_upper_case(self, tmp_path):
        (tmp_path / "A.TXT").write_text("x")
        source = CorpusSource(str(tmp_path), 10)
        assert texts_of(source, source.shards()[0]) == [(1, "x")]

    @pytest.mark.parametrize("name", ["nowhere", "nowhere/a.jsonl"])
    def test_missing_source_is_named(self, tmp_path, name):
        with pytest.raises(SourceError, match=f"{name}: the source does not exist.*RARE_SOURCE"):
            CorpusSource(str(tmp_path / name), 10).files()

    @pytest.mark.parametrize("name", ["", "/*.jsonl"])
    def test_empty_source_is_named(self, tmp_path, name):
        (tmp_path / ".hidden.txt").write_text("x")
        with pytest.raises(SourceError, match="the source is empty"):
            CorpusSource(f"{tmp_path}{name}", 10).files()

    def test_unknown_protocol_is_named(self):
        with pytest.raises(SourceError, match=r"nosuch://x/y: can't be reached .*nosuch"):
            CorpusSource("nosuch://x/y", 10).files()

    def test_unreadable_folder_is_an_error_not_an_omission(self, open_folder):
        (open_folder / "a.txt").write_text("x")
        (open_folder / "locked").mkdir()
        (open_folder / "locked" / "b.txt").write_text("x")
        (open_folder / "locked").chmod(0)
        try:
            with without_rights(), pytest.raises(SourceError, match=r"PermissionError.*locked"):
                CorpusSource(str(open_folder), 10).files()
        finally:
            (open_folder / "locked").chmod(0o755)

    def test_file_name_that_is_not_utf8_is_named(self, tmp_path):
        try:
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.txt")).write_text("x")
        except OSError:
            pytest.skip("this file system refuses such names itself")
        with pytest.raises(SourceError, match=r"not UTF-8: b\\udcff\.txt"):
            CorpusSource(str(tmp_path), 10).files()

    def test_password_in_the_url_is_not_shown(self):
        source = CorpusSource("ftp://me:geheim@127.0.0.1:1/corpus", 10)
        with pytest.raises(SourceError) as e:
            source.files()
        assert "geheim" not in str(e.value)
        assert "geheim" not in repr(source)

    def test_signature_in_the_url_is_not_shown(self):
        source = CorpusSource("https://host/a.jsonl?sig=geheim", 10)
        assert repr(source) == "CorpusSource('https://host/a.jsonl', rows_per_shard=10)"


class TestShards:
    @pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "json", "parquet", "csv"])
    def test_rows_are_cut_and_read_back_by_part(self, tmp_path, suffix):
        write(tmp_path / f"a.{suffix}", TEXTS)
        source = CorpusSource(str(tmp_path), 2)

        shards = source.shards()

        assert [(s.key, s.part, s.first_row, s.n_rows) for s in shards] == [
            (f"a.{suffix}", 0, 1, 2),
            (f"a.{suffix}.part-00001", 1, 3, 2),
            (f"a.{suffix}.part-00002", 2, 5, 1),
        ]
        assert {shard.file for shard in shards} == {f"a.{suffix}"}
        rows = [texts_of(source, shard) for shard in shards]
        assert rows == [
            [(1, "one"), (2, 'two "quoted"')],
            [(3, "three,\nfour"), (4, "fünf")],
            [(5, "six")],
        ]

    @pytest.mark.parametrize("n_rows", [4, 5])
    @pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv"])
    def test_growth_adds_rows_and_parts_and_moves_nothing(self, tmp_path, suffix, n_rows):
        path = tmp_path / f"a.{suffix}"
        source = CorpusSource(str(tmp_path), 2)
        write(path, TEXTS[:n_rows])
        before = source.shards()
        write(path, [*TEXTS, "seven", "eight"])

        after = source.shards(before)

        full = [shard for shard in before if shard.n_rows == 2]
        assert [s._replace(version="") for s in after[: len(full)]] == [
            s._replace(version="") for s in full
        ]
        assert [shard.key for shard in after] == [
            f"a.{suffix}" + end for end in ("", ".part-00001", ".part-00002", ".part-00003")
        ]
        assert all(shard.version != before[0].version for shard in after)
        assert [t for s in after for _, t in texts_of(source, s)] == [*TEXTS, "seven", "eight"]

    def test_byte_offsets_are_those_of_the_rows(self, tmp_path):
        content = b'\xef\xbb\xbf{"text": 1}\n\n  \n{"text": 2}\r\n\n{"text": 3}'
        (tmp_path / "a.jsonl").write_bytes(content)
        source = CorpusSource(str(tmp_path), 1)

        shards = source.shards()

        pieces = [content[shard.byte_start : shard.byte_end] for shard in shards]
        assert pieces == [
            b'\xef\xbb\xbf{"text": 1}\n',
            b'{"text": 2}\r\n',
            b'{"text": 3}',
        ]
        assert [texts_of(source, s) for s in shards] == [[(1, 1)], [(4, 2)], [(6, 3)]]

    def test_a_later_part_is_read_without_what_precedes_it(self, tmp_path, monkeypatch):
        for suffix in ("jsonl", "json", "csv"):
            write(tmp_path / f"a.{suffix}", [str(n) * 50_000 for n in range(100)])
        source = CorpusSource(str(tmp_path), 90)
        parts = [shard for shard in source.shards() if shard.part == 1]
        sizes = []

        class Counted(io.FileIO):
            def readinto(self, buffer):
                sizes.append(super().readinto(buffer))
                return sizes[-1]

        @contextmanager
        def open_counted(self):
            with io.BufferedReader(Counted(self.path)) as stream:
                yield stream

        monkeypatch.setattr(source_formats.StoredFile, "open", open_counted)

        for part in parts:
            sizes.clear()
            assert len(texts_of(source, part)) == 10
            assert 500_000 <= sum(sizes) < 2_700_000

    def test_unchanged_files_are_not_opened_again(self, tmp_path, opened):
        for suffix in ("jsonl", "json", "parquet", "csv"):
            write(tmp_path / f"a.{suffix}", TEXTS)
        (tmp_path / "b.txt").write_text("never opened by a scan")
        source = CorpusSource(str(tmp_path), 2)
        known = source.shards()
        assert sorted(set(opened)) == ["a.csv", "a.json", "a.jsonl", "a.parquet"]
        opened.clear()

        assert source.shards(known) == known
        assert source.shard("a.json.part-00001", known) in known
        assert opened == []

        write(tmp_path / "a.csv", [*TEXTS, "more"])
        source.shards(known)
        assert opened == ["a.csv"]

    def test_files_that_came_went_or_moved_are_seen(self, tmp_path):
        for name in ("a.txt", "b.txt"):
            (tmp_path / name).write_text(name)
        source = CorpusSource(str(tmp_path), 2)
        known = source.shards()
        (tmp_path / "a.txt").rename(tmp_path / "c.txt")
        assert [shard.key for shard in source.shards(known)] == ["b.txt", "c.txt"]

    @pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (10, 2), (2, 10)])
    def test_another_shard_size_cuts_known_files_anew(self, tmp_path, before, after):
        write(tmp_path / "a.jsonl", TEXTS)
        known = CorpusSource(str(tmp_path), before).shards()
        source = CorpusSource(str(tmp_path), after)
        assert source.shards(known) == source.shards()

    def test_known_shards_with_a_gap_are_completed(self, tmp_path):
        write(tmp_path / "a.jsonl", TEXTS)
        source = CorpusSource(str(tmp_path), 2)
        shards = source.shards()
        assert source.shards(shards[1:]) == shards
        assert source.shards([shards[0], shards[2]]) == shards

    def test_file_that_cannot_be_read_keeps_its_shards_and_the_others_go_on(self, tmp_path):
        write(tmp_path / "a.json", TEXTS)
        write(tmp_path / "b.jsonl", TEXTS)
        source = CorpusSource(str(tmp_path), 3)
        known = source.shards()
        (tmp_path / "a.json").write_text('[{"text": "to')

        kept = source.shards(known)
        assert [shard._replace(version="") for shard in kept[:2]] == [
            shard._replace(version="") for shard in known[:2]
        ]
        assert {shard.version.partition(":")[0] for shard in kept[:2]} == {"unread"}
        assert source.shards(kept) == kept
        (broken, *others) = source.shards()

        assert broken == Shard("a.json", "a.json", 0, 1, 0, None, None, kept[0].version)
        assert others == known[2:]
        for shard in (broken, known[0], kept[0]):
            with pytest.raises(UnreadableFile, match=r"a\.json: broken JSON in element 1") as e:
                list(source.read(shard))
            assert e.value.file == "a.json"

    def test_file_repaired_since_the_scan_is_read_as_it_is(self, tmp_path):
        (tmp_path / "a.json").write_text("[")
        source = CorpusSource(str(tmp_path), 3)
        (shard,) = source.shards()
        write(tmp_path / "a.json", TEXTS)
        assert texts_of(source, shard) == list(enumerate(TEXTS[:3], 1))

    def test_rights_that_come_back_are_seen_though_the_version_stays(self, open_folder):
        for name in ("a.jsonl", "b.jsonl"):
            write(open_folder / name, TEXTS)
        source = CorpusSource(str(open_folder), 3)
        known = source.shards()
        (open_folder / "a.jsonl").chmod(0)
        with without_rights():
            assert source.shards(known) == known  # not opened
            (*unread, _, _) = source.shards()
            with pytest.raises(UnreadableFile, match=r"a\.jsonl: can't be read \(PermissionError"):
                list(source.read(unread[0]))
        (open_folder / "a.jsonl").chmod(0o644)
        assert source.shards([*unread, *known[2:]]) == known

    @pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere")])
    def test_what_is_no_file_harms_no_other(self, tmp_path, make):
        write(tmp_path / "a.jsonl", TEXTS)
        make(tmp_path / "b.jsonl")
        source = CorpusSource(str(tmp_path), 10)
        (_, odd) = source.shards()
        with pytest.raises(UnreadableFile, match=r"b\.jsonl: can't be read"):
            list(source.read(odd))

    def test_file_changed_since_the_scan_is_cut_again(self, tmp_path):
        write(tmp_path / "a.jsonl", TEXTS)
        source = CorpusSource(str(tmp_path), 2)
        shards = source.shards()
        write(tmp_path / "a.jsonl", ["a longer first row", "b", "c"])
        assert texts_of(source, shards[1]) == [(3, "c")]
        with pytest.raises(UnknownShard, match=r"part-00002.*a\.jsonl has only 3 rows now"):
            list(source.read(shards[2]))

    def test_shards_sort_by_key_with_parts_in_order(self, tmp_path):
        write(tmp_path / "a.jsonl", [str(n) for n in range(12)])
        shards = CorpusSource(str(tmp_path), 1).shards()
        assert [shard.part for shard in shards] == list(range(12))
        assert [s.key for s in shards] == sorted(s.key for s in shards)


class TestShard:
    @pytest.fixture
    def source(self, tmp_path):
        (tmp_path / "sub dir").mkdir()
        write(tmp_path / "sub dir" / "a.jsonl", TEXTS)
        write(tmp_path / "b.jsonl", TEXTS)
        return CorpusSource(str(tmp_path), 2)

    def test_every_key_leads_to_its_shard(self, source):
        shards = source.shards()
        assert len(shards) == 6
        assert [source.shard(shard.key) for shard in shards] == shards
        assert [source.shard(shard.key, shards) for shard in shards] == shards

    @pytest.mark.parametrize("known", [True, False])
    def test_changed_file_gives_the_shard_as_it_is_now(self, source, tmp_path, known):
        before = source.shards() if known else []
        write(tmp_path / "b.jsonl", [*TEXTS, "seven"])
        shard = source.shard("b.jsonl.part-00002", before)
        assert shard.n_rows == 2
        assert texts_of(source, shard) == [(5, "six"), (6, "seven")]

    @pytest.mark.parametrize("key", ["c.jsonl", "b.jsonl.part-00003", "b.jsonl.part-1", ""])
    def test_unknown_key_is_named_with_how_to_register(self, source, key):
        with pytest.raises(UnknownShard, match=f"{re.escape(repr(key))}.*register"):
            source.shard(key)

    def test_close_key_is_offered(self, source):
        with pytest.raises(UnknownShard, match=r"Did you mean b\.jsonl\?"):
            source.shard("b.json")

    def test_known_shard_of_a_file_that_is_gone(self, source, tmp_path):
        known = source.shards()
        (tmp_path / "b.jsonl").unlink()
        with pytest.raises(UnknownShard, match=r"b\.jsonl is gone"):
            source.shard("b.jsonl", known)
        with pytest.raises(UnknownShard, match=r"'b\.jsonl'"):
            source.shard("b.jsonl")


class TestFormats:
    def rows(self, tmp_path, name, content, rows_per_shard=100):
        (tmp_path / name).write_bytes(content)
        source = CorpusSource(str(tmp_path / name), rows_per_shard)
        return [row for shard in source.shards() for row in source.read(shard)]

    def values(self, tmp_path, name, content, **kwargs):
        return [(row.row, row.value) for row in self.rows(tmp_path, name, content, **kwargs)]

    def test_jsonl_skips_blank_lines_but_counts_them(self, tmp_path):
        rows = self.values(tmp_path, "a.jsonl", b'\n{"text": "x"}\r\n \t\r\n[1]')
        assert rows == [(2, {"text": "x"}), (4, [1])]

    def test_broken_line_of_jsonl_costs_that_line(self, tmp_path):
        content = b'{"text": "a"}\n{"text": "b\n{"text": "c\xff"}\n' + b"[" * 100_000 + b"\n1\n"
        rows = self.rows(tmp_path, "a.jsonl", content)
        assert [(row.row, row.problem) for row in rows] == [
            (1, None),
            (2, "broken_json"),
            (3, "not_utf8"),
            (4, "broken_json"),
            (5, None),
        ]
        assert rows[1].detail.endswith(': {"text": "b')
        assert "\\xff" in rows[2].detail
        assert all(len(row.detail or "") <= 200 for row in rows)

    @pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
    def test_bom_is_no_part_of_the_text(self, tmp_path, name):
        content = {
            "a.jsonl": b'{"text": "x"}',
            "a.json": b'[{"text": "x"}]',
            "a.csv": b"text\nx",
            "a.txt": b"x",
        }[name]
        ((_, value),) = self.values(tmp_path, name, b"\xef\xbb\xbf" + content)
        assert value["text"] == "x"

    @pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
    def test_json_list_is_parsed_alike_however_the_file_is_chunked(
        self, tmp_path, monkeypatch, chunk
    ):
        monkeypatch.setattr(source_formats, "CHUNK", chunk)
        values = [{"text": "é😀", "n": [1, {"a": "]},"}]}, -1.5e3, 12345, "x,y]", None, True, []]
        content = json.dumps(values, ensure_ascii=False, indent=2).encode()
        assert self.values(tmp_path, "a.json", content, rows_per_shard=2) == list(
            enumerate(values, 1)
        )

    @pytest.mark.parametrize(
        "ending", ["parquet", "arrow", "feather", "json", "csv", "tsv", "jsonl.zst", "csv.gz"]
    )
    def test_a_file_without_a_byte_is_told_as_such(self, tmp_path, ending):
        (tmp_path / f"a.{ending}").write_bytes(b"")
        source = CorpusSource(str(tmp_path), rows_per_shard=10)
        with pytest.raises(UnreadableFile, match=rf"^a\.{ending}: the file has no bytes"):
            [list(source.read(shard)) for shard in source.shards()]

    @pytest.mark.parametrize("ending", ["txt", "md", "html", "pdf", "docx"])
    def test_a_text_file_without_a_byte_is_a_row_told_as_such(self, tmp_path, ending):
        (row,) = self.rows(tmp_path, f"a.{ending}", b"")
        assert (row.problem, row.detail) == ("empty_text", "the file has no bytes")

    @pytest.mark.parametrize("content", ["[]", " [ ] \n"])
    def test_empty_json_list_is_a_shard_without_rows(self, tmp_path, content):
        assert self.values(tmp_path, "a.json", content.encode()) == []

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", r"has no bytes"),
            (" \n", r"nothing but white space"),
            ('{"text": "x"}', r"not a list .* rename it to \.jsonl"),
            ("[1", r"element 1.*comma or the list's closing bracket is missing"),
            ("[1, ", r"element 2.*Expecting value"),
            ("[1,]", r"element 2, which begins at byte 3: Expecting value"),
            ('[1, {"a" 2}]', r"element 2.*Expecting ':'"),
            ("[1 2]", r"element 1"),
            ("[1][2]", r"more after the list's closing bracket, at byte 3"),
            ("[" * 100_000, r"element 1"),
        ],
    )
    def test_broken_json_file_is_named_with_the_place(self, tmp_path, content, message):
        with pytest.raises(SourceError, match=rf"a\.json: .*{message}"):
            self.rows(tmp_path, "a.json", content.encode())

    def test_bytes_that_are_not_utf8_in_a_json_list_stay_visible(self, tmp_path):
        content = b'[{"text": "a"}, {"text": "b\xffc"}, {"text": "d"}]'
        values = self.values(tmp_path, "a.json", content, rows_per_shard=1)
        assert values[1] == (2, {"text": "b\udcffc"})
        assert values[2] == (3, {"text": "d"})

    def test_csv_keeps_quoted_newlines_commas_and_quotes(self, tmp_path):
        content = b'id,text,other\r\n7,"a,\r\n""b""\n\nc",x\r\n\r\n,d,\r\n'
        assert self.values(tmp_path, "a.csv", content, rows_per_shard=1) == [
            (1, {"id": "7", "text": 'a,\r\n"b"\n\nc'}),
            (2, {"id": None, "text": "d"}),
        ]

    def test_broken_row_of_csv_costs_that_row(self, tmp_path):
        content = (
            b"text,title,x\na,b,\xff\nc\xff,d,\ne,f\xfe,\nunquoted, comma,t,x\nshort\nlast,,\n"
        )
        rows = self.rows(tmp_path, "a.csv", content)
        assert [(row.row, row.problem) for row in rows] == [
            (1, None),
            (2, "not_utf8"),
            (3, "not_utf8"),
            (4, "bad_csv_row"),
            (5, "bad_csv_row"),
            (6, None),
        ]
        assert rows[3].detail == "4 fields under 3 columns: unquoted, comma,t,x"
        assert rows[5].value == {"text": "last", "title": None}

    @pytest.mark.parametrize(
        ("bad", "n_rows"),
        [
            ('2,"b" c', 1),
            ('2,"never closed', 1),
            ('2,"two\nlines "of" it\nand a third"', 1),
            ('2,""b"', 1),
        ],
    )
    @pytest.mark.parametrize("rows_per_shard", [1, 2, 100])
    def test_a_bad_quote_of_csv_costs_its_record(self, tmp_path, bad, n_rows, rows_per_shard):
        content = f'id,text\n1,"a ""quoted"", thing"\n{bad}\n3,c\n4,"d\ne"\n'
        rows = self.rows(tmp_path, "a.csv", content.encode(), rows_per_shard=rows_per_shard)
        usable = [row.value["text"] for row in rows if not row.problem]
        assert usable == ['a "quoted", thing', "c", "d\ne"]
        assert [row.problem for row in rows].count("bad_csv_row") == n_rows
        assert [row.row for row in rows] == list(range(1, len(rows) + 1))
        assert rows[1].detail.endswith(bad.split("\n")[0])

    def test_tsv_is_a_record_a_line_and_its_quotes_are_text_but_for_pandas_ones(self, tmp_path):
        records = [
            ("1", '"Quoted" from the first word', '"Quoted" from the first word'),
            ("2", '"never closed', '"never closed'),
            ("3", '"pandas ""quotes"" it"', 'pandas "quotes" it'),
            ("4", '"two\nlines"', "two\nlines"),
            ("5", 'size 5"', 'size 5"'),
        ]
        content = "\n".join(f"{n}\t{text}" for n, text, _ in records).encode()
        for columns, head in (("id=0,text=1", b""), ("", b"id\ttext\n")):
            (tmp_path / "a.tsv").write_bytes(head + content)
            for rows_per_shard in (1, 2, 100):
                source = CorpusSource(str(tmp_path / "a.tsv"), rows_per_shard, columns=columns)
                rows = [row for shard in source.shards() for row in source.read(shard)]
                assert [tuple(row.value.values()) for row in rows] == [
                    (n, text) for n, _, text in records
                ]

    def test_a_quote_in_a_tsv_of_one_column_is_closed_at_a_lines_end_or_not_at_all(self, tmp_path):
        lines = ['"Open quote here', "row two", 'A 5" pipe', '"two', 'lines"', '"', "last"]
        rows = self.rows(tmp_path, "a.tsv", "\n".join(["text", *lines]).encode())
        assert [row.value["text"] for row in rows] == [
            *('"Open quote here', "row two", 'A 5" pipe', "two\nlines", '"', "last"),
        ]

    @pytest.mark.timeout(30)
    @pytest.mark.parametrize(("kind", "begin"), [(Csv, '0,"open'), (Tsv, '"open')])
    def test_a_quote_that_stays_open_takes_no_longer_than_the_file(self, kind, begin):
        stream = io.BytesIO(f"{begin}\n".encode() + b"1,a\n" * 500_000)
        first, *others = (record for record, _, _ in kind(Columns()).records(stream, 0))
        assert first == ['"open'] or first.begin == begin
        assert len(others) == 500_000
        assert all(record in (["1", "a"], ["1,a"]) for record in others)

    @pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "json", "csv"])
    @pytest.mark.parametrize("packed", ["gz", "zst"])
    def test_packed_files_are_cut_and_read_as_others(self, tmp_path, suffix, packed):
        plain = tmp_path / f"a.{suffix}"
        write(plain, TEXTS)
        content = plain.read_bytes()
        # Several frames, as parallel packers write them.
        pack = gzip.compress if packed == "gz" else zstd.compress
        parts = [content[:20], content[20:]]
        (tmp_path / f"b.{suffix}.{packed}").write_bytes(b"".join(map(pack, parts)))
        source = CorpusSource(str(tmp_path), 2)
        shards = source.shards()
        assert [shard.key for shard in shards][3:] == [
            f"b.{suffix}.{packed}" + end for end in ("", ".part-00001", ".part-00002")
        ]
        found = [texts_of(source, shard) for shard in shards]
        assert found[:3] == found[3:]

    @pytest.mark.parametrize("packed", ["gz", "zst"])
    def test_a_packed_file_that_is_cut_short_is_named(self, tmp_path, packed):
        pack = gzip.compress if packed == "gz" else zstd.compress
        content = pack(b"".join(b'{"text": "%d"}\n' % n for n in range(10_000)))
        (tmp_path / f"a.jsonl.{packed}").write_bytes(content[:-200])
        source = CorpusSource(str(tmp_path), 10)
        with pytest.raises(UnreadableFile, match=rf"a\.jsonl\.{packed}: can't be read .*whole"):
            list(source.read(source.shards()[0]))

    @pytest.mark.parametrize("suffix", ["arrow", "feather"])
    @pytest.mark.parametrize("stream", [True, False])
    def test_arrow_files_and_streams(self, tmp_path, suffix, stream):
        frame = pl.DataFrame({"n": range(5), "text": TEXTS, "id": list("abcde")})
        path = tmp_path / f"a.{suffix}"
        if stream:
            frame.write_ipc_stream(path)
        else:
            frame.write_ipc(path, compression="zstd")
        source = CorpusSource(str(tmp_path), 2)
        rows = [row for shard in source.shards() for row in source.read(shard)]
        assert [(row.row, row.value) for row in rows] == [
            (n, {"text": text, "id": "abcde"[n - 1]}) for n, text in enumerate(TEXTS, 1)
        ]

    @pytest.mark.parametrize(
        "encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-16-le"]
    )
    @pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "txt", "md"])
    def test_the_mark_or_the_first_zeros_say_the_encoding(self, tmp_path, suffix, encoding):
        path = tmp_path / f"a.{suffix}"
        if suffix in ("txt", "md"):
            path.write_text("fünf 😀")
        else:
            write(path, ["eins", "fünf 😀", "drei"])
        text = path.read_text()
        mark = "\ufeff" if encoding == "utf-16-be" else ""
        path.write_bytes((mark + text).encode(encoding))
        source = CorpusSource(str(tmp_path), 1)
        texts = [text for shard in source.shards() for _, text in texts_of(source, shard)]
        assert texts == (["fünf 😀"] if suffix in ("txt", "md") else ["eins", "fünf 😀", "drei"])

    @pytest.mark.parametrize(
        "name",
        [
            f"a.{end}"
            for end in [
                "jsonl",
                "json",
                "csv",
                "tsv",
                "parquet",
                "arrow",
                "feather",
                "jsonl.gz",
                "csv.zst",
            ]
        ],
    )
    def test_files_without_a_byte_are_told(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"")
        source = CorpusSource(str(tmp_path), 10)
        with pytest.raises(UnreadableFile, match=re.escape(name)):
            read_documents(source.read(source.shards()[0]), file=name)

    def test_long_csv_field_is_read(self, tmp_path):
        ((_, value),) = self.values(tmp_path, "a.csv", b"text\n" + b"x" * 300_000)
        assert value == {"text": "x" * 300_000}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "the file has no bytes"),
            ("\n\n", "no line, not even a header"),
            (
                "Text,id\na,1",
                "needs exactly one column `text`; its columns: Text, id. To use it, set RARE_COLUMNS=text=Text",
            ),
            ("text,text\na,1", "its columns: text, text"),
            ("id;text\n1;a", "its columns: id;text. To use it, separate the columns with commas"),
            ("id\ttext\n1\ta", "To use it, name it .tsv, since tabs part its columns, and set"),
            ("x.Contents\na", "To use it, set RARE_COLUMNS=text=x.Contents"),
            ('text"\n"a"b\n', "needs exactly one column `text`"),
            ('"text\na\n', "first line can't be read (unexpected end of data)"),
        ],
    )
    def test_csv_that_cannot_be_used_is_named_with_the_reason(self, tmp_path, content, message):
        with pytest.raises(SourceError, match=rf"a\.csv: .*{re.escape(message)}"):
            self.rows(tmp_path, "a.csv", content.encode())

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.tsv", b"id,text\n1,a", "To use it, separate the columns with tabs and set"),
            (
                "a.jsonl",
                gzip.compress(b'{"text": "x"}', mtime=0),
                "packed by gzip; a name with .gz",
            ),
            ("a.csv", b"PK\x03\x04 a workbook", "a zip archive or a workbook"),
            ("a.feather", b"FEA1 and more", "Feather of version 1; write it again with version 2"),
        ],
    )
    def test_a_file_that_is_not_what_its_name_says_is_named(self, tmp_path, name, content, message):
        with pytest.raises(UnreadableFile, match=rf"{re.escape(name)}: .*{re.escape(message)}"):
            self.rows(tmp_path, name, content)

    def test_of_many_columns_some_are_named(self, tmp_path):
        (tmp_path / "a.csv").write_text(",".join(f"c{n}" for n in range(10_000)) + "\n")
        source = CorpusSource(str(tmp_path / "a.csv"), 10)
        with pytest.raises(SourceError) as error:
            list(source.read(source.shards()[0]))
        assert "its columns: c0, c1, " in str(error.value)
        assert "c48, c49 and at least 9,950 more. To use it" in str(error.value)
        assert len(str(error.value)) < 1000

    @pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
    def test_columns_within_structs_are_named_and_suggested(self, tmp_path, suffix):
        frame = pl.DataFrame({"page": [{"text": "Water.", "n": 1}], "lang": ["en"]})
        write_to = frame.write_parquet if suffix == "parquet" else frame.write_ndjson
        write_to(tmp_path / f"a.{suffix}")
        source = CorpusSource(str(tmp_path), 10)
        with pytest.raises(UnreadableFile) as error:
            read_documents(
                (row for shard in source.shards() for row in source.read(shard)), file="a"
            )
        told = "its columns: page.text, page.n, lang. To use it, set RARE_COLUMNS=text=page.text"
        assert told in str(error.value)

    def test_parquet_gives_python_values_and_only_the_fields(self, tmp_path):
        frame = pl.DataFrame(
            {"text": ["a", None], "id": [1.0, None], "title": ["t", "t"], "x": [1, 2]},
            schema_overrides={"title": pl.Categorical},
        )
        frame.write_parquet(tmp_path / "a.parquet")
        source = CorpusSource(str(tmp_path), 10)
        rows = [row.value for row in source.read(source.shards()[0])]
        assert rows == [
            {"id": 1.0, "text": "a", "title": "t"},
            {"id": None, "text": None, "title": "t"},
        ]

    @pytest.mark.parametrize("suffix", ["parquet", "arrow"])
    @pytest.mark.parametrize(
        ("dtype", "values", "read"),
        [
            (pl.Date, [-719_162, 2_932_897, 2**31 - 1], [date(1, 1, 1), None, None]),
            (pl.Datetime("ms"), [0, 253_402_300_800_000, -(2**63)], [EPOCH, None, None]),
            # In New York it is still the year before, and Python comes to that by way of UTC.
            (
                pl.Datetime("us", "America/New_York"),
                [0, 253_402_300_800_000_000],
                [EPOCH.replace(tzinfo=UTC), None],
            ),
            (pl.Duration("ms"), [1000, 2**63 - 1], [timedelta(seconds=1), None]),
            (pl.List(pl.Date), [[0, 2**31 - 1]], [[EPOCH.date(), None]]),
            (
                pl.Struct({"on": pl.Date, "n": pl.Int64}),
                [{"on": 2**31 - 1, "n": 1}, None],
                [{"on": None, "n": 1}, None],
            ),
        ],
    )
    def test_a_date_that_python_has_none_for_is_null(self, tmp_path, suffix, dtype, values, read):
        frame = pl.DataFrame({"text": TEXTS[: len(values)], "id": pl.Series(values).cast(dtype)})
        write_to = frame.write_parquet if suffix == "parquet" else frame.write_ipc
        write_to(tmp_path / f"a.{suffix}")
        source = CorpusSource(str(tmp_path), 10)
        assert [row.value["id"] for row in source.read(source.shards()[0])] == read

    def test_csv_columns_by_name_and_without_a_header_by_number(self, tmp_path):
        (tmp_path / "a.csv").write_text("_id,contents,x\n7,water,1\n")
        source = CorpusSource(str(tmp_path / "a.csv"), 10, columns="text=contents,id=_id")
        assert [row.value for row in source.read(source.shards()[0])] == [
            {"_id": "7", "contents": "water"}
        ]
        source = CorpusSource(str(tmp_path / "a.csv"), 10, columns="id=0,text=1")
        assert [(row.row, row.value) for row in source.read(source.shards()[0])] == [
            (1, {"0": "_id", "1": "contents"}),
            (2, {"0": "7", "1": "water"}),
        ]
        source = CorpusSource(str(tmp_path / "a.csv"), 10, columns="text=9")
        with pytest.raises(
            UnreadableFile, match="needs exactly one column `9` for text; its columns: 0, 1, 2"
        ):
            list(source.read(source.shards()[0]))

    def test_parquet_columns_reach_into_structs(self, tmp_path):
        rows = {"document": [{"text": "water", "n": 1}], "_id": [3], "x": ["not read"]}
        pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
        source = CorpusSource(str(tmp_path), 10, columns="text=document.text,id=_id")
        assert [row.value for row in source.read(source.shards()[0])] == [
            {"document.text": "water", "_id": 3}
        ]
        for columns in ("text=document.body", "text=_id.text", "id=docid,text=x"):
            source = CorpusSource(str(tmp_path), 10, columns=columns)
            with pytest.raises(
                UnreadableFile, match=r"its columns: document\.text, document\.n, _id, x"
            ):
                list(source.read(source.shards()[0]))

    def test_other_columns_cut_data_files_anew_and_leave_text_files(self, tmp_path):
        (tmp_path / "a.csv").write_text("text,body\nx,y\n")
        (tmp_path / "b.txt").write_text("x")
        known = CorpusSource(str(tmp_path), 10).shards()
        now = CorpusSource(str(tmp_path), 10, columns="text=body").shards(known)
        assert [(s.file, s.reading, s in known) for s in now] == [
            ("a.csv", "columns text=body", False),
            ("b.txt", "", True),
        ]

    def test_columns_that_cannot_be_used_are_told_as_the_setting(self, tmp_path):
        (tmp_path / "a.csv").write_text("text\nx\n")
        with pytest.raises(SourceError, match="RARE_COLUMNS: 'txt=a'"):
            CorpusSource(str(tmp_path), 10, columns="txt=a").shards()

    def test_parquet_without_text_names_its_columns(self, tmp_path):
        pl.DataFrame({"body": ["a"], "n": [1]}).write_parquet(tmp_path / "a.parquet")
        source = CorpusSource(str(tmp_path), 10)
        with pytest.raises(SourceError, match=r"a\.parquet: .*its columns: body, n\."):
            list(source.read(source.shards()[0]))

    @pytest.mark.parametrize("keep", [1, 3, 200])
    def test_truncated_parquet_is_named(self, tmp_path, keep):
        write(tmp_path / "a.parquet", TEXTS)
        content = (tmp_path / "a.parquet").read_bytes()
        (tmp_path / "a.parquet").write_bytes(content[:keep])
        source = CorpusSource(str(tmp_path), 10)
        with pytest.raises(
            SourceError, match=r"a\.parquet: can't be read .*Check that it is whole"
        ):
            list(source.read(source.shards()[0]))

    def test_damaged_byte_in_parquet_never_raises_anything_else(self, tmp_path):
        path = tmp_path / "a.parquet"
        pl.DataFrame({"text": ["one", "two", "three"]}).write_parquet(path)
        content = path.read_bytes()
        source = CorpusSource(str(path), 10)
        outcomes = set()
        for place in range(len(content)):
            damaged = bytearray(content)
            damaged[place] ^= 0xFF
            path.write_bytes(damaged)
            try:
                for shard in source.shards():
                    list(source.read(shard))
                outcomes.add("read")
            except SourceError as error:
                outcomes.add(str(error).partition(":")[0])
        assert outcomes == {"read", "a.parquet"}

    def test_file_without_permission_is_named(self, open_folder):
        for name in ("a.jsonl", "b.txt"):
            (open_folder / name).write_text('{"text": "x"}')
            (open_folder / name).chmod(0)
        source = CorpusSource(str(open_folder), 10)
        with without_rights():
            for shard in source.shards():
                with pytest.raises(
                    SourceError, match=rf"{shard.file}: can't be read \(PermissionError"
                ):
                    list(source.read(shard))

    @pytest.mark.parametrize(
        ("name", "text", "title"),
        [
            ("a.txt", "# no heading\nin a text file", None),
            ("a.md", "intro\n\n## two\n\n#  The title \n\n# later\n", "The title"),
            ("a.md", "```sh\n# a comment\n```\n# Real\n", "Real"),
            ("a.md", "no heading, #tag\n", None),
            ("a.md", "---\ntitle: Front\n# a remark\n---\n\ntext", "Front"),
            ("a.md", "---\ntitle: Front\n---\n\n# Real\n", "Real"),
        ],
    )
    def test_text_file_is_one_document_as_it_stands(self, tmp_path, name, text, title):
        assert self.values(tmp_path, name, text.encode()) == [(1, {"text": text, "title": title})]

    def test_text_file_that_is_not_utf8(self, tmp_path):
        (row,) = self.rows(tmp_path, "a.txt", "café".encode("latin-1"))
        assert (row.row, row.problem) == (1, "not_utf8")
        assert "caf\\xe9" in row.detail


class TestRemote:
    @pytest.fixture(params=["s3", "memory"])
    def remote(self, request):
        """URL of an empty place in a store, and its file system."""
        if request.param == "memory":
            fs = fsspec.filesystem("memory")
            fs.store.clear()
            fs.pseudo_dirs[:] = [""]
            yield "memory://corpus", fs
            fs.store.clear()
        else:
            url = request.getfixturevalue("s3_bucket")
            yield url, fsspec.filesystem("s3")

    @pytest.fixture
    def corpus(self, remote, tmp_path):
        url, fs = remote
        for name in ("a.jsonl", "b.json", "c.csv", "d.parquet"):
            write(tmp_path / name, TEXTS)
        (tmp_path / "e.md").write_text("# t\n")
        (tmp_path / "_SUCCESS").write_text("")
        for path in tmp_path.iterdir():
            fs.put_file(str(path), f"{url}/sub dir/{path.name}")
        return url, fs

    def test_all_formats_are_read_from_the_store(self, corpus):
        url, _ = corpus
        source = CorpusSource(f"{url}/sub dir", 2)
        shards = source.shards()
        assert [shard.part for shard in shards] == [0, 1, 2] * 4 + [0]
        by_file = {}
        for shard in shards:
            by_file.setdefault(shard.file, []).extend(text for _, text in texts_of(source, shard))
        expected = dict.fromkeys(["a.jsonl", "b.json", "c.csv", "d.parquet"], TEXTS)
        assert by_file == {**expected, "e.md": ["# t\n"]}

    def test_paths_are_relative_and_patterns_work(self, corpus):
        url, _ = corpus
        assert CorpusSource(url, 9).files()[0].path == "sub dir/a.jsonl"
        assert CorpusSource(f"{url}/sub dir/a.jsonl", 9).files()[0].path == "a.jsonl"
        paths = [file.path for file in CorpusSource(f"{url}/**/*.json*", 9).files()]
        assert paths == ["sub dir/a.jsonl", "sub dir/b.json"]
        with fsspec.open(CorpusSource(url, 9).files()[0].url) as stream:
            assert json.loads(stream.readline()) == {"text": "one"}

    def test_a_scan_and_a_look_at_one_file_agree_on_the_version(self, corpus, opened):
        url, fs = corpus
        source = CorpusSource(url, 2)
        known = source.shards()
        opened.clear()
        assert source.shards(known) == known
        assert [source.shard(shard.key, known) for shard in known] == known
        assert opened == []

        fs.pipe_file(f"{url}/sub dir/a.jsonl", b'{"text": "one"}\n{"text": "changed"}')

        changed = [s.file for s in source.shards(known) if s not in known]
        assert changed == ["sub dir/a.jsonl"]
        assert opened == ["sub dir/a.jsonl"]

    def test_missing_and_empty_places_are_named(self, remote):
        url, _ = remote
        with pytest.raises(SourceError, match=f"{url}/none: the source does not exist"):
            CorpusSource(f"{url}/none", 9).files()

    def test_what_another_client_writes_is_seen_at_once(self, s3_bucket):
        import s3fs

        other = s3fs.S3FileSystem(skip_instance_cache=True)
        other.pipe_file(f"{s3_bucket}/d/a.txt", b"x")
        for end in ("", "/d", "/d/*.txt", "/*/*"):
            source = CorpusSource(f"{s3_bucket}{end}", 9)
            (known,) = source.shards()
            fsspec.filesystem("s3").ls(f"{s3_bucket}/d")  # s3fs remembers it from now on
            other.pipe_file(f"{s3_bucket}/d/b.txt", b"new")
            assert [shard.file[-5:] for shard in source.shards()] == ["a.txt", "b.txt"]
            fsspec.filesystem("s3").ls(f"{s3_bucket}/d")
            other.pipe_file(f"{s3_bucket}/d/a.txt", b"longer")
            assert source.shard(known.key, [known]).version != known.version
            other.pipe_file(f"{s3_bucket}/d/a.txt", b"x")
            other.rm_file(f"{s3_bucket}/d/b.txt")

    def test_folder_placeholders_of_a_store_are_no_files(self, s3_bucket):
        fs = fsspec.filesystem("s3")
        fs.pipe_file(f"{s3_bucket}/d/a.txt", b"x")
        bucket = s3_bucket.removeprefix("s3://")
        fs.call_s3("put_object", Bucket=bucket, Key="d/")
        fs.call_s3("put_object", Bucket=bucket, Key="d/empty/")
        for url in (s3_bucket, f"{s3_bucket}/d"):
            assert [file.path[-5:] for file in CorpusSource(url, 9).files()] == ["a.txt"]

    def test_a_scan_of_many_folders_is_one_listing(self, s3_bucket, monkeypatch):
        import s3fs

        fs = fsspec.filesystem("s3")
        for n in range(12):
            fs.pipe_file(f"{s3_bucket}/f{n}/g/a.txt", b"x")
        source = CorpusSource(s3_bucket, 9)
        source.files()
        calls = []
        original = s3fs.S3FileSystem._call_s3

        def counted(self, method, *args, **kwargs):
            calls.append(method)
            return original(self, method, *args, **kwargs)

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
        assert len(source.shards()) == 12
        assert calls == ["list_objects_v2"]

    def test_store_that_goes_away_is_no_unreadable_file(self, s3_bucket, monkeypatch):
        import s3fs

        fs = fsspec.filesystem("s3")
        fs.pipe_file(f"{s3_bucket}/a.jsonl", b'{"text": "x"}')
        fs.pipe_file(f"{s3_bucket}/b.json", b"[")
        source = CorpusSource(s3_bucket, 9)
        known = source.shards()
        with pytest.raises(UnreadableFile, match=r"b\.json: broken JSON"):
            list(source.read(known[1]))

        def gone(*args, **kwargs):
            raise ConnectionError("the store is away")

        monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", gone)
        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", gone)
        for call in (
            lambda: source.shards(known),
            lambda: source.shard("a.jsonl", known),
            lambda: list(source.read(known[0])),
        ):
            with pytest.raises(SourceError, match=f"{s3_bucket}: can't be (listed|reached)") as e:
                call()
            assert not isinstance(e.value, UnreadableFile)

    def test_object_that_may_not_be_read_is_an_unreadable_file(self, s3_bucket, monkeypatch):
        import s3fs

        fs = fsspec.filesystem("s3")
        for name in ("a.jsonl", "b.jsonl"):
            fs.pipe_file(f"{s3_bucket}/{name}", b'{"text": "x"}')
        original = s3fs.S3FileSystem._call_s3

        async def refuse(self, method, *args, **kwargs):
            if method == "get_object" and kwargs.get("Key") == "a.jsonl":
                raise PermissionError("Access Denied")
            return await original(self, method, *args, **kwargs)

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", refuse)
        unread, read = CorpusSource(s3_bucket, 9).shards()
        assert (unread.n_rows, read.n_rows) == (0, 1)

    def test_store_that_does_not_answer_is_named(self, s3_bucket, monkeypatch):
        import s3fs

        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
        with pytest.raises(SourceError, match=f"{s3_bucket}: can't be reached .*credentials"):
            CorpusSource(s3_bucket, 9).files()
