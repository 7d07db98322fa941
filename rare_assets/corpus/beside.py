"""Files of a source that are no documents: what comes with a data set that was downloaded.

>>> documents_among(["README.md", "LICENSE", "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
['corpus.jsonl']
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from rare_assets.corpus.formats import is_known, is_text_file

# Names, whatever their ending, of what speaks about the files beside them.
_ABOUT = re.compile(
    r"(?:readme|license|licence|copying|notice|citation|changelog|changes|authors|contributors|contributing"
    r"|code_of_conduct|security|maintainers|makefile|dockerfile|manifest|checksums?|md5sums?|sha\d+sums?)"
    r"(?:[._-].*)?",
    re.IGNORECASE,
)
# What the `datasets` library writes beside its data.
_HUB = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
_BEIR_CORPUS = re.compile(r"corpus\.jsonl(?:\.gz|\.zst)?", re.IGNORECASE)
_BEIR_BESIDE = re.compile(r"queries\.jsonl(?:\.gz|\.zst)?|qrels/.*", re.IGNORECASE | re.DOTALL)
# Tables whose files hold rows that were deleted or written anew since.
_TABLES = (
    (
        re.compile(r"(?:\A|(.*)/)_delta_log/.*", re.DOTALL),
        "Delta Lake",
        "DeltaTable(...).to_pandas()",
    ),
    (
        re.compile(r"(?:\A|(.*)/)metadata/[^/]*(?:\.metadata\.json|\.avro)", re.DOTALL),
        "Iceberg",
        "table.scan().to_pandas()",
    ),
    (re.compile(r"(?:\A|(.*)/)\.hoodie/.*", re.DOTALL), "Hudi", "spark.read.format('hudi')"),
)
_MAY_BE_TABLE = re.compile(r"_delta_log/|metadata/|\.hoodie/").search


def documents_among(paths: Collection[str]) -> list[str]:
    """Return the paths without those that are no documents, in their order.

    Left out are READMEs, licences and their like where the others are data files or their own format can't
    be read anyway, what the `datasets` library writes beside its data, and BEIR's queries and judgments.
    """
    about = {path for path in paths if _ABOUT.fullmatch(_name(path))}
    others = [path for path in paths if path not in about]
    data = [path for path in others if is_known(path) and not is_text_file(path)]
    data_alone = bool(data) and not any(is_text_file(path) for path in others)
    beir = [_folder(path) for path in data if _BEIR_CORPUS.fullmatch(_name(path))]

    def is_document(path: str) -> bool:
        if path in about:
            return is_known(path) and not data_alone
        if _name(path) in _HUB:
            return not any(_name(other) not in _HUB for other in data)
        return not any(
            path.startswith(folder) and _BEIR_BESIDE.fullmatch(path[len(folder) :])
            for folder in beir
        )

    return [path for path in paths if is_document(path)]


def table_among(paths: Iterable[str]) -> str | None:
    """Return what a person is told of a table in a format that keeps deleted rows; None if there is none.

    Args:
        paths: of all files, hidden ones, too.
    """
    for path in filter(_MAY_BE_TABLE, paths):
        for pattern, name, way in _TABLES:
            if found := pattern.fullmatch(path):
                place = f"the folder {found[1]}" if found[1] else "this"
                return (
                    f"{place} is a {name} table, whose files hold rows that were deleted or overwritten since. "
                    f"Write its rows as they are now to Parquet, as by {way}, and set RARE_SOURCE to that."
                )
    return None


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _folder(path: str) -> str:
    return path[: len(path) - len(_name(path))]
