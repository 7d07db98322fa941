"""The data card, and the folder as Hugging Face's own library reads it, offline."""

import polars as pl
import pytest
import yaml

from rare_assets.exports.card import Cost, write_card
from rare_assets.exports.complete import complete
from rare_assets.exports.export import Export
from rare_assets.exports.formats import FORMATS
from rare_assets.exports.options import ExportOptions
from rare_assets_tests.exports.conftest import SHARES


def carded(tables, out, formats=(), **options):
    with Export(tables, str(out), ExportOptions(**{**SHARES, **options}), formats) as export:
        export.prepare()
        for shard in export.shards:
            export.write(shard, export.stale(shard))
        return write_card(export, complete(export), Cost(1_234, 56, 7.5))


@pytest.fixture
def datasets(monkeypatch):
    """Hugging Face's library, which asks nobody."""
    library = pytest.importorskip(
        "datasets", reason="pip install -e '.[test]' brings Hugging Face's datasets"
    )
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    library.disable_progress_bars()
    return library


def test_every_format_loads_as_a_config_with_all_its_rows(tables, out, tmp_path, datasets):
    carded(tables, out)
    for name in FORMATS:
        loaded = datasets.load_dataset(str(out), name, cache_dir=str(tmp_path / "cache"))
        assert set(loaded) == {"train", "validation", "test"}, name
        rows = sum(split.num_rows for split in loaded.values())
        assert rows == {"verl": 20}.get(name, 40) or rows > 30, name
    triplets = datasets.load_dataset(
        str(out), "sentence-transformers", split="train", cache_dir=str(tmp_path / "cache")
    )
    assert triplets.column_names == ["anchor", "positive", "negative_1"]
    chats = datasets.load_dataset(
        str(out), "messages", split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [message["role"] for message in chats[0]["messages"]] == ["user", "assistant"]
    rewarded = datasets.load_dataset(
        str(out), "verl", split="test", cache_dir=str(tmp_path / "cache")
    )
    assert rewarded[0]["reward_model"]["ground_truth"].startswith("answer ")


def test_parquet_formats_read_by_pyarrow_as_by_polars(tables, out):
    import pyarrow.parquet as pq

    carded(tables, out, ["sentence-transformers", "cross-encoder", "verl"])
    for name in ("sentence-transformers", "cross-encoder", "verl"):
        file = out / name / "train/a.jsonl.parquet"
        assert pq.read_table(file).to_pylist() == pl.read_parquet(file).to_dicts()
    table = pq.read_table(out / "verl/train/a.jsonl.parquet")
    assert table.schema.field("reward_model").type.names == ["style", "ground_truth"]
    table = pq.read_table(out / "cross-encoder/train/a.jsonl.parquet")
    assert str(table.schema.field("labels").type.value_type) == "int64"


def test_a_split_without_rows_is_not_named(tables, out, tmp_path, datasets):
    text = carded(tables, out, ["messages"], validation_share=0.0)
    header = yaml.safe_load(text.split("---")[1])
    assert [file["split"] for file in header["configs"][0]["data_files"]] == ["train", "test"]
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "test"}


def test_the_card_says_where_it_comes_from(tables, out):
    text = carded(tables, out)
    assert "| questions | teacher | `m` | 2 |" in text
    assert "| reasoning | prompt | `p` | 2 |" in text
    assert "| hard_negatives | index | `i` | 2 |" in text
    assert "1,234 prompt and 56 completion tokens, $7.50 at online prices" in text
    assert "| `verl` | without: no gold answer | 40 | 20 |" in text
    assert "█" in text
    assert "## Limits" in text
