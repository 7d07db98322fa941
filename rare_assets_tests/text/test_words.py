"""Words counted and cut, in languages that set blanks between them and in those that don't."""

# ruff: noqa: RUF001

import random

import polars as pl
import pytest

from rare_assets.text.words import (
    SpacedWords,
    content_words_in,
    content_words_of,
    count_words,
    number_of_words,
    pieces_in,
    sets_no_blanks,
    words_in,
    words_of,
)

# Cut by hand, as a dictionary of the language has the words.
UNSPACED = {
    "chinese": ("我喜欢吃苹果，因为它们很甜。", 7),
    "traditional": ("電池的容量會下降。", 5),
    "japanese": ("東京都の電池は高い。", 6),
    "thai": ("ภาษาไทยไม่มีการเว้นวรรคระหว่างคำ", 8),
    "lao": ("ຂ້ອຍມັກກິນເຂົ້າ", 4),
    "khmer": ("ខ្ញុំចង់ទៅផ្សារ", 4),
    "burmese": ("ကျွန်တော်ထမင်းစားသည်", 4),
    "tibetan": ("བོད་སྐད་ནི་བོད་མིའི་སྐད་ཡིག་ཡིན།", 8),
    "ethiopic": ("ሰላም፡ለዓለም፡ሁሉ", 3),
}
SPACED = [
    "A well-known cell's 1.5 V — e.g. state-of-the-art (x_y) … isn't it?",
    "Größe, Élan & naïveté: “quoted” – dashed",
    "배터리의 수명은 길지 않다.",
    "हिन्दी भाषा में शब्द अलग होते हैं।",
    "الكلمات العربية تفصلها مسافات.",
    "می‌خواهم به خانه بروم",
    "Tiếng Việt viết rời từng âm tiết",
    "სიტყვები გამოყოფილია",
    "",
    " \n\t ",
    "...",
]


@pytest.mark.parametrize("text", SPACED)
def test_where_blanks_are_set_a_word_is_what_stands_between_them(text):
    assert count_words(text) == len(text.split())
    assert not sets_no_blanks(text)


@pytest.mark.parametrize(("text", "words"), UNSPACED.values(), ids=UNSPACED)
def test_where_none_are_set_words_are_those_of_the_language(text, words):
    # Dictionaries differ on compounds, so a fifth more or fewer is as good a count.
    assert sets_no_blanks(text)
    assert abs(count_words(text) - words) <= max(1, words // 5)
    assert len(words_in(text)) == count_words(text)
    assert "".join(words_in(text)) == "".join(c for c in text if c not in "，。།་፡")


def test_in_a_mixed_text_each_part_counts_by_its_own_rule():
    english = "the state-of-the-art cell's voltage is 1.5 V"
    assert count_words(f"{english} 我喜欢吃苹果 {english}") == 2 * len(english.split()) + 4
    assert words_in("用GPT-4模型") == ["用", "gpt", "4", "模型"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Why doesn't a 12-volt", ["why", "doesn", "t", "a", "12", "volt"]),
        ("Größe, Élan & naïveté m²", ["größe", "élan", "naïveté", "m²"]),
        ("snake_case", ["snake_case"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("می‌خواهم", ["می‌خواهم"]),
        ("كَتَبَ", ["كَتَبَ"]),
        ("배터리의 수명", ["배터리의", "수명"]),
        ("... 👩‍👩‍👧 —", []),
        ("", []),
    ],
)
def test_words_have_no_punctuation_and_keep_their_marks(text, words):
    assert words_in(text) == words


def test_content_words_are_the_longer_ones():
    assert content_words_in("Why do batteries age? 12345") == ["batteries"]
    assert content_words_in("电池的容量为什么会下降") == ["电池", "容量", "为什么", "下降"]


# About 100 words of four languages on one subject, and on another.
ON_CELLS = {
    "chinese": "电池是一种把化学能直接转换成电能的装置。放电时，负极上的金属失去电子，电子经过外电路流向正极，而离子在电解质中移动以保持电荷平衡。随着放电的进行，反应物逐渐减少，内阻升高，端电压随之下降。",
    "japanese": "電池は化学エネルギーを直接電気エネルギーに変換する装置である。放電中、負極の金属は電子を失い、電子は外部回路を通って正極へ流れ、イオンは電解質の中を移動して電荷の釣り合いを保つ。",
    "thai": "แบตเตอรี่เป็นอุปกรณ์ที่เปลี่ยนพลังงานเคมีให้เป็นพลังงานไฟฟ้าโดยตรง ขณะคายประจุโลหะที่ขั้วลบจะสูญเสียอิเล็กตรอนซึ่งไหลผ่านวงจรภายนอกไปยังขั้วบวก ส่วนไอออนจะเคลื่อนที่ในสารละลายเพื่อรักษาสมดุลของประจุ",
    "khmer": "ថ្មគឺជាឧបករណ៍ដែលបម្លែងថាមពលគីមីទៅជាថាមពលអគ្គិសនី ពេលបញ្ចេញថាមពល លោហៈនៅប៉ូលអវិជ្ជមានបាត់បង់អេឡិចត្រុង ដែលហូរតាមសៀគ្វីខាងក្រៅទៅប៉ូលវិជ្ជមាន",
}
ON_RIVERS = {
    "chinese": "河流把山上的泥沙带到平原，流速变慢时泥沙便沉积下来，河床因此逐年抬高。汛期水量大增，两岸的堤坝承受很大的压力，一旦决口，低处的村庄和农田都会被淹没。人们因此在上游修建水库，用来调节水量。",
    "japanese": "川は山の土砂を平野へ運び、流れが緩やかになると土砂が積もって川底が年々高くなる。洪水の季節には水量が増え、両岸の堤防に大きな圧力がかかり、切れれば低い村や田畑が水に浸かる。",
    "thai": "แม่น้ำพัดพาตะกอนจากภูเขามายังที่ราบ เมื่อกระแสน้ำช้าลงตะกอนจะตกทับถมทำให้ท้องน้ำสูงขึ้นทุกปี ในฤดูน้ำหลากปริมาณน้ำเพิ่มขึ้นมากและกดดันคันกั้นน้ำทั้งสองฝั่ง หากคันดินพังหมู่บ้านและไร่นาที่อยู่ต่ำจะถูกน้ำท่วม",
    "khmer": "ទន្លេនាំដីល្បាប់ពីភ្នំមកវាលទំនាប នៅពេលទឹកហូរយឺត ដីល្បាប់ធ្លាក់ចុះ ហើយបាតទន្លេឡើងខ្ពស់ជារៀងរាល់ឆ្នាំ នៅរដូវទឹកជន់ ភូមិនិងវាលស្រែទាបត្រូវលិចទឹក",
}


def overlap(a, b):
    return len(pieces_in(a) & pieces_in(b)) / min(len(pieces_in(a)), len(pieces_in(b)))


@pytest.mark.parametrize("language", ON_CELLS)
def test_a_copy_with_95_of_100_characters_is_near_and_another_text_is_not(language):
    text, other = ON_CELLS[language], ON_RIVERS[language]
    rng = random.Random(1)
    for _ in range(20):
        copy = list(text)
        for place in rng.sample(range(len(text)), len(text) // 20):
            copy[place] = rng.choice(other)
        assert overlap("".join(copy), text) >= 0.8
    assert overlap(text, other) < 0.4


def test_pieces_are_words_where_blanks_are_set():
    assert pieces_in("Größe, naïve 東京都 x_1") == {"größe", "naïve", "東京", "京都", "x_1"}
    assert pieces_in("The cell, the CELL") == {"the", "cell"}


def test_columns_give_what_each_text_gives():
    texts = [*SPACED, *(text for text, _ in UNSPACED.values()), "用GPT-4模型 and a cell"]
    frame = pl.DataFrame({"text": [*texts, None]}).select(
        n=number_of_words(pl.col("text")),
        words=words_of(pl.col("text")),
        content=content_words_of(pl.col("text")),
    )
    assert frame["n"].to_list() == [*map(count_words, texts), None]
    assert frame["words"].to_list() == [*map(words_in, texts), None]
    assert frame["content"].to_list() == [*map(content_words_in, texts), None]


def test_words_between_any_two_places_are_those_that_a_split_finds():
    rng = random.Random(11)
    blanks = [chr(code) for code in range(0x3001) if chr(code).isspace()]
    letters = ["a", "x", "é", "—", "…", "\u200b", "\udc80", "\U0001f600", *blanks]
    for _ in range(300):
        text = "".join(rng.choices(letters, k=rng.randrange(60)))
        start, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        assert SpacedWords(text).between(start, end) == len(text[start:end].split())
