"""How fast source files become documents, by format, and how fast a scan sees that nothing has changed.

Run by hand: `python -m rare_assets_tests.benchmarks.sources [--megabytes 200] [--files 100000] [--format F ...]`.
Each format is read by a process of its own, rows to documents with passages cut; megabytes are those of the
files as they lie, seconds those of the clock, and those that cores were at work (its parsing process and Polars'
threads included), which other work on the machine changes less. HTML, PDF and Word files, each of some 12,000 words,
are written by real programs (the page by hand, as sites have them: links, lists, tables, code, a script, menus;
reportlab, python-docx); since writing takes longer than reading, of PDF and Word there are a tenth as much.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from rare_assets.corpus.source import CorpusSource
from rare_assets_tests.benchmarks.scale import write_source

READ = """
import re, resource, sys, time
from rare_assets.corpus.source import CorpusSource
from rare_assets.operators.read_documents import read_documents
source = CorpusSource(sys.argv[1], 10_000, files_per_shard=200)

def at_work():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

started, before = time.perf_counter(), at_work()
n = sum(read_documents(source.read(s), file=s.file).rows.height for s in source.shards())
took, worked = time.perf_counter() - started, at_work() - before
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10
print(n, took, worked, peak)
"""
SECTIONS = 40
SCRIPT = f"<script>function f(a) {{ return a < 3; }} {'f(1);' * 100}</script>"
STYLE = f"<style>{'.c { color: red; margin: 0 }' * 50}</style>"
NOTICE = "<div class='cookie-banner'><p>We use cookies.</p><button>Accept</button></div>"
CODE = "<pre><code><span class='k'>def</span> f(x):\n    <span class='k'>return</span> x &lt; 1</code></pre>\n"


class Writer:
    """Texts from a seeded vocabulary, and files of them."""

    def __init__(self) -> None:
        self._rng = random.Random(3)
        letters = "aabcdeeeefghiiklmnnoooprrsstttuuvw"
        self._words = [
            "".join(self._rng.choices(letters, k=self._rng.randint(2, 9))) for _ in range(5000)
        ]

    def paragraph(self) -> str:
        """A hundred words in sentences."""
        return " ".join(
            " ".join(self._rng.choices(self._words, k=12)).capitalize() + "." for _ in range(8)
        )

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Headings with three paragraphs each."""
        for number in range(SECTIONS):
            yield (
                f"Section {number} {self._rng.choice(self._words)}",
                [self.paragraph() for _ in range(3)],
            )

    def rows(self, megabytes: float) -> Iterator[dict[str, str]]:
        """Rows of one paragraph with an id."""
        size, number = 0, 0
        while size < megabytes * 1e6:
            row = {"id": str(number), "text": self.paragraph()}
            size, number = size + len(row["text"]) + 26, number + 1
            yield row

    def markdown(self) -> bytes:
        """A text with headings."""
        parts = [f"## {head}\n\n" + "\n\n".join(texts) for head, texts in self.sections()]
        return ("# A page\n\n" + "\n\n".join(parts)).encode()

    def html(self) -> bytes:
        """The same as a page of a site: links, lists, tables and code in its main part, menus around it."""
        some = self._rng.choices(self._words, k=30)
        links = [f"<li><a href='/{word}'>{word}</a></li>" for word in some]
        menu = f"<ul>{''.join(links)}</ul>"
        row = f"<tr>{''.join(f'<td>{word}</td>' for word in some[:4])}</tr>\n"
        parts: list[str] = []
        for number, (head, texts) in enumerate(self.sections()):
            parts.append(f"<h2 id='s{number}'>{head}</h2>\n")
            parts += [f"<p class='body'>{self._with_links(text)}</p>\n" for text in texts]
            items = "".join(f"<li>{self.paragraph()[:80]} &amp; more</li>\n" for _ in range(5))
            parts.append(f"<ul>\n{items}</ul>\n")
            if number % 3 == 0:
                parts += [f"<table class='wide'>{row * 6}</table>\n", CODE]
        return (
            f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>A page</title>{SCRIPT}{STYLE}</head><body>"
            f"<header class='site-header'><nav>{menu}</nav></header>{NOTICE}<aside class='sidebar'>{menu}</aside>"
            f"<main><h1>A page</h1>{''.join(parts)}</main><footer>All rights reserved {menu}</footer></body></html>"
        ).encode()

    @staticmethod
    def _with_links(text: str) -> str:
        words = text.split()
        for n in range(0, len(words), 18):
            words[n] = f"<a href='/wiki/{words[n]}' title='{words[n]}'>{words[n]}</a>"
        for n in range(7, len(words), 40):
            words[n] = f"<b>{words[n]}</b>"
        return " ".join(words)

    def pdf(self) -> bytes:
        """The same as a PDF of two columns."""
        from reportlab.lib.styles import getSampleStyleSheet
        from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate, Paragraph

        styles, buffer = getSampleStyleSheet(), io.BytesIO()
        document = BaseDocTemplate(buffer)
        frames = [Frame(50, 50, 240, 740), Frame(305, 50, 240, 740)]
        document.addPageTemplates([PageTemplate(frames=frames)])
        flow = []
        for head, texts in self.sections():
            flow.append(Paragraph(head, styles["Heading2"]))
            flow += [Paragraph(text, styles["Normal"]) for text in texts]
        document.build(flow)
        return buffer.getvalue()

    def docx(self) -> bytes:
        """The same as a Word file."""
        import docx

        document, buffer = docx.Document(), io.BytesIO()
        for head, texts in self.sections():
            document.add_heading(head, 2)
            for text in texts:
                document.add_paragraph(text)
        document.save(buffer)
        return buffer.getvalue()


def _files(folder: Path, ending: str, make: Callable[[], bytes], megabytes: float) -> None:
    size, number = 0, 0
    while size < megabytes * 1e6:
        content = make()
        (folder / f"{number:05}.{ending}").write_bytes(content)
        size, number = size + len(content), number + 1


def write(folder: Path, name: str, megabytes: float) -> None:
    """Write files of a format into an empty folder."""
    writer = Writer()
    if name in ("md", "txt"):
        _files(folder, name, writer.markdown, megabytes)
    elif name == "html":
        _files(folder, name, writer.html, megabytes)
    elif name in ("pdf", "docx"):
        _files(folder, name, getattr(writer, name), megabytes / 10)
    elif name in ("jsonl", "jsonl.gz"):
        opened = gzip.open if name.endswith("gz") else open
        with opened(folder / f"a.{name}", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in writer.rows(megabytes))
    else:
        rows = pl.DataFrame(list(writer.rows(megabytes)))
        path = folder / f"a.{name}"
        ways: dict[str, Callable[[], object]] = {
            "csv": lambda: rows.write_csv(path),
            "tsv": lambda: rows.write_csv(path, separator="\t"),
            "parquet": lambda: rows.write_parquet(path),
            "arrow": lambda: rows.write_ipc(path),
        }
        ways[name]()


FORMATS = (
    "jsonl",
    "jsonl.gz",
    "csv",
    "tsv",
    "parquet",
    "arrow",
    "txt",
    "md",
    "html",
    "pdf",
    "docx",
)


def read(folder: Path) -> tuple[int, float, float, int]:
    """Read a folder in a process of its own: documents, seconds, those of a core at work, its peak memory in MB."""
    found = subprocess.run(
        [sys.executable, "-c", READ, str(folder)], capture_output=True, text=True, check=True
    ).stdout.split()
    return int(found[0]), float(found[1]), float(found[2]), int(found[3])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--format", nargs="*", choices=FORMATS, default=FORMATS)
    options = parser.parse_args()
    table = Table("format", "MB", "MB/s", "passages/s", "MB/s of a core", "peak memory, MB")
    for name in options.format:
        with tempfile.TemporaryDirectory(prefix="rare-sources-") as place:
            write(Path(place), name, options.megabytes)
            size = sum(path.stat().st_size for path in Path(place).iterdir()) / 1e6
            n, took, worked, peak = read(Path(place))
        speeds = (f"{size / took:.1f}", f"{n / took:,.0f}", f"{size / worked:.1f}")
        figures = (f"{size:.0f}", *speeds, str(peak))
        table.add_row(name, *figures)
    console = Console()
    console.print(table)
    with tempfile.TemporaryDirectory(prefix="rare-sources-") as place:
        write_source(Path(place), options.files)
        source = CorpusSource(place, 10_000, files_per_shard=200)
        known = source.shards()
        started = time.perf_counter()
        assert source.shards(known) == known
        took = time.perf_counter() - started
    console.print(f"A scan of {options.files:,} unchanged files took {took:.1f} s.")


if __name__ == "__main__":
    main()
