"""Many text files share shards, which an added or changed file leaves as they are but for its own."""

import json
import os

import pytest

from rare_assets.automation.registration import describe_missing, register
from rare_assets.checks.boilerplate import few_repeated_lines
from rare_assets.checks.judgement import StoredShard
from rare_assets.corpus.packing import TEXTS, is_packed_key, packed
from rare_assets.corpus.scan import known_shards, scan_source
from rare_assets.corpus.source import CorpusSource, UnknownShard
from rare_assets.operators.read_documents import read_documents
from rare_assets.resources.dataset import UNNAMED
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph
from rare_assets_tests.support.passages import passage


def paths(n, start=0):
    return [f"docs/page {number}.md" for number in range(start, start + n)]


def write(folder, n, start=0):
    for number in range(start, start + n):
        (folder / f"{number}.md").write_text(f"# Page {number}\n\n{passage(number)}\n")


def source(folder, files_per_shard=20):
    return CorpusSource(str(folder), 100, files_per_shard=files_per_shard)


class TestPacked:
    def test_every_file_is_in_one_shard_of_at_most_so_many(self):
        shards = packed(paths(2000), 200, TEXTS)
        assert sorted(path for files in shards.values() for path in files) == sorted(paths(2000))
        assert max(map(len, shards.values())) <= 200
        assert len(shards) <= 32
        assert all(is_packed_key(key) for key in shards)

    def test_where_a_file_is_depends_on_no_order_and_no_other_name(self):
        assert packed(paths(500), 100, TEXTS) == packed(paths(500)[::-1], 100, TEXTS)

    def test_an_added_file_changes_one_shard_or_halves_it(self):
        before = packed(paths(1000), 50, TEXTS)
        for number in range(1000, 1100):
            after = packed([*paths(1000), *paths(1, number)], 50, TEXTS)
            changed = {key for key in before if before[key] != after.get(key)}
            assert len(changed) == 1
            assert changed <= set(after)
            assert len(after) - len(before) <= 1

    def test_many_shards_grow_by_halving(self):
        before = packed(paths(1000), 50, TEXTS)
        after = packed(paths(3000), 50, TEXTS)
        assert set(before) <= set(after)


class TestSource:
    def test_few_text_files_are_a_shard_each(self, tmp_path):
        write(tmp_path, 50)
        assert len(source(tmp_path).shards()) == 50
        write(tmp_path, 1, 50)
        assert len(source(tmp_path).shards()) < 10
        assert len(source(tmp_path, files_per_shard=1).shards()) == 51

    def test_data_files_keep_their_shards(self, tmp_path):
        write(tmp_path, 60)
        (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
        keys = [shard.key for shard in source(tmp_path).shards()]
        assert keys[0] == "a.jsonl"
        assert all(is_packed_key(key) for key in keys[1:])

    def test_hundreds_of_small_data_files_share_shards(self, tmp_path):
        for number in range(201):
            rows = [{"id": f"{number}-{row}", "text": passage(row)} for row in range(3)]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / f"{number}.jsonl").write_text(lines)
        assert len(source(tmp_path, files_per_shard=1).shards()) == 201
        found = source(tmp_path, files_per_shard=100)
        shards = found.shards()
        assert {shard.key.split(".")[0] for shard in shards} == {"rows"}
        assert sum(shard.n_rows for shard in shards) == 603
        rows = [row for shard in shards for row in found.read(shard)]
        assert sorted((row.file, row.row) for row in rows) == sorted(
            (f"{number}.jsonl", row) for number in range(201) for row in (1, 2, 3)
        )
        assert source(tmp_path, files_per_shard=100).shards(shards) == shards
        (tmp_path / "7.jsonl").unlink()
        assert len(found.shards(shards)) == 200  # one fewer: each its own again

    def test_a_large_data_file_is_a_shard_of_its_own_and_a_broken_one_a_reject(self, tmp_path):
        for number in range(210):
            (tmp_path / f"{number}.json").write_text(json.dumps([{"text": passage(number)}]))
        (tmp_path / "7.json").write_text('[{"text": "cut o')
        large = [{"text": passage(number)} for number in range(1000, 1800)]
        (tmp_path / "large.json").write_text(json.dumps(large))
        found = source(tmp_path, files_per_shard=200)
        shards = found.shards()
        assert [s.key for s in shards if not s.members] == [
            f"large.json{part}" for part in ("", *(f".part-{n:05d}" for n in range(1, 8)))
        ]
        rejects = [
            (row["file"], row["reason"])
            for shard in shards
            for row in read_documents(found.read(shard), file=shard.file).rejects.to_dicts()
        ]
        assert rejects == [("7.json", "unreadable")]

    def test_rows_keep_their_file_and_one_that_cannot_be_read_is_a_reject(self, tmp_path):
        write(tmp_path, 60)
        (tmp_path / "broken.pdf").write_bytes(b"no PDF")
        (tmp_path / "nowhere.md").symlink_to("gone.md")
        (tmp_path / "page.html").write_text("<h1>Head</h1><p>Some text of a page.")
        found = source(tmp_path)
        shards = found.shards()
        produced = [read_documents(found.read(shard), file=shard.file) for shard in shards]
        places = {
            (row["source"], row["parent_id"])
            for made in produced
            for row in made.rows.iter_rows(named=True)
        }
        names = [*(f"{number}.md" for number in range(60)), "page.html"]
        assert places == {(f"{name}:1", name) for name in names}
        rejects = [row for made in produced for row in made.rejects.select("file", "reason").rows()]
        assert sorted(rejects) == [("broken.pdf", "broken_file"), ("nowhere.md", "unreadable")]

    def test_a_changed_file_changes_its_shard(self, tmp_path):
        write(tmp_path, 100)
        known = source(tmp_path).shards()
        assert source(tmp_path).shards(known) == known
        (tmp_path / "7.md").write_text("changed")
        changed = [s for s in source(tmp_path).shards(known) if s not in known]
        assert ["7.md" in shard.members for shard in changed] == [True]
        (shard,) = changed
        assert source(tmp_path).shard(shard.key, known) == shard
        assert source(tmp_path).shard(shard.key) == shard

    def test_files_that_are_gone_leave_their_shard(self, tmp_path):
        write(tmp_path, 100)
        known = source(tmp_path).shards()
        (tmp_path / known[0].members[0]).unlink()
        assert source(tmp_path).shard(known[0].key, known).members == known[0].members[1:]
        for name in known[0].members[1:]:
            (tmp_path / name).unlink()
        with pytest.raises(UnknownShard, match="All of its files are gone"):
            source(tmp_path).shard(known[0].key, known)


class TestBoilerplate:
    MENU = "Home | Products | About us"

    def write(self, folder):
        for number in range(60):
            menu = f"{self.MENU}\n\n" if number % 2 else ""
            footer = "\n\n# Notes\n\n---\n\n(c) Example Corp."
            (folder / f"{number}.md").write_text(f"{menu}{passage(number)}{footer}\n")

    def test_repeated_lines_are_left_out_where_that_is_wanted(self, tmp_path):
        self.write(tmp_path)
        plain = source(tmp_path)
        stripping = CorpusSource(str(tmp_path), 100, files_per_shard=60, strip_boilerplate=True)
        (shard,) = stripping.shards()
        assert shard.reading == "without repeated lines"
        rows = read_documents(stripping.read(shard), file=shard.file).rows
        assert sorted(rows["text"].str.strip_chars().to_list()) == sorted(
            f"{passage(number)}\n\n# Notes\n\n---" for number in range(60)
        )
        assert all(
            self.MENU in row.value["text"] or int(row.file[:-3]) % 2 == 0
            for s in plain.shards()
            for row in plain.read(s)
        )

    def test_the_check_names_them(self, tmp_path):
        (tmp_path / "s").mkdir()
        self.write(tmp_path / "s")
        found = CorpusSource(str(tmp_path / "s"), 100, files_per_shard=60)
        (shard,) = found.shards()
        tables = ParquetTables(str(tmp_path / "t"))
        produced = read_documents(found.read(shard), file=shard.file)
        tables.write("documents", shard.key, produced.rows, produced.rejects)
        judged = few_repeated_lines(StoredShard("documents", shard.key, tables))
        assert not judged.passed
        assert judged.metadata["examples"] == [
            "(c) Example Corp. (60 of 60 files)",
            f"{self.MENU} (30 of 60 files)",
        ]
        few = produced.rows.head(9)
        tables.write("documents", "few", few)
        assert few_repeated_lines(StoredShard("documents", "few", tables)).passed


@pytest.fixture
def graph(only_key_set, tmp_path):
    with FakeEndpoint() as endpoint:
        graph = Graph(tmp_path, endpoint.url)
        graph.endpoint = endpoint
        yield graph


def test_what_was_made_with_a_shard_a_file_stays_paid_for(graph, monkeypatch):
    monkeypatch.setattr("rare_assets.corpus.source.PACKED_ABOVE", 3)
    write(graph.source, 4)
    graph.corpus = graph.corpus.model_copy(update={"files_per_shard": 1})
    graph.rebuild()
    assert all(result.success for result in graph.make_all())
    before = graph.rows("reasoning").drop("shard").sort("question_id")
    n_requests = len(graph.endpoint.requests)
    assert n_requests >= 8

    graph.corpus = graph.corpus.model_copy(update={"files_per_shard": 3})
    graph.rebuild()
    scan = scan_source(graph.corpus.source(), graph.tables, graph.shards)
    assert (len(scan.superseded), scan.gone, scan.moved) == (4, [], False)
    assert "4 shards were replaced" in describe_missing(scan, scan.superseded)
    args = (graph.corpus.source(), graph.tables, graph.instance, UNNAMED)
    assert register(scan, *args, remove_deleted=False) == scan.superseded
    assert graph.shards == [shard.key for shard in scan.shards]
    assert known_shards(graph.tables) == scan.shards
    assert all(result.success for result in graph.make_all())
    assert len(graph.endpoint.requests) == n_requests
    assert graph.rows("reasoning").drop("shard").sort("question_id").equals(before)

    # One changed file of a shard asks for its question, and for reasoning that showed it.
    path = graph.source / "3.md"
    path.write_text(path.read_text().replace("# Page 3", "# Page three"))
    os.utime(path, (1, 1))
    assert all(result.success for result in graph.make_all())
    assert 2 <= len(graph.endpoint.requests) - n_requests <= 6
