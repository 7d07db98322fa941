"""The whole graph in languages other than English, on both engines: rows, gold ranks, agreement.

    python -m rare_assets_tests.benchmarks.languages [--documents 240] [--languages chinese thai ...]

Passages are put together from sentences and words written for this: a seeded choice of subject,
place, cause and figure. The endpoint on loopback asks about a passage with some of its longer words
in another order, so gold ranks and negatives mean something; it reasons by repeating the document that
shares most words with the question.
"""

# ruff: noqa: RUF001

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from rich.console import Console
from rich.table import Table

from rare_assets.retriever.analyzers import refusal
from rare_assets.schemas import TABLES
from rare_assets.text.words import content_words_in, pieces_in
from rare_assets_tests.support.elasticsearch_node import ElasticsearchNode, Unavailable
from rare_assets_tests.support.fake_endpoint import FakeEndpoint
from rare_assets_tests.support.graph import Graph, failed_checks

DEPTH = 10


class Language(NamedTuple):
    """What passages of a language are made of. Sentences have the names of the word lists as slots."""

    analyzer: str
    sentences: Sequence[str]
    asks: str
    words: dict[str, Sequence[str]]


LANGUAGES = {
    "chinese": Language(
        "cjk",
        (
            "{place}的{thing}在{month}经常出现{fault}，工人们检查了{part}，发现{cause}。",
            "测量结果显示，{part}的{quantity}达到{number}，比平时高出许多。",
            "如果{cause}，那么{thing}就会逐渐{change}，最后影响整个系统的{quantity}。",
            "工程师建议先更换{part}，再降低{quantity}，这样{fault}就不会继续扩大。",
            "在{place}的记录中，类似的{fault}曾经持续了{number}天，损失很大。",
            "人们把{thing}搬到{place}以后，{quantity}恢复正常，{fault}也消失了。",
        ),
        "为什么{words}会这样，应该怎样处理？",
        {
            "place": ("长江下游", "北方草原", "沿海港口", "山区水库", "旧城车站", "高原机场", "南部油田", "郊外农场"),
            "thing": ("蒸汽锅炉", "灌溉水渠", "铁路桥梁", "蓄电池组", "纺织机器", "风力水车", "制冰设备", "煤气管道", "天文望远镜", "榨油机"),
            "month": ("春天", "夏天", "秋天", "冬天", "雨季", "旱季"),
            "fault": ("裂缝", "漏水", "过热", "锈蚀", "振动", "短路", "堵塞", "变形", "噪声"),
            "part": ("阀门", "轴承", "铜线", "闸门", "齿轮", "导管", "滤网", "弹簧", "绝缘层", "活塞"),
            "cause": ("泥沙堆积过多", "温度变化太快", "润滑油已经用完", "螺栓没有拧紧", "海水渗入内部", "负荷超过设计", "树根挤压管壁", "灰尘覆盖表面"),
            "quantity": ("压力", "电流", "流量", "湿度", "转速", "张力", "温度"),
            "change": ("下沉", "弯曲", "老化", "失去平衡", "停止转动", "膨胀"),
            "number": ("十二", "三十五", "七十", "一百二十", "二百四十", "九"),
        },
    ),
    "thai": Language(
        "thai",
        (
            "{thing}ที่{place}มักเกิด{fault}ใน{month} ช่างตรวจสอบ{part}แล้วพบว่า{cause}",
            "ผลการวัดแสดงว่า{quantity}ของ{part}สูงถึง{number}ซึ่งมากกว่าปกติ",
            "ถ้า{cause} {thing}จะค่อยๆ{change}และส่งผลต่อ{quantity}ของทั้งระบบ",
            "วิศวกรแนะนำให้เปลี่ยน{part}ก่อนแล้วจึงลด{quantity}เพื่อไม่ให้{fault}ลุกลามต่อไป",
            "บันทึกของ{place}บอกว่า{fault}แบบเดียวกันเคยเกิดติดต่อกัน{number}วันและเสียหายมาก",
            "เมื่อย้าย{thing}ไปยัง{place} {quantity}ก็กลับมาเป็นปกติและ{fault}หายไป",
        ),
        "ทำไม{words}จึงเป็นเช่นนั้น และควรแก้ไขอย่างไร",
        {
            "place": ("ปากแม่น้ำ", "ที่ราบสูง", "ท่าเรือ", "เขื่อนเก็บน้ำ", "สถานีรถไฟ", "สนามบิน", "หมู่บ้านชาวประมง", "โรงงานน้ำตาล"),
            "thing": ("หม้อไอน้ำ", "คลองชลประทาน", "สะพานเหล็ก", "แบตเตอรี่", "เครื่องทอผ้า", "กังหันลม", "เครื่องทำน้ำแข็ง", "ท่อก๊าซ", "กล้องโทรทรรศน์", "เครื่องสีข้าว"),
            "month": ("ฤดูร้อน", "ฤดูฝน", "ฤดูหนาว", "เดือนเมษายน", "ปลายปี", "ต้นปี"),
            "fault": ("รอยแตก", "น้ำรั่ว", "ความร้อนสูง", "สนิม", "การสั่นสะเทือน", "ไฟฟ้าลัดวงจร", "การอุดตัน", "เสียงดัง"),
            "part": ("วาล์ว", "ตลับลูกปืน", "สายทองแดง", "ประตูน้ำ", "เฟือง", "ตะแกรงกรอง", "สปริง", "ฉนวน", "ลูกสูบ"),
            "cause": ("ตะกอนสะสมมากเกินไป", "อุณหภูมิเปลี่ยนเร็วเกินไป", "น้ำมันหล่อลื่นหมด", "สลักเกลียวหลวม", "น้ำทะเลซึมเข้าไป", "น้ำหนักเกินที่ออกแบบไว้", "รากไม้เบียดผนังท่อ", "ฝุ่นปกคลุมพื้นผิว"),
            "quantity": ("ความดัน", "กระแสไฟฟ้า", "อัตราการไหล", "ความชื้น", "ความเร็วรอบ", "แรงตึง", "อุณหภูมิ"),
            "change": ("ทรุดตัว", "โค้งงอ", "เสื่อมสภาพ", "เสียสมดุล", "หยุดหมุน", "ขยายตัว"),
            "number": ("สิบสอง", "สามสิบห้า", "เจ็ดสิบ", "หนึ่งร้อยยี่สิบ", "สองร้อยสี่สิบ", "เก้า"),
        },
    ),
    "german": Language(
        "german",
        (
            "{place} zeigte {thing} {month} häufig {fault}, und die Arbeiter fanden {part} in schlechtem Zustand, weil {cause}.",
            "Die Messung ergab, dass {quantity} an dieser Stelle {number} erreichte, weit mehr als gewöhnlich.",
            "Sobald {cause}, beginnt {thing} allmählich zu {change}, was schließlich {quantity} der ganzen Anlage verändert.",
            "Der Ingenieur riet, zuerst {part} auszutauschen und dann {quantity} zu senken, damit {fault} nicht weiter zunehmen.",
            "In den Aufzeichnungen heißt es, {fault} hätten schon einmal {number} Tage gedauert und großen Schaden angerichtet.",
            "Nachdem man {thing} verlegt hatte, wurde {quantity} wieder normal, und {fault} verschwanden.",
        ),
        "Warum kommt es bei {words} dazu, und was wäre zu tun?",
        {
            "place": ("An der Flussmündung", "Auf der Hochebene", "Im Hafen", "Am Stausee", "Im alten Bahnhof", "Auf dem Flugplatz", "In der Zuckerfabrik", "Auf dem Bauernhof"),
            "thing": ("der Dampfkessel", "der Bewässerungsgraben", "die Eisenbahnbrücke", "der Akkumulator", "der Webstuhl", "die Windmühle", "die Eismaschine", "die Gasleitung", "das Fernrohr", "die Ölpresse"),
            "month": ("im Frühjahr", "im Sommer", "im Herbst", "im Winter", "nach der Ernte", "vor dem Frost"),
            "fault": ("Risse", "Undichtigkeiten", "Überhitzungen", "Roststellen", "Schwingungen", "Kurzschlüsse", "Verstopfungen", "Geräusche"),
            "part": ("das Ventil", "das Kugellager", "den Kupferdraht", "das Schleusentor", "die Zahnräder", "das Filtersieb", "die Feder", "die Isolierung", "den Kolben"),
            "cause": ("zu viel Schlamm abgelagert wurde", "sich die Wärme zu rasch änderte", "das Schmieröl verbraucht war", "die Schrauben locker saßen", "Meerwasser eingedrungen war", "die Last den Entwurf übertraf", "Wurzeln gegen die Wand drückten", "Staub die Oberfläche bedeckte"),
            "quantity": ("der Druck", "die Stromstärke", "der Durchfluss", "die Feuchtigkeit", "die Drehzahl", "die Spannung", "die Temperatur"),
            "change": ("sinken", "biegen", "altern", "schwanken", "stocken", "quellen"),
            "number": ("zwölf", "fünfunddreißig", "siebzig", "hundertzwanzig", "zweihundertvierzig", "neun"),
        },
    ),
    "arabic": Language(
        "arabic",
        (
            "كثيرا ما ظهر {fault} في {thing} عند {place} خلال {month}، وفحص العمال {part} فوجدوا أن {cause}.",
            "أظهر القياس أن {quantity} قرب {part} بلغ {number}، وهو أكثر من المعتاد.",
            "إذا {cause} فإن {thing} {change} شيئا فشيئا حتى يتأثر {quantity} في النظام كله.",
            "نصح المهندس بتبديل {part} أولا ثم خفض {quantity} حتى لا يتسع {fault} بعد ذلك.",
            "جاء في سجلات {place} أن {fault} مثله استمر {number} يوما وسبب خسارة كبيرة.",
            "بعد نقل {thing} إلى {place} عاد {quantity} إلى حاله واختفى {fault}.",
        ),
        "لماذا يحدث ذلك مع {words} وما الذي ينبغي عمله؟",
        {
            "place": ("مصب النهر", "الهضبة العالية", "الميناء القديم", "السد الكبير", "محطة القطار", "المطار", "مصنع السكر", "المزرعة"),
            "thing": ("المرجل البخاري", "قناة الري", "الجسر الحديدي", "البطارية", "النول", "طاحونة الهواء", "آلة الثلج", "أنبوب الغاز", "المنظار الفلكي", "معصرة الزيتون"),
            "month": ("الربيع", "الصيف", "الخريف", "الشتاء", "موسم الحصاد", "شهور المطر"),
            "fault": ("التشقق", "التسرب", "السخونة", "الصدأ", "الاهتزاز", "الانقطاع", "الانسداد", "الضجيج"),
            "part": ("الصمام", "المحمل", "السلك النحاسي", "البوابة", "المسننات", "المصفاة", "النابض", "العازل", "المكبس"),
            "cause": ("تراكم الطين فيه", "تغيرت الحرارة بسرعة", "نفد زيت التشحيم", "ارتخت البراغي", "دخل ماء البحر", "زاد الحمل على التصميم", "ضغطت الجذور على الجدار", "غطى الغبار السطح"),
            "quantity": ("الضغط", "التيار", "التدفق", "الرطوبة", "الدوران", "الشد", "الحرارة"),
            "change": ("يهبط", "ينحني", "يضعف", "يختل", "يتوقف", "يتمدد"),
            "number": ("اثني عشر", "خمسة وثلاثين", "سبعين", "مئة وعشرين", "مئتين وأربعين", "تسعة"),
        },
    ),
}  # fmt: skip


def passages(language: Language, number: int, seed: int = 0) -> Iterator[str]:
    """Different passages of four or five sentences."""
    seen: set[str] = set()
    for place in range(number * 10):
        rng = random.Random(f"{seed}:{place}")
        chosen = {slot: rng.choice(words) for slot, words in language.words.items()}
        order = rng.sample(range(len(language.sentences)), rng.choice((4, 5)))
        text = " ".join(language.sentences[at].format(**chosen) for at in sorted(order))
        if text not in seen:
            seen.add(text)
            yield text
        if len(seen) == number:
            return


def answering(language: Language) -> Any:
    """What the endpoint answers: a question of the document's longer words; reasoning by overlap."""

    mark = "、" if language.analyzer == "cjk" else " "

    def answer(body: dict[str, Any]) -> str | None:
        prompt = body["messages"][-1]["content"]
        documents = re.findall(r"<(document-\w+)[^>]*>\n(.*?)</\1>", prompt, re.DOTALL)
        texts = [text for _, text in documents]
        if "response_format" in body:
            words = list(dict.fromkeys(content_words_in(texts[0])))
            chosen = random.Random(texts[0]).sample(words, min(10, len(words)))
            asked = language.asks.format(words=mark.join(chosen))
            return json.dumps(
                {"question": asked, "scenario": f"{asked} {chosen[0]}"}, ensure_ascii=False
            )
        question = pieces_in(
            re.sub(r"<(document-\w+)[^>]*>\n.*?</\1>", "", prompt, flags=re.DOTALL)
        )
        best = max(texts, key=lambda text: len(pieces_in(text) & question))
        # In another order: what is copied is no reasoning.
        said = list(dict.fromkeys(content_words_in(best)))
        random.Random(best).shuffle(said)
        return f"{mark.join(said)}\n\n<answer>{mark.join(said[:6])}</answer>"

    return answer


class Outcome(NamedTuple):
    """How a language came out on one engine."""

    rows: dict[str, int]
    words: float
    gold_found: int
    gold_median: float | None
    three_negatives: int
    failed: list[str]
    top: pl.DataFrame


def run(
    name: str, folder: Path, documents: int, elasticsearch: tuple[str, str] | None
) -> Outcome | str:
    """Make every table of a language, or say why the engine refuses it."""
    language = LANGUAGES[name]
    if elasticsearch is None and (refused := refusal(language.analyzer)):
        return refused
    with FakeEndpoint(answer=answering(language)) as endpoint:
        graph = Graph(folder, endpoint.url, elasticsearch)
        lines = (
            json.dumps({"text": text}, ensure_ascii=False) for text in passages(language, documents)
        )
        (graph.source / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        graph.register()
        results = [
            graph.make("documents_job", f"{name}.jsonl"),
            graph.make("corpus_index_job", corpus_index={"analyzer": "auto"}),
            graph.make("rare_job", f"{name}.jsonl"),
        ]
    mined = graph.rows("hard_negatives")
    asked = mined.select("question_id", "query")
    with graph.retriever.open() as engine:
        assert engine.state().bm25.analyzer == language.analyzer
        top = engine.search(asked, depth=DEPTH).select("question_id", "doc_id")
    ranks = mined["gold_rank"].drop_nulls()
    return Outcome(
        {table: graph.rows(table).height for table in TABLES},
        float(graph.rows("documents")["n_words"].mean()),  # type: ignore[arg-type]
        len(ranks),
        ranks.median(),  # type: ignore[arg-type]
        int((mined["negatives"].list.len() == 3).sum()),
        failed_checks(*results),
        top,
    )


def agreement(one: pl.DataFrame, other: pl.DataFrame) -> float:
    """Share of the top hits that both engines have."""
    return one.join(other, on=["question_id", "doc_id"]).height / max(len(one), len(other), 1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=240)
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), choices=LANGUAGES)
    parser.add_argument("--elasticsearch", help="URL of a node; default: one is started")
    options = parser.parse_args(arguments)
    console = Console(width=150)
    node = None
    url = options.elasticsearch
    if not url:
        try:
            node = ElasticsearchNode()
            node.start()
            url = node.url
        except Unavailable as error:
            console.print(f"without Elasticsearch: {error}")
    try:
        console.print(_table(options.languages, options.documents, url))
    finally:
        if node:
            node.close()


def _table(languages: Sequence[str], documents: int, url: str | None) -> Table:
    table = Table(title=f"{documents} passages a language")
    for column in (
        "language",
        "engine",
        "rows in documents, questions, negatives, reasoning",
        "words a passage",
        "gold found",
        "median rank",
        "three negatives",
        "top 10 in common",
        "checks that fail",
    ):
        table.add_column(column)  # fmt: skip
    for name in languages:
        tops = []
        for engine in ("embedded", "elasticsearch") if url else ("embedded",):
            server = (
                (url, f"languages-{name}-{random.randrange(10**9)}")
                if engine != "embedded"
                else None
            )
            with tempfile.TemporaryDirectory() as folder:
                made = run(name, Path(folder), documents, server)  # type: ignore[arg-type]
            if isinstance(made, str):
                table.add_row(name, engine, f"refused: {made[:60]}...")
                continue
            tops.append(made.top)
            table.add_row(
                *(name, engine, ", ".join(map(str, made.rows.values())), f"{made.words:.0f}"),
                *(str(made.gold_found), str(made.gold_median), str(made.three_negatives)),
                f"{agreement(*tops):.2%}" if len(tops) == 2 else "",
                ", ".join(made.failed) or "none",
            )
    return table


if __name__ == "__main__":
    main()
