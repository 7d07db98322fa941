"""The analyzers of languages against those of a real Elasticsearch node."""

# ruff: noqa: RUF001

import random

import pytest

from rare_assets.retriever.analyzers import ANALYZERS, NAMES, OF_LANGUAGE, OTHER_RULES, refusal
from rare_assets.retriever.analyzers.chain import stop_words

# Sentences with what is peculiar to a language, and what its analyzer makes of them.
TERMS = {
    "standard": ("The fox's den, the Größe 日本 ภาษาไทย", "the fox's den the größe 日 本 ภาษาไทย"),
    "cjk": ("东京大学 a ﾊﾝｶｸ ＡＢＣ 한국어 猫", "东京 京大 大学 ハン ンカ カク abc 한국 국어 猫"),
    "german": (
        "Die Häuser der Müllers und größere Straßen, schoenste Wälder",
        "haus mullers gross strass schon wald",
    ),
    "french": ("L'eau des chevaux qu'aujourd’hui généralement", "eau cheval aujourd’hui general"),
    "spanish": ("Las luces de los canciones rápidas", "luz cancion rapid"),
    "italian": ("L'acqua dell'università delle amiche", "acqua universit amic"),
    "portuguese": ("As canções rapidamente os animais", "canca rapid animal"),
    "russian": ("Электрические батареи разряжаются", "электрическ батар разряжа"),
    "arabic": ("الكِتاب والمدرسة ١٢", "كتاب مدرس 12"),
    "turkish": ("İstanbul'un ISIRGAN evlerinden", "istanbul ısırga ev"),
    "irish": ("An tAthair agus d'fhear h-uisce", "athair fear uisce"),
    "dutch": ("De kind en fietsen", "kinder fiets"),
    "swedish": ("systemet och husets", "systemet huset"),
}


# How much of it differs for those of OTHER_RULES, at most; words put together at random show it far more
# often than text does.
DIFFERING = {
    "danish": 0.01,
    "estonian": 0.01,
    "finnish": 0.02,
    "lithuanian": 0.01,
    "norwegian": 0.01,
}


def analyzed(url, analyzer, texts):
    from elasticsearch import Elasticsearch

    with Elasticsearch(url.split(",")) as client:
        found = client.indices.analyze(analyzer=analyzer, text=texts)["tokens"]
    return [token["token"] for token in found]


@pytest.mark.parametrize("name", TERMS)
def test_terms_are_those_of_the_language(name):
    text, terms = TERMS[name]
    assert ANALYZERS[name](text) == terms.split()


@pytest.mark.parametrize("name", sorted(ANALYZERS))
def test_terms_are_those_of_a_real_node(elasticsearch_url, name):
    rng = random.Random(name)
    lines = [*_made_up(rng, name), *[text for text, _ in TERMS.values()]]
    theirs = analyzed(elasticsearch_url, name, lines)
    ours = [term for line in lines for term in ANALYZERS[name](line)]
    assert len(ours) == len(theirs)
    differ = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    assert len(differ) <= DIFFERING.get(name, 0) * len(theirs), differ


def test_an_analyzer_is_the_embedded_engines_or_refused_with_the_way_out():
    assert set(OF_LANGUAGE.values()) | {"standard", "brazilian", "sorani"} == set(NAMES)
    assert len(ANALYZERS) == 24
    assert set(DIFFERING) == OTHER_RULES
    for name in NAMES:
        refused = refusal(name)
        assert (refused is None) == (name in ANALYZERS)
        assert refused is None or "set ELASTICSEARCH_URL" in refused
    assert "german" in refusal("greek")
    assert refusal("klingon").startswith("analyzer is 'klingon': there are arabic, ")


def _made_up(rng, name):
    """Lines of words put together from the parts of a language's most frequent words."""
    try:
        words = sorted(stop_words(name))
    except KeyError:
        words = [text for text, _ in TERMS.values()]
    parts = [word[start : start + 3] for word in words for start in range(max(1, len(word) - 2))]
    return [
        " ".join("".join(rng.choices(parts, k=rng.randint(1, 4))) for _ in range(10))
        + " "
        + " ".join(rng.choices(words, k=5)).title()
        for _ in range(60)
    ]
