"""HTML, PDF and Word files, written by programs of their own, and what is no such file."""

import codecs
import io
import os
import zipfile

import docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from rare_assets.corpus.extraction import html, process
from rare_assets.corpus.extraction.docx import extract as extract_word
from rare_assets.corpus.extraction.pdf import _spelt
from rare_assets.corpus.extraction.pdf import extract as extract_pdf
from rare_assets.corpus.extraction.process import Extractor
from rare_assets.corpus.passages import cut
from rare_assets.corpus.source import CorpusSource

LEFT = [
    "The official coefficient of the flow",
    "is affected by afflux, and measure-",
    "ments of slow-closing valves show it.",
    "Water hammer occurs whenever fluid in",
    "motion is forced to stop, which slow-",
    "closing valves avoid in most plants.",
]
RIGHT = [
    "Joukowsky described the overpressure",
    "in 1898 for the waterworks of Moscow.",
    "Engineers install surge tanks and air",
    "chambers along the whole installation.",
    "Failures were avoidable in three of",
    "four cases that were looked into then.",
]


def rows(path, **options):
    source = CorpusSource(str(path), 100, **options)
    return [row for shard in source.shards() for row in source.read(shard)]


def text(path):
    (row,) = rows(path)
    assert row.problem is None, row
    return row.value["text"]


def pdf(path, n_pages=3, order="columns", **options):
    canvas = Canvas(str(path), pagesize=A4, **options)
    canvas.setTitle("Surge in Pipelines")
    for page in range(1, n_pages + 1):
        canvas.setFont("Helvetica", 10)
        canvas.drawString(60, 810, f"Journal of Pipes, Volume 3, page {page}")
        canvas.drawCentredString(300, 30, f"- {page} -")
        canvas.drawString(
            60,
            770,
            f"Heading of page {'PQR'[page - 1]} across both of the columns of this page, up to here",
        )
        first, last = (
            f"{'ABC'[page - 1]} begins this page",
            f"{'XYZ'[page - 1]} ends this page here.",
        )
        places = [(60, 740 - 14 * n, line) for n, line in enumerate([first, *LEFT, first])]
        other = [(310, 740 - 14 * n, line) for n, line in enumerate([*RIGHT, last, last])]
        if order == "rows":
            places = [place for pair in zip(places, other, strict=True) for place in pair]
        else:
            places += other
        for x, y, line in places:
            canvas.drawString(x, y, line.replace("official", "o\ufb03cial") if options else line)
        canvas.showPage()
    canvas.save()


def raw_pdf(content, to_unicode=b""):
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        (
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R"
            b"/Resources<</Font<</F 5 0 R/H 7 0 R/C 8 0 R>>>>>>"
        ),
        b"<</Length %d>>stream\n%b\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type0/BaseFont/X/Encoding/Identity-H/DescendantFonts[6 0 R]>>",
        (
            b"<</Type/Font/Subtype/CIDFontType2/BaseFont/X/DW 600"
            b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>>>"
        ),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Courier/ToUnicode 9 0 R>>",
        b"<</Length %d>>stream\n%b\nendstream\n" % (len(to_unicode), to_unicode),
    ]
    return b"%PDF-1.4\n" + b"".join(
        [
            *(b"%d 0 obj%bendobj\n" % (number, part) for number, part in enumerate(parts, 1)),
            b"trailer<</Size %d/Root 1 0 R>>\n%%%%EOF" % (len(parts) + 1),
        ]
    )


def pdf_of_pieces(pieces):
    """Return a PDF with words at (x, y), each letter 6 points wide; Hebrew is drawn from its last letter on."""
    drawn = b""
    for x, y, words in pieces:
        shown = words[::-1] if max(words) > "\u05d0" else words
        codes = bytes(ord(c) - 0x550 if c >= "\u05d0" else ord(c) for c in shown).hex()
        drawn += b"BT /C 10 Tf 1 0 0 1 %d %d Tm <%b> Tj ET\n" % (x, y, codes.encode())
    return raw_pdf(drawn, b"2 beginbfrange\n<20> <7A> <0020>\n<80> <9A> <05D0>\nendbfrange")


COLUMNS = [
    ["גלים בים הגדול", "נעים בכל השנה", "ורוח בגבעות"],
    ["שבעה עשר מים", "תשעה עצי תמר", "ואבן ירושלמי"],
]
PARAGRAPHS = [
    ["פטיש מים הוא גל לחץ שנוצר", "כאשר נוזל נאלץ לעצור.", "כך."],
    ["שסתום נסגר לאט מונע אותו"],
]
FROM_RIGHT = [
    pytest.param(
        # A comma stands beside what it follows, without a gap.
        [
            (210, 200, "הוא נקרא"),
            (168, 200, "Hammer"),
            (132, 200, "Water"),
            (84, 200, ", בשנתון"),
            (50, 200, "1898"),
        ],
        "הוא נקרא Water Hammer, בשנתון 1898",
        id="words from left to right within a line",
    ),
    pytest.param(
        [
            (210, 220, "צינור"),
            (120, 220, "מחיר"),
            (210, 200, "צינור"),
            (180, 200, "DN"),
            (120, 200, "300"),
        ],
        "צינור מחיר צינור DN 300",
        id="cells of a table",
    ),
    pytest.param(
        [
            (270 - 90 * n - 6 * len(line), 250 - 14 * row, line)
            for n, column in enumerate(COLUMNS)
            for row, line in enumerate(column)
        ],
        "\n\n".join(map(" ".join, COLUMNS)),
        id="columns",
    ),
    pytest.param(
        [
            (270 - 6 * len(line), 250 - 14 * row, line)
            for row, line in enumerate(PARAGRAPHS[0] + PARAGRAPHS[1])
        ],
        "\n\n".join(map(" ".join, PARAGRAPHS)),
        id="paragraphs end at the left",
    ),
]


class TestPdf:
    @pytest.mark.parametrize("order", ["columns", "rows"])
    def test_columns_follow_one_another_without_running_heads(self, tmp_path, order):
        pdf(tmp_path / "a.pdf", order=order)
        (row,) = rows(tmp_path)
        assert row.value["title"] == "Surge in Pipelines"
        found = row.value["text"]
        assert "Journal of Pipes" not in found
        assert "- 1 -" not in found
        left = (
            "The official coefficient of the flow is affected by afflux, and measurements of slow-closing "
            "valves show it. Water hammer occurs whenever fluid in motion is forced to stop, which "
            "slow-closing valves avoid in most plants."
        )
        assert found.count(left) == 3
        assert found.count(" ".join(RIGHT)) == 3
        assert found.index(left) < found.index(RIGHT[0]) < found.index("Heading of page Q")

    def test_headings_are_told_by_size_and_weight(self, tmp_path):
        canvas = Canvas(str(tmp_path / "a.pdf"), pagesize=A4)
        y = 790
        for font, size, line in (
            ("Helvetica-Bold", 20, "Care of Heat Pumps in"),
            ("Helvetica-Bold", 20, "Cold Countries"),
            ("Helvetica", 10, "A pump that is dirty takes more current than a clean one."),
            ("Helvetica-Bold", 14, "1 Winter"),
            ("Helvetica", 10, "Ice on the coil keeps the air away, so"),
            ("Helvetica", 10, "the pump melts it with heat of the house."),
            ("Helvetica-Bold", 10, "Defrosting by hand"),
            ("Helvetica", 10, "Warm water does no harm; a hammer does, and so does a screwdriver."),
            ("Helvetica-Bold", 10, "Never open the circuit yourself."),
            ("Helvetica-Bold", 14, "2 Summer . . . . . . . . . . 7"),
        ):
            canvas.setFont(font, size)
            canvas.drawString(60, y, line)
            y -= 1.2 * size
        canvas.setFont("Helvetica-Bold", 10)
        y -= 20
        canvas.drawString(60, y, "Part")
        canvas.drawString(200, y, "Watts")
        canvas.setFont("Helvetica", 10)
        canvas.drawString(60, y - 12, "Fan")
        canvas.drawString(200, y - 12, "40")
        canvas.save()
        (row,) = rows(tmp_path)
        assert row.value["title"] == "Care of Heat Pumps in Cold Countries"
        assert row.value["text"].split("\n\n") == [
            "# Care of Heat Pumps in Cold Countries",
            "A pump that is dirty takes more current than a clean one.",
            "## 1 Winter",
            "Ice on the coil keeps the air away, so the pump melts it with heat of the house.",
            "### Defrosting by hand",
            "Warm water does no harm; a hammer does, and so does a screwdriver.",
            "Never open the circuit yourself.",
            "2 Summer . . . . . . . . . . 7",
            "Part Watts Fan 40",
        ]
        assert [passage.title for passage in cut(row.value["text"], 40, markdown=True)] == [
            "Care of Heat Pumps in Cold Countries",
            "Care of Heat Pumps in Cold Countries > 1 Winter",
            "Care of Heat Pumps in Cold Countries > 1 Winter > Defrosting by hand",
        ]

    def test_heads_that_change_with_the_chapter_are_left_out_and_sections_stay(self, tmp_path):
        def page(canvas, number):
            canvas.setFont("Helvetica", 9)
            canvas.drawString(60, 810, f"Chapter {'ABCDEF'[number // 2]}")
            canvas.drawRightString(500, 810, f"Handbook, page {number + 21} of 40")
            canvas.setFont("Helvetica", 10)
            canvas.drawString(60, 770, f"Section {number // 2 + 1} begins with {number + 1} valves")
            for n, line in enumerate(LEFT):
                canvas.drawString(60, 756 - 14 * n, f"{line} {'pqrstuvwxyz'[number]}")

        canvas = Canvas(str(tmp_path / "a.pdf"), pagesize=A4)
        for number in range(11):
            page(canvas, number)
            canvas.showPage()
        canvas.save()
        found = text(tmp_path)
        assert "Chapter" not in found
        assert "Handbook" not in found
        for number in range(11):
            assert f"Section {number // 2 + 1} begins with {number + 1} valves" in found

    @pytest.mark.parametrize(
        ("lines", "joined"),
        [
            (["a state-of-the-", "art valve"], "a state-of-the-art valve"),
            (["the self-", "contained pump"], "the self-contained pump"),
            (["between 1990-", "1995 and"], "between 1990-1995 and"),
            (["the pre- and post-", "war years"], "the pre- and postwar years"),
            (["of pre-", "and postwar years"], "of pre- and postwar years"),
            (["a mea-", "surement"], "a measurement"),
            (["see Navier-", "Stokes"], "see Navier-Stokes"),
            (["a dash -", "here"], "a dash - here"),
        ],
    )
    def test_a_hyphen_at_a_lines_end_stays_where_it_is_the_words_own(self, tmp_path, lines, joined):
        canvas = Canvas(str(tmp_path / "a.pdf"))
        for n, line in enumerate(["Some long line of text that stands before", *lines]):
            canvas.drawString(60, 700 - 14 * n, line)
        canvas.save()
        assert text(tmp_path) == f"Some long line of text that stands before {joined}"

    def test_paragraphs_of_few_lines_are_parted_by_their_gaps(self, tmp_path):
        canvas = Canvas(str(tmp_path / "a.pdf"))
        lines = [f"{name} begins a paragraph of two lines that are" for name in "ABCDE"]
        for n, line in enumerate(lines):
            canvas.drawString(60, 700 - 34 * n, line)
            canvas.drawString(60, 686 - 34 * n, "as wide as each other and end with a full stop.")
        canvas.save()
        whole = [f"{line} as wide as each other and end with a full stop." for line in lines]
        assert text(tmp_path) == "\n\n".join(whole)

    def test_letters_that_a_font_does_not_tell_move_no_others(self, tmp_path):
        # A font that names no letters, of which one has the number 0.
        (tmp_path / "a.pdf").write_bytes(
            raw_pdf(
                b"BT /F 12 Tf 50 250 Td <00000006> Tj /H 12 Tf (A) Tj ET"
                b" BT /H 12 Tf 50 200 Td (Hello there) Tj ET BT /H 12 Tf 200 200 Td (right) Tj ET"
            )
        )
        assert text(tmp_path) == "A Hello there right"

    @pytest.mark.parametrize(("pieces", "read"), FROM_RIGHT)
    def test_what_is_read_from_the_right_is_so_read(self, pieces, read):
        assert extract_pdf(pdf_of_pieces(pieces)) == (read, None)

    @pytest.mark.parametrize("step", [6, -6])
    def test_words_from_the_right_begin_with_their_first_letter(self, step):
        # PDFium leaves some as they are drawn, from their last letter on.
        word, other = "سائل", "صمام"
        drawn = f"{word} {other}"[:: -1 if step > 0 else 1]
        places = [(step * n, 0, step * n + 6, 10, letter) for n, letter in enumerate(f"DN {drawn}")]
        assert _spelt(places) == f"DN {word} {other}"

    def test_pictures_only_encrypted_and_broken_are_rejects(self, tmp_path):
        canvas = Canvas(str(tmp_path / "picture.pdf"))
        canvas.rect(10, 10, 300, 300, fill=1)
        canvas.save()
        pdf(tmp_path / "whole.pdf")
        pdf(tmp_path / "secret.pdf", encrypt=StandardEncryption("geheim"))
        content = (tmp_path / "whole.pdf").read_bytes()
        (tmp_path / "cut.pdf").write_bytes(content[:200])
        (tmp_path / "other.pdf").write_bytes(b"no PDF at all")
        (tmp_path / "empty.pdf").write_bytes(b"")
        assert {shard.file: row.problem for shard, row in by_file(tmp_path)} == {
            "cut.pdf": "broken_file",
            "empty.pdf": "empty_text",
            "other.pdf": "broken_file",
            "picture.pdf": "no_text_layer",
            "secret.pdf": "encrypted",
            "whole.pdf": None,
        }

    def test_a_folder_named_like_a_file_is_a_folder(self, tmp_path):
        (tmp_path / "x.pdf").mkdir()
        (tmp_path / "x.pdf" / "a.txt").write_text("inside")
        assert text(tmp_path) == "inside"


def page_text(page):
    return html.extract(page.encode())[0]


def by_file(folder):
    source = CorpusSource(str(folder), 100)
    return [(shard, row) for shard in source.shards() for row in source.read(shard)]


PAGE = """<!DOCTYPE html><html><head><meta charset="{charset}"><title>Pipes &amp; Surge</title>
<style>p {{ color: red }}</style><script>var no = "script";</script></head><body>
<header class="top"><a href="/">MySite</a><nav><ul><li><a href="/a">Products</a></li></ul></nav></header>
<div id="cookieBanner"><p>We use cookies.</p><button>Accept</button></div>
<main><header><h1>Überdruck</h1></header><p>Water <b>hammer</b> &lt;wave&gt;.</p><h2>Mitigation</h2>
<ul><li>Slow valves</li><li>Surge <a href="/t">tanks</a></li></ul><ol><li>Stop.</li><li>Drain.</li></ol>
<table><tr><th>Pipe</th><th>Speed</th></tr><tr><td><p>steel</p></td><td>
<p class="n">1200</p></td></tr></table>
<pre>def f(x):
    return x &lt; 1</pre></main>
<aside class="sidebar"><p>Related posts</p></aside><footer>All rights reserved</footer></body></html>"""


class TestHtml:
    def test_main_content_with_its_structure_and_nothing_else(self, tmp_path):
        (tmp_path / "a.html").write_text(PAGE.format(charset="utf-8"))
        (row,) = rows(tmp_path)
        assert row.value["title"] == "Überdruck"
        found = row.value["text"]
        assert [line.strip() for line in found.splitlines() if line.strip()] == [
            "# Überdruck", "Water hammer <wave>.", "## Mitigation", "- Slow valves", "- Surge tanks",
            "1. Stop.", "2. Drain.", "Pipe | Speed", "steel | 1200", "```", "def f(x):",
            "return x < 1", "```",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "around",
        [
            '<div id="nav"><a href="/">Home</a></div>',
            '<div class="navigation"><ul><li>Home</li></ul></div>',
            '<ul class="nav nav-tabs"><li>Home</li></ul>',
            '<div id="footer">All rights reserved</div>',
            '<div class="footer">All rights reserved</div>',
            '<div role="dialog"><p>Accept all</p></div>',
            '<div class="cc-window"><span>We use cookies</span></div>',
            '<ol id="breadcrumbs"><li>Space</li></ol>',
            '<div class="page-metadata">Created by Bob</div>',
            '<div class="noprint">From a wiki</div><a class="mw-jump-link">Jump to search</a>',
            '<div class="main-nav"><ul><li><a>Home</a></li><li><a>About us</a></li></ul></div>',
            '<div id="topMenu"><a>Home</a> | <a>Shop</a></div>',
            '<div class="share-buttons"><a>Share</a><a>Tweet</a></div>',
            '<div id="footer-widgets">(c) Example Ltd.</div>',
            '<div id="onetrust-banner-sdk"><p>This site uses cookies.</p></div>',
            "<div><p>We use cookies to give you the best experience.</p></div>",
            "<section><p>Cookies help us.</p><span role='button'>Accept all</span></section>",
            "<div>Diese Website verwendet Cookies. <a>Einverstanden</a></div>",
            "<div><div><a>Products</a> | <a>Prices</a> | <a>Contact</a></div></div>",
            '<div class="breadcrumb-trail"><a>Home</a> &gt; Topic</div>',
            '<div class="tableOfContents"><a href="#a">One</a> <a href="#b">Two</a></div>',
            '<div class="ad-slot">Advertisement</div>',
        ],
    )
    def test_menus_footers_and_notices_are_left_out_however_a_site_calls_them(self, around):
        body = "Body. " * 30
        page = f"<body>{around}<div><h1>Topic</h1><p>{body}</p></div>{around}"
        assert page_text(page) == f"# Topic\n\n{body.strip()}"

    def test_menus_in_the_cells_of_a_layout_table_are_left_out(self):
        page = (
            "<TABLE><TR><TD><TABLE><TR><TD><A>Start</A></TD></TR><TR><TD><A>Pumps</A></TD></TR>"
            "<TR><TD><A>Guestbook</A></TD></TR></TABLE></TD><TD><H1>Pumps</H1><P>They lift water."
            "<TABLE><TR><TH>Type</TH><TH>Head</TH></TR><TR><TD>Radial</TD><TD>High</TD></TR></TABLE>"
            "</TD></TR></TABLE>"
        )
        assert page_text(page) == "# Pumps\n\nThey lift water.\nType | Head\nRadial | High"

    @pytest.mark.parametrize(
        ("page", "found"),
        [
            (
                '<div class="menu-card"><h2>Soups</h2><p>Bisque, <a>how made</a>.</p></div>',
                "## Soups\n\nBisque, how made.",
            ),
            (
                "<div><p>We bake cookies in a hot oven.</p><a>More recipes</a></div>",
                "We bake cookies in a hot oven.\n\nMore recipes",
            ),
            (
                "<div><h1><a>How so?</a></h1></div><div role='main'><p>Thus and so it is.</p></div>",
                "# How so?\n\nThus and so it is.",
            ),
            (
                "<p>By law.</p><p>Copyright ends after 70 years.</p>" + "<p>More.</p>",
                "By law.\n\nCopyright ends after 70 years.\n\nMore.",
            ),
            (
                "<div class='has-sidebar page-with-nav'><h1>A</h1><p>B.</p></div>",
                "# A\n\nB.",
            ),
            (
                "<div><h1>Parts</h1><ul><li><a>One</a></li><li><a>Two</a></li><li><a>Six</a></li></ul></div>",
                "# Parts\n\n  - One\n  - Two\n  - Six",
            ),
        ],
    )
    def test_the_subject_stays_whatever_it_is_called(self, page, found):
        assert page_text(f"<body>{page}") == found

    @pytest.mark.parametrize(
        ("page", "found"),
        [
            (
                ("<figure class='wp-block-table'><table><tr><td>steel</td><td>1200</td></tr></table>"
                "<figcaption>Table 1.</figcaption></figure><figure><pre>x = 1</pre></figure>"),
                "steel | 1200\n\nTable 1.\n\n```\nx = 1\n```",
            ),
            ("<h1>Two<br>lines <a href='#x'>¶</a></h1><h2> </h2><p>a<br>b", "# Two lines \n\na\nb"),
            (
                ("<table><tr><td>a<br>b</td><td><p>c</p><p>d</p></td>"
                "<td><ul><li>e</li><li>f</li></ul></td></tr></table>"),
                "a b | c d | e; f",
            ),
            ("<ul><li><p>One.</p><p>More.</p></li><li><div>two</div></li></ul>", "- One.  \n\n  More.  \n  - two"),
            ("<ol start=4><li>four</li><li><p>five</p></li></ol>", "4. four\n  5. five"),
            ("<pre>```sh\nls\n```</pre>", "````\n```sh\nls\n```\n````"),
            (
                ("<p>Let <math><semantics><mi>x</mi><annotation encoding='application/x-tex'>x^2</annotation>"
                "</semantics></math><span aria-hidden='true'>x2</span> be <script type='math/tex'>y_1</script>."),
                "Let x^2 be y_1.",
            ),
            ("<p>Druck&shy;stoß", "Druckstoß"),
        ],
    )  # fmt: skip
    def test_figures_breaks_numbers_and_formulas_are_written_out(self, page, found):
        assert page_text(f"<body>{page}") == found

    @pytest.mark.parametrize(
        ("page", "found"),
        [
            (
                ("<form id='aspnetForm'><h1>Brine</h1><p>Salt lowers the freezing point by far.</p></form>"
                "<div>Page 1 of 1</div>"),
                "# Brine\n\nSalt lowers the freezing point by far.\n\nPage 1 of 1",
            ),
            (
                ("<main><h1>T</h1><p>Pour slowly.</p><aside class='warning'><p>Never water into acid.</p>"
                "</aside></main>"),
                "# T\n\nPour slowly.\n\nNever water into acid.",
            ),
            (
                "<main><h1>T</h1><p>Pour slowly.</p><aside><p>See <a>the list</a> of acids first.</p></aside>",
                "# T\n\nPour slowly.\n\nSee the list of acids first.",
            ),
            (
                "<main><h1>T</h1><section><header><h2><a>Rollback</a></h2></header><p>Run it.</p></section>",
                "# T\n\n## Rollback\n\nRun it.",
            ),
            (
                "<h1>T</h1><p>Text.</p><aside class='footnotes'><ol><li>A note.</li></ol></aside>",
                "# T\n\nText.\n\n  1. A note.",
            ),
            (
                "<h1>Bistro</h1><div class='menu'><h2>Starters</h2><p>Soup 4.50</p></div>",
                "# Bistro\n\n## Starters\n\nSoup 4.50",
            ),
            ("<div class='sidebar'><h1>T</h1><p>Text.</p></div>", "# T\n\nText."),
        ],
    )  # fmt: skip
    def test_the_subject_stays_whatever_its_tag(self, page, found):
        assert page_text(f"<body>{page}") == found

    @pytest.mark.parametrize(
        "beside",
        [
            "<form><p>Get our letter.</p><input type='email'><button>Send</button></form>",
            "<form><label>Search</label><input name='q'><button>Go</button></form>",
            "<aside><h3>Related</h3><p>Five more acids, and what they are for.</p></aside>",
            "<aside class='related-articles'><p>Five more acids.</p></aside>",
            "<aside class='author-box'><p>Jane is a chemist.</p></aside>",
            "<aside><h2>About the author</h2><p>Jane is a chemist.</p></aside>",
            "<aside><ul><li><a>One</a></li><li><a>Two</a></li></ul></aside>",
            "<aside><p>Our letter.</p><form><input type='email'></form></aside>",
            "<header><a>Site</a><ul><li><a>Home</a></li></ul></header>",
            "<header><h2>Docs</h2><ul><li><a>Getting started</a></li><li><a>Reference</a></li></ul></header>",
            "<div class='menu'><h2>Go to</h2><ul><li><a>Getting started</a></li></ul></div>",
        ],
    )
    def test_what_is_beside_the_subject_is_left_out_within_the_main_part_too(self, beside):
        page = f"<body><main><article><h1>T</h1>{beside}<p>Text.</p>{beside}</article></main>"
        assert page_text(page) == "# T\n\nText."

    @pytest.mark.timeout(10)
    @pytest.mark.parametrize(
        "part",
        [
            "<section><header><h2>a</h2></header><aside>b</aside></section>",
            "<aside class='note'>",
        ],
    )
    def test_thousands_of_parts_are_looked_at_no_longer_than_the_page_is(self, part):
        page = f"<main><h1>Topic</h1><p>Tea.</p>{part * 3000}</main>"
        assert page_text(page).startswith("# Topic\n\nTea.")

    @pytest.mark.parametrize(
        ("page", "found"),
        [
            ("<pre>all:\n\t\tgcc a.c</pre>", "```\nall:\n\t\tgcc a.c\n```"),
            ("<pre>a()\n\n\n\nb()</pre>", "```\na()\n\n\n\nb()\n```"),
            (
                "<table><tr><td>a<td>b</table><pre>c\t\td</pre><table><tr><td>e<td>f</table>",
                "a | b\n\n```\nc\t\td\n```\ne | f",
            ),
        ],
    )
    def test_code_keeps_its_tabs_and_blank_lines(self, page, found):
        assert page_text(f"<body>{page}") == found

    @pytest.mark.parametrize(
        ("page", "found"),
        [
            ("10<sup>6</sup> J, 2<sup>10</sup>", "10^6 J, 2^10"),
            ("m<sup>2</sup>, s<sup>-1</sup>, Ca<sup>2+</sup>", "m^2, s^-1, Ca^{2+}"),
            ("<i>x</i><sup><i>n</i></sup>, (a+b)<sup>n+1</sup>", "x^n, (a+b)^{n+1}"),
            ("H<sub>2</sub>O, SO<sub>4</sub><sup>2\u2212</sup>", "H2O, SO4^{2\u2212}"),
            (
                "water<sup>3</sup> a<sup>[1]</sup> b<sup>*</sup> 1<sup>st</sup> X<sup>TM</sup> al<sup>1,2</sup>",
                "water3 a[1] b* 1st XTM al1,2",
            ),
            ("x<sup><a href='#n'>2</a></sup> in 1998<sup>3</sup>, 2<sup>e</sup>", "x2 in 19983, 2e"),
            ("1<sup>1</sup>/<sub>2</sub> cup, 5 <sup>14</sup>C", "11/2 cup, 5 14C"),
            (
                "<math><msup><mi>x</mi><mn>2</mn></msup><mo>+</mo><mfrac><mn>1</mn><mn>2</mn></mfrac></math>",
                "x^2+1/2",
            ),
            (
                ("<math><mfrac><mrow><mi>a</mi><mo>&lt;</mo><mi>b</mi></mrow><msub><mi>c</mi><mi>i</mi></msub>"
                "</mfrac></math>"),
                "(a<b)/(c_i)",
            ),
        ],
    )  # fmt: skip
    def test_powers_and_formulas_keep_their_meaning(self, page, found):
        assert page_text(f"<body><p>{page}</p>") == found

    @pytest.mark.timeout(10)
    @pytest.mark.parametrize("part", ["<sup>", "x<sup>2", "x<sup> ", "<sup><i>", "x<sup>2</sup> "])
    def test_a_row_of_powers_takes_no_longer_than_its_size(self, part):
        assert html.with_powers(part * 20_000 + " " * 200_000)

    def test_lists_within_lists_keep_their_numbers_and_written_tags_are_text(self, tmp_path):
        (tmp_path / "a.html").write_text(
            "<ol><li>One<ul><li>dot</li></ul></li><li>Two<br>more</li></ol><h6>Six</h6>"
            "<p>The tag &lt;li&gt; and &amp;lt;b&amp;gt;</p><li>alone</li>"
        )
        assert [line.strip() for line in text(tmp_path).splitlines() if line.strip()] == [
            "1. One", "- dot", "2. Two", "more", "###### Six", "The tag <li> and &lt;b&gt;",
            "- alone",
        ]  # fmt: skip

    def test_any_character_comes_back_as_it_is(self, tmp_path):
        (tmp_path / "a.html").write_text("<p>é — 水 \U0001f600 &#xd800; &quot;x&quot; \u2028 end")
        assert text(tmp_path) == 'é — 水 \U0001f600 \ufffd "x" \u2028 end'

    @pytest.mark.parametrize("name", ["a.html", "a.htm", "a.HTML"])
    @pytest.mark.parametrize(
        ("charset", "encoding", "mark"),
        [
            ("iso-8859-1", "cp1252", b""),
            ("windows-1252", "cp1252", b""),
            ("utf-8", "utf-8", codecs.BOM_UTF8),
            ("whatever", "utf-16-le", codecs.BOM_UTF16_LE),
            ("utf-16", "utf-16-be", b""),
            ("x-mac-roman", "mac_roman", b""),
            ("iso-8859-9", "cp1254", b""),
        ],
    )
    def test_charset_of_the_mark_or_the_meta_tag_is_honoured(
        self, tmp_path, name, charset, encoding, mark
    ):
        (tmp_path / name).write_bytes(mark + PAGE.format(charset=charset).encode(encoding))
        assert text(tmp_path).startswith("# Überdruck")

    @pytest.mark.parametrize(
        ("charset", "encoding", "written"),
        [
            ("gb2312", "gbk", "朱镕基"),
            ("Shift_JIS", "cp932", "①髙"),
            ("x-sjis", "cp932", "水"),
            ("euc-kr", "cp949", "똠방각하"),
            ("tis-620", "cp874", "น้ำ “แข็ง”"),
        ],
    )
    def test_a_charset_is_understood_as_browsers_do(self, charset, encoding, written):
        page = f'<meta charset="{charset}"><p>{written}'
        assert html.extract(page.encode(encoding)) == (written, None)

    def test_what_is_not_as_declared_is_a_reject(self, tmp_path):
        (tmp_path / "a.html").write_bytes("<p>Überdruck".encode("cp1252"))
        (tmp_path / "b.html").write_bytes(b'<meta charset="klingon"><p>x')
        (tmp_path / "c.html").write_bytes(b"")
        (tmp_path / "d.html").write_bytes(b"<html><script>x</script></html>")
        assert [row.problem for _, row in by_file(tmp_path)] == [
            "not_utf8", "not_utf8", "empty_text", "empty_text",
        ]  # fmt: skip

    @pytest.mark.timeout(10)
    @pytest.mark.parametrize(
        "around",
        [
            ("<div class='nav'>" * 3000, "</div>" * 3000),
            ("<div class='menu'><a>x</a>" * 3000, "</div>" * 3000),
            ("<div>a</div>" * 30_000, ""),
        ],
    )
    def test_a_page_of_thousands_of_parts_takes_no_longer_than_its_size(self, around):
        page = f"{around[0]}<div><h1>Topic</h1>{'<p>Cookies and tea.</p>' * 5000}</div>{around[1]}"
        assert "# Topic\n\nCookies and tea." in page_text(page)

    @pytest.mark.timeout(10)
    def test_a_row_of_spaces_in_a_heading_takes_no_longer_than_its_words(self):
        heading = f"<h1>Water<br>hammer{'&nbsp;' * 200_000}here</h1>"
        assert page_text(f"{heading}<p>A wave.</p>").split() == [
            *("#", "Water", "hammer", "here", "A", "wave."),
        ]

    def test_a_page_of_navigation_alone_keeps_its_text(self, tmp_path):
        (tmp_path / "a.html").write_text("<nav><ul><li>One</li></ul></nav>")
        assert text(tmp_path) == "- One"

    def test_a_page_of_many_megabytes(self, tmp_path):
        part = PAGE[PAGE.index("<h1") : PAGE.index("</main>")]
        part += f"<p>{'Valves are closed slowly. ' * 60}</p>"
        (tmp_path / "a.html").write_text(f"<main>{part * 28_000}</main>")
        assert (tmp_path / "a.html").stat().st_size > 50_000_000
        assert text(tmp_path).count("## Mitigation") == 28_000


OPEN_XML = "http://schemas.openxmlformats.org/"
STRICT = "http://purl.oclc.org/ooxml/"
NAMESPACES = (
    f'xmlns:w="{OPEN_XML}wordprocessingml/2006/main" xmlns:m="{OPEN_XML}officeDocument/2006/math" '
    f'xmlns:mc="{OPEN_XML}markup-compatibility/2006" xmlns:v="urn:schemas-microsoft-com:vml" '
    f'xmlns:a="{OPEN_XML}drawingml/2006/main"'
)


def run(words, inner=""):
    return f'<w:r><w:t xml:space="preserve">{words}</w:t>{inner}</w:r>'


def formula(letters):
    return f"<m:oMath><m:r><m:t>{letters}</m:t></m:r></m:oMath>"


def word(path, body, namespaces=NAMESPACES, **parts):
    content = io.BytesIO()
    docx.Document().save(content)
    with zipfile.ZipFile(content) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    found["word/document.xml"] = f"<w:document {namespaces}><w:body>{body}</w:body></w:document>"
    found |= {f"word/{name}.xml": part for name, part in parts.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in found.items():
            archive.writestr(name, part)


BOX = f"<w:txbxContent><w:p>{run('boxed')}</w:p></w:txbxContent>"
DRAWN = f"<w:drawing><a:graphic>{BOX}</a:graphic></w:drawing>"
OVAL = f"<w:pict><v:oval><v:textbox>{BOX}</v:textbox></v:oval></w:pict>"
REFERENCE = f'<w:fldSimple w:instr=" REF _Ref1 \\h ">{run("Figure 3")}</w:fldSimple>'
WORD = [
    (f"{run('See ')}{REFERENCE}{run(' for it.')}", "See Figure 3 for it."),
    (f"<m:oMathPara>{formula('a+b=c')}{formula('d=e')}</m:oMathPara>", "a+b=c\nd=e"),
    (
        f"{run('It is')}<m:oMathPara>{formula('a=b')}</m:oMathPara>{run('here.')}",
        "It is\na=b\nhere.",
    ),
    (f'<w:dir w:val="rtl">{run("to")}<w:bdo w:val="rtl">{run(" fro")}</w:bdo></w:dir>', "to fro"),
    (f"<w:ins>{formula('a')}</w:ins><w:del>{formula('b')}{REFERENCE}</w:del>", "a"),
    (f"<w:sdt><w:sdtContent>{REFERENCE}</w:sdtContent></w:sdt>", "Figure 3"),
    (f"<w:smartTag>{formula('a')}</w:smartTag><w:customXml>{formula('b')}</w:customXml>", "ab"),
    (
        f"<w:r><w:ruby><w:rt>{run('kan')}</w:rt><w:rubyBase>{run('漢')}</w:rubyBase></w:ruby></w:r>",
        "漢",
    ),
    (run("a", "<w:cr/>") + run("b", "<w:ptab/>") + run("c"), "a\nb c"),
    (
        run("a", '<w:sym w:font="Calibri" w:char="03B1"/><w:sym w:font="Symbol" w:char="F062"/>'),
        "a\u03b1\u03b2",
    ),
    (run("a", '<w:sym w:font="Calibri" w:char="x"/><w:sym w:font="Calibri"/>'), "a"),
    (run("a", DRAWN), "a\n\nboxed"),
    (run("a", OVAL), "a\n\nboxed"),
    *(
        (run("a", f"<mc:AlternateContent>{inner}</mc:AlternateContent>"), "a\n\nboxed")
        for inner in (
            f"<mc:Choice>{DRAWN}</mc:Choice>",
            f"<mc:Choice>{DRAWN}</mc:Choice><mc:Fallback><w:pict/></mc:Fallback>",
            f"<mc:Choice>{DRAWN}</mc:Choice><mc:Fallback>{OVAL}</mc:Fallback>",
        )
    ),
]
# Here << and >> stand around the letters of a run.
FORMULAS = [
    ("<<E=m>><m:sSup><m:e><<c>></m:e><m:sup><<2>></m:sup></m:sSup>", "E=mc^2"),
    ("<m:sSub><m:e><<a>></m:e><m:sub><<i-1>></m:sub></m:sSub>", "a_(i-1)"),
    (
        "<m:sSubSup><m:e><<a>></m:e><m:sub><<i>></m:sub><m:sup><<0.5>></m:sup></m:sSubSup>",
        "a_i^0.5",
    ),
    ("<m:f><m:fPr/><m:num><<a+b>></m:num><m:den><<2>></m:den></m:f>", "(a+b)/2"),
    (
        '<m:f><m:fPr><m:type m:val="noBar"/></m:fPr><m:num><<n>></m:num><m:den><<k>></m:den></m:f>',
        "n\u00a6k",
    ),
    ("<m:f><m:num><m:d><m:e><<p-q>></m:e></m:d></m:num><m:den><<r>></m:den></m:f>", "(p-q)/r"),
    ("<m:rad><m:deg/><m:e><<x>></m:e></m:rad>", "sqrt(x)"),
    ("<m:rad><m:deg><<3>></m:deg><m:e><<x>></m:e></m:rad>", "root(3, x)"),
    (
        '<m:nary><m:naryPr><m:chr m:val="\u2211"/></m:naryPr><m:sub><<i=1>></m:sub><m:e><<i>></m:e></m:nary>',
        "\u2211_(i=1) i",
    ),
    ("<m:nary><m:sub/><m:sup/><m:e><<f>></m:e></m:nary>", "\u222b f"),
    ("<m:nary><m:sub/><m:sup><<n>></m:sup><m:e/></m:nary>", "\u222b^n"),
    ("<<2>><m:func><m:fName><<sin>></m:fName><m:e><<x>></m:e></m:func>", "2 sin x"),
    (
        '<m:d><m:dPr><m:begChr m:val="["/><m:endChr m:val=""/></m:dPr><m:e><<a>></m:e><m:e><<b>></m:e></m:d>',
        "[a|b",
    ),
    ("<m:acc><m:e><<x>></m:e></m:acc>", "x\u0302"),
    (
        "<m:m><m:mr><m:e><<a>></m:e><m:e><<b>></m:e></m:mr><m:mr><m:e><<c>></m:e><m:e/></m:mr></m:m>",
        "a, b; c,",
    ),
    ("<m:eqArr><m:e><<a&amp;=1>></m:e><m:e><<b&amp;=2#3>></m:e></m:eqArr>", "a=1; b=2 3"),
    (
        "<m:limLow><m:e><<lim>></m:e><m:lim><<n\u2192\u221e>></m:lim></m:limLow>",
        "lim_(n\u2192\u221e)",
    ),
    ("<m:sPre><m:sub><<6>></m:sub><m:sup/><m:e><<C>></m:e></m:sPre>", "_6C"),
    ("<<a>><w:del><<b>></w:del><w:r><w:br/><w:t>c</w:t></w:r>", "a c"),
]


class TestWord:
    def document(self, path):
        document = docx.Document()
        document.add_heading("Surge", 0)
        document.add_heading("Theory", 1)
        document.add_paragraph("Water hammer is a wave.")
        document.add_paragraph("first", style="List Bullet")
        document.add_paragraph("second", style="List Bullet")
        table = document.add_table(2, 2)
        for n, cell in enumerate(cell for row in table.rows for cell in row.cells):
            cell.text = f"cell {n}"
        document.save(str(path))

    def test_headings_lists_and_tables_are_text(self, tmp_path):
        self.document(tmp_path / "a.docx")
        (row,) = rows(tmp_path)
        assert row.value["title"] == "Surge"
        lines = [line.strip() for line in row.value["text"].splitlines() if line.strip()]
        assert lines == [
            "# Surge", "# Theory", "Water hammer is a wave.", "- first", "- second",
            "cell 0 | cell 1", "cell 2 | cell 3",
        ]  # fmt: skip

    def test_styles_of_ones_own_are_headings_where_they_are_based_on_one(self, tmp_path):
        document = docx.Document()
        chapter = document.styles.add_style("Chapter's head", WD_STYLE_TYPE.PARAGRAPH)
        chapter.base_style = document.styles["Heading 2"]
        document.add_paragraph("Own", style=chapter)
        document.add_paragraph("Contents", style="TOC Heading")
        table = document.add_table(1, 2)
        table.cell(0, 0).text = "cell"
        table.cell(0, 1).paragraphs[0].text = "one"
        table.cell(0, 1).add_paragraph("two", style="List Bullet")
        table.cell(0, 1).add_paragraph("three", style="List Bullet")
        document.add_paragraph("first line\nsecond line")
        document.save(str(tmp_path / "a.docx"))
        assert text(tmp_path) == (
            "## Own\n\nContents\n\ncell | one two; three\n\nfirst line\nsecond line"
        )

    @pytest.mark.timeout(20)
    def test_a_row_of_spaces_takes_no_longer_than_its_words(self, tmp_path):
        document = docx.Document()
        document.add_paragraph(f"Water{' ' * 200_000}hammer")
        document.save(str(tmp_path / "a.docx"))
        assert text(tmp_path).split() == ["Water", "hammer"]

    def test_a_power_keeps_its_meaning(self, tmp_path):
        document = docx.Document()
        paragraph = document.add_paragraph("It is 10")
        paragraph.add_run("6").font.superscript = True
        paragraph.add_run(" J of energy")
        paragraph.add_run("3").font.superscript = True
        document.save(str(tmp_path / "a.docx"))
        assert text(tmp_path) == "It is 10^6 J of energy3"

    def test_a_note_has_no_link_back(self, tmp_path):
        document = docx.Document()
        paragraph = document.add_paragraph("Water")
        note = OxmlElement("w:footnoteReference")
        note.set(qn("w:id"), "2")
        paragraph.runs[0]._r.append(note)
        document.save(str(tmp_path / "a.docx"))
        kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
        link = f'<Relationship Id="notes" Type="{kind}" Target="footnotes.xml"/></Relationships>'
        notes = (
            '<w:footnotes xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
            '<w:footnote w:id="2"><w:p><w:r><w:t>H2O.</w:t></w:r></w:p></w:footnote></w:footnotes>'
        )
        with zipfile.ZipFile(tmp_path / "a.docx") as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        links = "word/_rels/document.xml.rels"
        parts[links] = parts[links].replace(b"</Relationships>", link.encode())
        with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
            for name, content in {**parts, "word/footnotes.xml": notes.encode()}.items():
                archive.writestr(name, content)
        assert text(tmp_path) == "Water[1]\n\n  1. H2O."

    @pytest.mark.parametrize(("written", "read"), WORD)
    def test_what_mammoth_leaves_out_is_read(self, tmp_path, written, read):
        word(tmp_path / "a.docx", f"<w:p>{written}</w:p>")
        assert extract_word((tmp_path / "a.docx").read_bytes()) == (read, None)

    @pytest.mark.parametrize(("formula", "read"), FORMULAS)
    def test_a_formula_is_one_line_of_text(self, tmp_path, formula, read):
        inner = formula.replace("<<", "<m:r><m:t>").replace(">>", "</m:t></m:r>")
        word(tmp_path / "a.docx", f"<w:p>{run('Be ')}<m:oMath>{inner}</m:oMath>{run(' so.')}</w:p>")
        assert extract_word((tmp_path / "a.docx").read_bytes()) == (f"Be {read} so.", None)

    def test_formulas_of_notes_and_of_strict_files_are_read(self, tmp_path):
        note = f'<w:footnote w:id="2"><w:p>{formula("a+b")}</w:p></w:footnote>'
        body = f'<w:p>{formula("E")}<w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
        word(tmp_path / "a.docx", body, footnotes=f"<w:footnotes {NAMESPACES}>{note}</w:footnotes>")
        strict = NAMESPACES.replace(
            f"{OPEN_XML}wordprocessingml/2006/main", f"{STRICT}wordprocessingml/main"
        )
        strict = strict.replace(
            f"{OPEN_XML}officeDocument/2006/math", f"{STRICT}officeDocument/math"
        )
        word(tmp_path / "b.docx", f"<w:p>{run('It is ')}{formula('E')}</w:p>", namespaces=strict)
        assert [row.value["text"] for row in rows(tmp_path)] == ["E[1]\n\n  1. a+b", "It is E"]

    def test_what_is_no_document_is_a_reject(self, tmp_path):
        self.document(tmp_path / "whole.docx")
        content = (tmp_path / "whole.docx").read_bytes()
        (tmp_path / "cut.docx").write_bytes(content[: len(content) // 2])
        (tmp_path / "empty.docx").write_bytes(b"")
        (tmp_path / "secret.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
        with (
            zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("word/document.xml", "w") as part,
        ):
            for _ in range(300):
                part.write(b" " * (1 << 20))
        with zipfile.ZipFile(tmp_path / "sheet.docx", "w") as archive:
            archive.writestr("xl/workbook.xml", "<x/>")
        assert {shard.file: row.problem for shard, row in by_file(tmp_path)} == {
            "bomb.docx": "too_large",
            "cut.docx": "broken_file",
            "empty.docx": "empty_text",
            "secret.docx": "encrypted",
            "sheet.docx": "broken_file",
            "whole.docx": None,
        }


class TestProcess:
    def test_a_parser_that_hangs_is_killed_and_the_next_file_is_read(self, monkeypatch):
        page = PAGE.format(charset="utf-8").encode()
        with Extractor(seconds=30) as extractor:
            first = extractor.extract("html", io.BytesIO(page), len(page))
            pid = extractor._process.pid
            extractor._seconds = 0.5
            stopped = extractor.extract("html", _Endless(), 1 << 30)
            assert stopped.problem == "parser_stopped"
            assert "0.5 seconds" in stopped.detail
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            extractor._seconds = 30
            assert extractor.extract("html", io.BytesIO(page), len(page)) == first

    def test_a_file_that_takes_too_much_memory_is_a_reject(self):
        page = b"<p>" * 3_000_000
        with Extractor(memory=400 << 20) as extractor:
            found = extractor.extract("html", io.BytesIO(page), len(page))
            assert found.problem == "parser_stopped"
            small = b"<p>small"
            assert extractor.extract("html", io.BytesIO(small), len(small)).text == "small"

    def test_the_process_ends_with_its_use(self):
        with Extractor() as extractor:
            extractor.extract("html", io.BytesIO(b"<p>x"), 4)
            running = extractor._process
        assert running.poll() is not None
        assert process.Extracted().problem is None


class _Endless(io.RawIOBase):
    def readable(self):
        return True

    def read(self, size=-1):
        return b" " * min(size, 1 << 16)
