"""Languages: what is surely another one is found, what is not sure is left alone."""

import polars as pl
import pytest

from rare_assets.checks.language import in_other_language
from rare_assets.text.language import language_of

ENGLISH = (
    "Faraday's law ties the mass deposited in electrolysis to the charge that has passed. One mole of "
    "electrons carries 96,485 coulombs."
)
GERMAN = (
    "Das Faradaysche Gesetz verbindet die Masse, die bei der Elektrolyse abgeschieden wird, mit der "
    "Ladung, die geflossen ist."
)
QUESTIONS = {
    "en": "Why does a cell lose its charge over the years, even if nobody ever uses it?",
    "de": "Warum verliert eine Zelle mit den Jahren ihre Ladung, obwohl niemand sie benutzt?",
    "fr": "Pourquoi une pile perd-elle sa charge avec le temps, même si personne ne s'en sert ?",
    "es": "¿Por qué una pila pierde su carga con el paso de los años aunque nadie la use?",
    "ru": "Почему элемент постепенно теряет заряд, даже если им никто не пользуется?",
    "zh": "为什么电池即使没有人使用也会随着时间的推移失去电量",
    "ja": "なぜ電池は誰も使わなくても、年月とともに電荷を失うのですか。",
    "ko": "배터리는 아무도 사용하지 않아도 왜 시간이 지나면 방전됩니까?",
}


def found(text, document):
    frame, judged = in_other_language(pl.DataFrame({"text": [text], "document": [document]}))
    return frame.select("language", "document_language").rows(), judged


@pytest.mark.parametrize("language", QUESTIONS)
def test_another_language_than_the_documents_is_found(language):
    question = QUESTIONS[language]
    assert language_of(question) == language
    expected = [] if language == "en" else [(language, "en")]
    assert found(question, ENGLISH) == (expected, 1)
    expected = [] if language == "de" else [(language, "de")]
    assert found(question, GERMAN) == (expected, 1)


@pytest.mark.parametrize(
    "text",
    [
        "Warum rostet Stahl?",
        "Daniell, Nernst, Volta, Galvani, Arrhenius, Debye, Butler, Volmer, Tafel, Peukert",
        "2 H2 + O2 -> 2 H2O; E = 1.23 V; NaCl, KOH, LiPF6, Na2SO4, CuSO4, ZnSO4, Ag2O, MnO2",
        "for i in range(10): print(values[i] + offsets[i])  # the sum of each",
        "",
    ],
)
def test_short_texts_names_formulas_and_code_are_not_judged(text):
    assert found(text, ENGLISH) == ([], 0)


def test_a_document_that_is_not_sure_judges_nothing():
    assert found(QUESTIONS["de"], "NaCl, KOH, LiPF6, Na2SO4") == ([], 0)


def test_close_relatives_are_not_told_apart():
    """Norwegian takes the words of Danish but for a few letters."""
    danish = "Hvorfor mister et batteri sin ladning med årene, selv om ingen nogensinde bruger det?"
    norwegian = (
        "Hvorfor mister et batteri ladningen sin med årene, selv om ingen noen gang bruker det?"
    )
    assert found(norwegian, danish)[0] == []
