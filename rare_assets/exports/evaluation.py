"""Find evaluation questions and passages, which no training row may share text with.

A row is left out where any of its texts has `RUN` words in a row in common with an evaluation text, or
where its question has nearly all the words of an evaluation question. Hashes of all runs lie on disk,
so that millions of passages take no memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from rare_assets.exports.evaluation_files import FEWEST_WORDS, Item, files, items
from rare_assets.exports.options import ExportError
from rare_assets.exports.words import runs
from rare_assets.text.words import words_of

RUN = 13
# Longer ones are found by their runs.
QUESTION_WORDS = 60
NEARLY_ALL = 0.9
_BATCH = 20_000


class EvaluationTexts:
    """The evaluation texts of some files, ready to be looked for.

    Args:
        runs: `run, file, row`, lazily: of every 13 words in a row.
        questions: `key, file, row, text, words: list[str]`.
    """

    def __init__(self, found: pl.LazyFrame, questions: pl.DataFrame) -> None:
        self._runs = found
        self._questions = questions

    @classmethod
    def read(cls, paths: list[str], folder: Path) -> EvaluationTexts:
        """Read the files, and lay the runs down in `folder`.

        Raises:
            ExportError: a file that is missing, can't be read, or holds no texts.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.parquet"):
            old.unlink()
        asked: list[pl.DataFrame] = []
        for number, batch in enumerate(_batches(paths)):
            listed = batch.with_row_index("row_")
            found = runs(listed.select("text", row="row_"), RUN).join(
                listed.select("file", "row", row_="row_"),
                left_on="row",
                right_on="row_",
                suffix="_in",
            )
            found.select("run", "file", row="row_in").write_parquet(folder / f"{number}.parquet")
            asked.append(
                batch.filter("is_question")
                .with_columns(words=words_of(pl.col("text")).list.unique(maintain_order=True))
                # Here, since any text of an unknown name may be a question.
                .filter(pl.col("words").list.len().is_between(FEWEST_WORDS, QUESTION_WORDS))
            )
        # What stands in every row is looked for once.
        questions = (
            pl.concat(asked)
            .sort("file", "row", maintain_order=True)
            .unique("text", keep="first", maintain_order=True)
        )
        return cls(pl.scan_parquet(folder / "*.parquet"), questions.with_row_index("key"))

    def find(self, examples: pl.DataFrame) -> pl.DataFrame:
        """Return `question_id, sample_index, field, rule, matched, file, row` of what is shared.

        At most one row an example: its first match.

        Args:
            examples: those of `rare_assets.exports.examples`.
        """
        listed = examples.with_row_index("example")
        key = ["example", "question_id", "sample_index"]
        texts = pl.concat(
            [
                *(
                    listed.select(*key, field=pl.lit(name), text=name)
                    for name in ("question", "scenario", "reasoning", "answer")
                ),
                *(
                    listed.select(*key, field=pl.lit(name.removesuffix("s")), text=name).explode(
                        "text", empty_as_null=False
                    )
                    for name in ("positives", "negatives")
                ),
            ]
        ).drop_nulls("text")
        both = [self._shared_runs(texts), self._shared_questions(listed)]
        return (
            pl.concat(both)
            .sort("example", "file", "row", "field")
            .unique("example", keep="first", maintain_order=True)
            .join(listed.select(key), on="example", maintain_order="left")
            .select("question_id", "sample_index", "field", "rule", "matched", "file", "row")
        )

    def _shared_runs(self, texts: pl.DataFrame) -> pl.DataFrame:
        numbered = texts.with_row_index("row_")
        ours = runs(numbered.select("text", row="row_"), RUN).rename({"row": "row_"})
        hits = (
            self._runs.join(ours.unique(["row_", "run"]).lazy(), on="run")
            .group_by("row_")
            .agg(pl.col("place", "file", "row").sort_by("place", "file", "row").first())
            .collect(engine="streaming")
            .join(numbered, on="row_")
        )
        found = words_of(pl.col("text")).list.slice(pl.col("place"), RUN).list.join(" ")
        return hits.select(
            "example",
            "field",
            rule=pl.lit(f"{RUN} words in a row"),
            matched=found,
            file="file",
            row="row",
        )

    def _shared_questions(self, listed: pl.DataFrame) -> pl.DataFrame:
        """Find the questions that hold nearly all words of an evaluation question.

        Of a question's n words it may lack a tenth: so it has one of any tenth and one more, and the
        rarest are looked for.
        """
        evaluated = self._questions
        rarity = evaluated.select(word=pl.col("words").explode()).group_by("word").len()
        n = pl.col("words").list.len()
        spare = n - (n * NEARLY_ALL - 1e-9).ceil().cast(pl.Int64) + 1
        rare = (
            evaluated.select("key", spare=spare, word="words")
            .explode("word")
            .join(rarity, on="word")
            .filter(pl.col("len").rank("ordinal").over("key") <= pl.col("spare"))
            .select("key", "word")
        )
        ours = listed.select(
            "example",
            ours=words_of(
                pl.concat_str("scenario", "question", separator=" ", ignore_nulls=True)
            ).list.unique(),
        )
        pairs = (
            ours.explode("ours")
            .join(rare, left_on="ours", right_on="word")
            .select("example", "key")
            .unique()
        )
        both = pairs.join(ours, on="example").join(evaluated, on="key")
        shared = pl.col("words").list.set_intersection("ours").list.len()
        return both.filter(shared >= n * NEARLY_ALL - 1e-9).select(
            "example",
            field=pl.lit("question"),
            rule=pl.lit("nearly all words of a question"),
            matched="text",
            file="file",
            row="row",
        )


def fingerprint(paths: list[str]) -> str:
    """Return a hash of what the files hold.

    Raises:
        ExportError: a file is missing or can't be read.
    """
    digest = hashlib.sha256()
    for path in files(paths):
        digest.update(str(path).encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()[:16]


def _batches(paths: list[str]) -> Iterator[pl.DataFrame]:
    """Yield `file, row, text, is_question`, some thousand rows at a time."""
    schema = {"file": pl.String, "row": pl.Int64, "text": pl.String, "is_question": pl.Boolean}
    batch: list[Item] = []
    for path in files(paths):
        empty = True
        for item in items(path):
            empty = False
            batch.append(item)
            if len(batch) == _BATCH:
                yield pl.DataFrame(batch, schema=schema, orient="row")
                batch = []
        if empty:
            raise ExportError(f"exclude: {path} holds no text to leave out.")
    yield pl.DataFrame(batch, schema=schema, orient="row")
