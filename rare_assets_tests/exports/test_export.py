"""An export as a whole: only what changed is written, in files of bounded size, in a folder of our own."""

import json
import shutil
import subprocess
import sys

import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rare_assets.exports.complete import complete
from rare_assets.exports.export import Export
from rare_assets.exports.folder import OutFolder
from rare_assets.exports.formats import FORMATS
from rare_assets.exports.options import ExportError, ExportOptions
from rare_assets.exports.proof import prove
from rare_assets.files.stored_bytes import StorageError
from rare_assets.schemas import TABLES
from rare_assets.storage.tables import ParquetTables, TableDamaged
from rare_assets_tests.exports.conftest import SHARES, make
from rare_assets_tests.exports.corpus import document, question, reasoning, store, write
from rare_assets_tests.support.s3_server import s3_bucket, s3_endpoint  # noqa: F401


def held_out(out):
    return pl.read_parquet(out / "splits.parquet").filter(pl.col("split") != "train")


def proof(tables, out, **options):
    with Export(tables, str(out), ExportOptions(**{**SHARES, **options})) as export:
        export.prepare()
        return prove(export)


def test_no_document_is_on_two_sides_and_held_out_ones_are_no_negatives_of_training(tables, out):
    make(tables, str(out))
    away = set(held_out(out)["doc_id"])
    assert 4 < len(away) < 30
    seen = set()
    for path in out.glob("tevatron/*/*.jsonl"):
        for line in path.read_text().splitlines() if path.parent.name != "corpus" else []:
            row = json.loads(line)
            side = path.parent.name == "train"
            assert (row["positive_document_ids"][0] in away) != side
            if side:
                assert not away & set(row["negative_document_ids"])
            seen.add(row["query_id"])
    assert len(seen) > 30
    found = proof(tables, out)
    assert found.holds
    assert found.held_out == len(away)


def test_the_proof_sees_what_is_on_two_sides(tables, out):
    make(tables, str(out))
    train = out / "cross-encoder/train/a.jsonl.parquet"
    sidecar = out / "cross-encoder/train/a.jsonl.ids.parquet"
    away = held_out(out)["doc_id"][0]
    rows, ids = pl.read_parquet(train), pl.read_parquet(sidecar)
    ids.with_columns(doc_id=pl.lit(away)).write_parquet(sidecar)
    found = proof(tables, out)
    assert (found.holds, found.on_two_sides) == (False, [away])
    ids.write_parquet(sidecar)
    passage = f"Title {away[1:]}\n\n{document(int(away[1:]))['text']}"
    rows.with_columns(docs=pl.concat_list("docs", pl.lit(passage))).write_parquet(train)
    assert proof(tables, out).negatives_in_training == [away]


def test_the_proof_sees_near_duplicates_and_twins_by_itself(tables, out):
    """Rows written by splits that knew nothing of them."""
    make(tables, str(out))
    away = held_out(out)["doc_id"].to_list()
    near, twin = (int(d[1:]) for d in away[:2])
    free = [f"d{n}" for n in range(40) if f"d{n}" not in away]
    for doc_id, text in (
        (free[0], document(near)["text"].replace("About", "Of")),
        (free[1], document(twin)["text"]),
    ):
        shard = "a.jsonl" if int(doc_id[1:]) < 20 else "b.jsonl"
        rows = tables.scan("documents", shard).collect().to_dicts()
        changed = [
            document(0, doc_id=doc_id, text=text) if r["doc_id"] == doc_id else r for r in rows
        ]
        write(tables, "documents", shard, changed)
    with Export(tables, str(out), ExportOptions(**SHARES)) as export:
        found = prove(export)
    assert any(free[0] in pair and f"d{near}" in pair for pair in found.near_duplicates)
    assert found.twins
    assert free[1] in found.twins[0]


def test_training_prompts_that_show_a_held_out_document_are_counted_or_dropped(tables, out):
    make(tables, str(out), ["messages"])
    path = out / "messages/train/a.jsonl.ids.parquet"
    kept = pl.read_parquet(path)["doc_id"].to_list()
    counted = json.loads((out / "manifest/messages/a.jsonl.json").read_text())["shows_held_out"]
    make(tables, str(out), ["messages"], held_out_context="drop")
    left = pl.read_parquet(path)["doc_id"].to_list()
    away = set(held_out(out)["doc_id"])
    shows = [d for d in kept if away & {f"d{(int(d[1:]) + k) % 40}" for k in (1, 2, 3)}]
    assert counted == len(shows) > 0
    assert left == [d for d in kept if d not in shows]


def test_only_shards_that_changed_are_written_again(tables, out):
    assert len(make(tables, str(out))) == 2 * len(FORMATS)
    assert make(tables, str(out)) == []
    made = tables.scan("reasoning", "b.jsonl").collect().to_dicts()
    made[0]["answer"], made[0]["raw_answer"] = "another", "another"
    write(tables, "reasoning", "b.jsonl", made)
    assert {shard for shard, _ in make(tables, str(out))} == {"b.jsonl"}
    assert make(tables, str(out), max_gold_rank=5, formats=["verl"]) != []


def test_a_new_shard_that_ties_no_document_of_another_leaves_that_as_it_is(tables, out):
    make(tables, str(out), ["messages"])
    store(tables, {"c.jsonl": [document(n) for n in range(50, 55)]})
    assert make(tables, str(out), ["messages"]) == [("c.jsonl", "messages")]
    # A copy of a held-out document draws for the family, too: where it draws training, all move there.
    [away, *_] = [d for d in held_out(out)["doc_id"] if int(d[1:]) < 20]
    copies = [
        document(0, doc_id=f"copy{n}", text=document(int(away[1:]))["text"]) for n in range(9)
    ]
    store(tables, {"c.jsonl": [*copies, document(51)]})
    written = make(tables, str(out), ["messages"])
    assert ("a.jsonl", "messages") in written
    assert away not in held_out(out)["doc_id"].to_list()


def test_files_of_a_shard_that_is_gone_are_removed(tables, out):
    make(tables, str(out))
    tables.delete("b.jsonl")
    make(tables, str(out))
    assert not list(out.rglob("b.jsonl*"))
    assert "d30" not in (out / "beir/train/corpus.jsonl").read_text()


def test_a_large_shard_is_several_files_with_their_own_sidecars(tables, out):
    documents = [document(n, text=f"{n} " + "word " * 4_000) for n in range(120)]
    for number, row in enumerate(documents):
        row["text_hash"] = str(number)
    store(tables, {"a.jsonl": documents, "b.jsonl": [document(500)]})
    shares = {"validation_share": 0.0, "test_share": 0.0}
    make(tables, str(out), ["dataflow"], max_file_mb=1, near_duplicate_threshold=1.0, **shares)
    files = sorted(path for path in (out / "dataflow/train").glob("a.jsonl*.jsonl"))
    assert files[0].name == "a.jsonl.file-00002.jsonl"
    assert len(files) > 5
    assert max(path.stat().st_size for path in files) < 1_300_000
    rows = 0
    for path in files:
        ids = pl.read_parquet(path.with_name(path.name.removesuffix(".jsonl") + ".ids.parquet"))
        assert ids["row"].to_list() == list(range(len(path.read_text().splitlines())))
        rows += ids.height
    assert rows == 120


def test_a_bound_that_no_file_reaches_is_none(tables, out):
    make(tables, str(out), ["messages"])
    files = {path: path.read_bytes() for path in out.glob("messages/*/*")}
    make(tables, str(out.with_name("huge")), ["messages"], max_file_mb=10**23)
    huge = out.with_name("huge")
    assert {
        out / path.relative_to(huge): path.read_bytes() for path in huge.glob("messages/*/*")
    } == files


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"max_gold_rank": 2}, [0, 1]),
        ({"min_score_gap": 0.5}, [0, 1, 2]),
        ({"max_prompt_tokens": 400}, [2]),
        ({"max_completion_tokens": 20}, [0, 1, 3, 4]),
        ({"answer_correct": "correct"}, [0]),
        ({"answer_correct": "not_wrong"}, [0, 2, 3, 4]),
        ({"languages": ["de"]}, [4]),
        ({"gold_used": True}, [0, 3]),
        ({"judged": True}, [1, 2]),
    ],
)
def test_filters_keep_what_they_say_and_count(tmp_path, out, options, kept):
    tables = ParquetTables(str(tmp_path / "filtered"))
    documents = [document(n) for n in range(5)]
    documents[1]["text"] += " more" * 400
    store(tables, {"a": documents})
    mined = tables.scan("hard_negatives", "a").collect().to_dicts()
    for row, rank, score in zip(mined, (1, 2, 3, None, 9), (9.0, 8.0, 8.0, None, 5.0), strict=True):
        row["gold_rank"], row["gold_score"] = rank, score
    write(tables, "hard_negatives", "a", mined)
    asked = [question(row) for row in documents]
    asked[4]["question"] = "Warum gibt die Batterie im Winter weniger Strom ab als im Sommer?"
    frame = pl.DataFrame(asked).with_columns(
        judged=pl.Series([None, {"ok": True}, {"ok": True}, None, None])
    )
    store_frame(tables, "questions", frame)
    made = [reasoning(row, mine) for row, mine in zip(documents, mined, strict=True)]
    for row, correct in zip(made, (True, False, None, None, None), strict=True):
        row["answer_correct"] = correct
    made[2]["reasoning"] = "Long " * 40
    made[4]["question"] = asked[4]["question"]
    gold_used = pl.Series("gold_used", [True, False, False, True, None])
    store_frame(tables, "reasoning", pl.DataFrame(made).with_columns(gold_used))
    make(tables, str(out), ["cross-encoder"], validation_share=0.0, test_share=0.0, **options)
    ids = pl.read_parquet(out / "cross-encoder/train/a.ids.parquet")["doc_id"].to_list()
    assert ids == [f"d{n}" for n in kept]
    counts = json.loads((out / "manifest/cross-encoder/a.json").read_text())["counts"]
    assert [5, len(kept)] in [count[1:] for count in counts]


def store_frame(tables, table, frame):
    """Store a table with columns that later versions have."""
    tables.write(table, "a", frame)
    extra = [name for name in frame.columns if name in ("judged", "gold_used")]
    path = tables.path(table, "a")
    whole = pl.read_parquet(str(path))
    if not set(extra) <= set(whole.columns):
        metadata = pl.read_parquet_metadata(str(path))
        keep = {"rare_assets": metadata["rare_assets"]}
        whole.with_columns(frame.select(extra)).write_parquet(str(path), metadata=keep)


@pytest.mark.parametrize("column", ["gold_used", "judged"])
def test_a_filter_on_what_the_tables_do_not_tell_is_refused(tables, out, column):
    for table in ("questions", "reasoning"):
        path = str(tables.path(table, "a.jsonl"))
        metadata = {"rare_assets": pl.read_parquet_metadata(path)["rare_assets"]}
        pl.read_parquet(path).drop(column, strict=False).write_parquet(path, metadata=metadata)
    with (
        pytest.raises(ExportError, match=f"needs the column {column}"),
        Export(tables, str(out), ExportOptions(**{column: True})) as export,
    ):
        export.prepare()
    assert not out.exists()


def test_negatives_that_the_teacher_used_are_left_out(tables, out):
    path = str(tables.path("reasoning", "a.jsonl"))
    footer = json.loads(pl.read_parquet_metadata(path)["rare_assets"])
    del footer["checksum"]
    metadata = {"rare_assets": json.dumps(footer)}
    frame = pl.read_parquet(path).drop("suspected_relevant", strict=False)
    used = [["d1"] if row == "d0" else [] for row in frame["doc_id"]]
    frame.with_columns(suspected_relevant=pl.Series(used)).write_parquet(path, metadata=metadata)
    make(tables, str(out), ["tevatron"], validation_share=0.0, test_share=0.0)
    first = json.loads((out / "tevatron/train/a.jsonl.jsonl").read_text().splitlines()[0])
    assert first["negative_document_ids"] == ["d2", "d3"]


def test_rests_of_a_killed_export_count_nothing_twice(tables, out):
    make(tables, str(out), ["messages", "beir", "tevatron"])
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in ("beir/a.jsonl.json", "tevatron-corpus/b.jsonl.json"):
        path = out / "manifest" / name
        shutil.copy(path, path.with_name(f".{path.name}.{'0' * 32}"))
    (out / f"manifest/messages/.a.jsonl.json.{'1' * 32}").touch()
    rests = {path: path.read_bytes() for path in out.rglob(".*")}
    assert make(tables, str(out), ["messages", "beir", "tevatron"]) == []
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert after == {**before, **rests}
    with Export(tables, str(out), ExportOptions(**SHARES)) as export:
        assert [each.shard for each in export.all_written()] == 3 * ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("left", [b"", b'{"format": "mess', b"{}", b"[]", b"\xff"])
def test_a_damaged_manifest_is_written_again_with_its_files(tables, out, caplog, left):
    make(tables, str(out), ["messages", "beir"])
    names = ["messages/a.jsonl.json", "beir-train.json", "splits.json"]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in names:
        (out / "manifest" / name).write_bytes(left)
    assert make(tables, str(out), ["messages", "beir"]) == [("a.jsonl", "messages")]
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert caplog.text.count(f"{out}/manifest/messages/a.jsonl.json is damaged: ") == 1


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("messages/train/a.jsonl.jsonl", [("a.jsonl", "messages")]),
        ("messages/train/b.jsonl.ids.parquet", [("b.jsonl", "messages")]),
        ("cross-encoder/train/a.jsonl.parquet", [("a.jsonl", "cross-encoder")]),
        ("data/cross-encoder/test/b.jsonl.jsonl", [("b.jsonl", "cross-encoder")]),
        ("splits.parquet", []),
        ("beir/train/qrels/test.tsv", []),
        ("tevatron/corpus/b.jsonl.jsonl", []),
    ],
)
def test_a_file_that_is_gone_or_cut_off_is_written_again(tables, out, name, written):
    formats = ["messages", "cross-encoder", "beir", "tevatron"]
    make(tables, str(out), formats)
    whole = (out / name).read_bytes()
    (out / name).unlink()
    assert make(tables, str(out), formats) == written
    assert (out / name).read_bytes() == whole
    # No manifest has the size of what belongs to all shards.
    for left in (b"", whole[:-9]) if written or name == "splits.parquet" else ():
        (out / name).write_bytes(left)
        assert make(tables, str(out), formats) == written
        assert (out / name).read_bytes() == whole


def test_files_are_looked_for_by_one_listing_a_folder(tables, out, monkeypatch):
    make(tables, str(out), ["messages"])
    listed = []
    sizes = OutFolder.sizes

    def counted(folder, relative):
        listed.append(relative)
        return sizes(folder, relative)

    monkeypatch.setattr(OutFolder, "sizes", counted)
    assert make(tables, str(out), ["messages"]) == []
    assert sorted(listed) == ["messages/test", "messages/train", "messages/validation"]


def test_a_folder_of_somebody_else_is_refused_and_left_alone(tables, out):
    out.mkdir()
    (out / "thesis.md").write_text("mine")
    with (
        pytest.raises(ExportError, match="holds something else"),
        Export(tables, str(out), ExportOptions()) as export,
    ):
        export.prepare()
    assert [path.name for path in out.iterdir()] == ["thesis.md"]
    (out / "thesis.md").rename(out.parent / "thesis.md")
    with (
        pytest.raises(ExportError, match="is a file"),
        Export(tables, str(out.parent / "thesis.md"), ExportOptions()) as export,
    ):
        export.prepare()
    assert (out.parent / "thesis.md").read_text() == "mine"


def test_a_card_that_somebody_wrote_is_not_overwritten(tables, out):
    make(tables, str(out))
    (out / "README.md").write_text("# My own card\n")
    with (
        pytest.raises(ExportError, match=r"README\.md was written by something else"),
        Export(tables, str(out), ExportOptions()) as export,
    ):
        export.prepare()
    assert (out / "README.md").read_text() == "# My own card\n"


def test_an_empty_corpus_says_so(tmp_path, out):
    tables = ParquetTables(str(tmp_path / "empty"))
    with (
        pytest.raises(ExportError, match="nothing to export"),
        Export(tables, str(out), ExportOptions()) as export,
    ):
        export.prepare()
    assert not out.exists()


def test_a_storage_that_is_away_is_a_sentence(monkeypatch, out):
    def away(*_, **__):
        raise RuntimeError("Could not connect to the endpoint URL")

    tables = ParquetTables("memory://bucket/storage")
    for name in ("exists", "info", "ls"):
        monkeypatch.setattr(MemoryFileSystem, name, away)
    with pytest.raises(StorageError, match="hard_negatives can't be read: Could not connect"):
        Export(tables, str(out), ExportOptions())


def test_a_shard_without_documents_holds_up_no_other(tables, out):
    """As one has whose file could not be read."""
    for table in TABLES:
        tables.write(table, "empty", TABLES[table].schema.create_empty())
    make(tables, str(out), ["messages", "beir", "tevatron"])
    alone = make(tables, str(out), ["messages", "beir", "tevatron"])
    assert alone == []
    counted = json.loads((out / "manifest/messages/empty.json").read_text())
    assert counted["splits"] == {}
    assert (out / "messages/train/a.jsonl.jsonl").exists()
    assert not (out / "messages/train/empty.jsonl").exists()
    assert {path.name for path in (out / "tevatron/corpus").iterdir()} == {
        "a.jsonl.jsonl",
        "b.jsonl.jsonl",
    }
    # One that has become empty leaves no file of before.
    for table in TABLES:
        tables.write(table, "a.jsonl", TABLES[table].schema.create_empty())
    make(tables, str(out), ["messages", "beir", "tevatron"])
    assert [path.name for path in (out / "tevatron/corpus").iterdir()] == ["b.jsonl.jsonl"]
    assert not list((out / "messages").rglob("a.jsonl*"))


FULL_DISK = """
import resource, signal, sys
from rare_assets.exports.export import Export
from rare_assets.exports.options import ExportError, ExportOptions
from rare_assets.schemas import TABLES
from rare_assets.storage.tables import ParquetTables

with Export(ParquetTables(sys.argv[1]), sys.argv[2], ExportOptions(max_gold_rank=7)) as export:
    export.prepare()
    stale = export.stale("a.jsonl")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        export.write("a.jsonl", stale)
    except ExportError as error:
        print(error)
"""


def test_a_full_disk_leaves_what_stood_there_and_no_rest(tables, out):
    """Tried in a process whose files may not pass 4 KiB, as on a full disk."""
    make(tables, str(out))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tables.root), str(out)],
        capture_output=True,
        text=True,
    )
    assert "can't be written" in run.stdout, run.stderr
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    changed = {path.relative_to(out).parts[0] for path in before if after[path] != before[path]}
    assert changed <= {"manifest", "splits.parquet"}
    assert set(after) == set(before)


def spoil(path):
    """Change pages of a file; its footer stays whole."""
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(1000) + content[1004:])


@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_table_is_refused_and_marked(tables, out, table):
    spoil(tables.path(table, "b.jsonl"))
    with pytest.raises(TableDamaged, match=f"{table}/b.jsonl.parquet is damaged: its checksum"):
        make(tables, str(out), ["messages"])
    assert not list(out.glob("messages/*/b.jsonl*"))
    # So the next run makes it again.
    with pytest.raises(TableDamaged, match="was found damaged before"):
        tables.provenance(table, "b.jsonl")


def test_damage_that_no_reader_notices_is_found(tables, out):
    # The format has no answers, so that nothing reads the table's rows.
    spoil(tables.path("reasoning", "a.jsonl"))
    with pytest.raises(TableDamaged, match="its checksum is not that of what was written"):
        make(tables, str(out), ["sentence-transformers"])


def test_negatives_that_can_not_be_read_are_told_where_the_corpus_grew(tables, out):
    make(tables, str(out), ["messages"])
    store(tables, {"c.jsonl": [document(n) for n in range(40, 44)]})
    spoil(tables.path("hard_negatives", "a.jsonl"))
    with pytest.raises(TableDamaged, match=r"hard_negatives/a\.jsonl\.parquet is damaged"):
        make(tables, str(out), ["messages"])


def test_the_proof_tells_of_documents_that_can_not_be_read(tables, out):
    make(tables, str(out), ["messages"])
    spoil(tables.path("documents", "a.jsonl"))
    with pytest.raises(TableDamaged, match=r"documents/a\.jsonl\.parquet is damaged"):
        proof(tables, out)


@pytest.mark.parametrize("damage", ["emptied", "truncated", "spoiled"])
def test_damaged_sketches_are_made_again(tables, out, damage):
    make(tables, str(out), ["messages"])
    path = tables.root / "document_sketches/a.jsonl.parquet"
    sketches = pl.read_parquet(path)
    if damage == "spoiled":
        spoil(path)
    else:
        path.write_bytes(b"" if damage == "emptied" else path.read_bytes()[:500])
    make(tables, str(out), ["messages", "verl"])
    assert pl.read_parquet(path).equals(sketches)
    changed = path.stat().st_mtime_ns
    make(tables, str(out), ["messages", "verl", "beir"])
    assert path.stat().st_mtime_ns == changed


def test_an_object_store_takes_the_same_files(tables, out, s3_bucket):  # noqa: F811
    import s3fs

    make(tables, str(out), ["verl", "beir", "dataflow"])
    make(tables, f"{s3_bucket}/training", ["verl", "beir", "dataflow"])
    assert make(tables, f"{s3_bucket}/training", ["verl", "beir", "dataflow"]) == []
    store_ = s3fs.S3FileSystem()
    prefix = f"{s3_bucket.removeprefix('s3://')}/training/"
    there = {path.removeprefix(prefix) for path in store_.find(prefix)}
    here = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert there == here
    for name in here:
        if name.endswith((".jsonl", ".tsv", ".py")):
            assert store_.cat_file(prefix + name) == (out / name).read_bytes()


def test_a_file_that_is_gone_from_an_object_store_is_written_again(tables, s3_bucket):  # noqa: F811
    import s3fs

    out = f"{s3_bucket}/training"
    make(tables, out, ["messages"])
    store_ = s3fs.S3FileSystem(use_listings_cache=False)
    file = f"{out}/messages/train/a.jsonl.jsonl"
    whole = store_.cat_file(file)
    store_.rm_file(file)
    assert make(tables, out, ["messages"]) == [("a.jsonl", "messages")]
    assert store_.cat_file(file) == whole
    store_.rm_file(f"{out}/splits.parquet")
    assert make(tables, out, ["messages"]) == []
    assert store_.exists(f"{out}/splits.parquet")


def test_complete_is_made_of_what_changed(tables, out):
    make(tables, str(out))
    corpus = out / "beir/train/corpus.jsonl"
    written = corpus.stat().st_mtime_ns
    with Export(tables, str(out), ExportOptions(**SHARES)) as export:
        export.prepare()
        complete(export)
    assert corpus.stat().st_mtime_ns == written
