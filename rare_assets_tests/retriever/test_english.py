"""The analyzer against expected terms, and against the analyzer of a real Elasticsearch node."""

# ruff: noqa: RUF001

import random
import unicodedata

import pytest

from rare_assets.retriever.english import STOP_WORDS, english_terms


# What Lucene 10's EnglishAnalyzer makes of these texts.
@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        (" \t\n\u00a0 ", []),
        ("... -- !?", []),
        ("The quick brown foxes jumped", ["quick", "brown", "fox", "jump"]),
        ("THE Not AND then", []),
        ("The fox's den, the foxes' den", ["fox", "den", "fox", "den"]),
        ("dog’s cat＇S bird's", ["dog", "cat", "bird"]),
        ("isn't rock'n'roll 'quoted'", ["isn't", "rock'n'rol", "quot"]),
        ("U.S.A. e.g. node.js", ["u.s.a", "e.g", "node.j"]),
        ("3.14 1,000,000 10:30 1.5kg v2.0", ["3.14", "1,000,000", "10", "30", "1.5kg", "v2.0"]),
        ("http://a-b.org/x_y?k=v", ["http", "b.org", "x_y", "k", "v"]),
        ("state-of-the-art COVID-19", ["state", "art", "covid", "19"]),
        ("snake_case __init__ _ __", ["snake_cas", "__init__"]),
        ("key:value a.b.c,d", ["key:valu", "a.b.c", "d"]),
        ("naïve Ärger İstanbul ΣΑΣ", ["naïv", "ärger", "istanbul", "σασ"]),
        ("日本語 カタカナ ひら", ["日", "本", "語", "カタカナ", "ひ", "ら"]),
        ("한국어 단어 ภาษาไทย", ["한국어", "단어", "ภาษาไทย"]),
        ("ok 👩‍👩‍👧 👍🏽 🇫🇷 1️⃣ ★", ["ok", "👩‍👩‍👧", "👍🏽", "🇫🇷", "1️⃣", "★"]),
        ("10\u202f000 soft\u00adhyphen", ["10\u202f000", "soft\u00adhyphen"]),
        ("is by us gas as", ["us", "ga"]),
        ("possibly possible terribly ably bly", ["possibl", "possibl", "terribl", "abli", "bly"]),
        ("archaeology archaeologies geology", ["archaeolog", "archaeolog", "geologi"]),
        ("generalizations oscillators hopefulness", ["gener", "oscil", "hope"]),
        ("conditional rational conformably differently", ["condit", "ration", "conform", "differ"]),
        (
            "flies dies happy sky agreed plastered motoring",
            ["fli", "di", "happi", "sky", "agre", "plaster", "motor"],
        ),
        ("x" * 300, ["x" * 255, "x" * 45]),
        ("repeat repeat", ["repeat", "repeat"]),
    ],
)
def test_terms_are_lucenes(text, terms):
    assert english_terms(text) == terms


@pytest.mark.parametrize("word", sorted(STOP_WORDS))
def test_stop_words_are_no_terms_in_either_case(word):
    assert english_terms(f"{word} {word.upper()} {word}'s") == []


def test_terms_do_not_depend_on_what_was_analyzed_before():
    first = english_terms("Running foxes run")
    english_terms("running FOXES Run foxes' " + "y" * 1000)
    assert english_terms("Running foxes run") == first == ["run", "fox", "run"]


def test_a_real_nodes_analyzer_makes_the_same_terms(elasticsearch_url):
    from elasticsearch import Elasticsearch

    rng = random.Random(7)
    lines = [*_prose(rng, 400), *_words(rng, 400), *_mixed(rng, 1200)]
    with Elasticsearch(elasticsearch_url.split(",")) as client:
        for start in range(0, len(lines), 100):
            batch = lines[start : start + 100]
            tokens = client.indices.analyze(analyzer="english", text=batch)["tokens"]
            ours = [term for line in batch for term in english_terms(line)]
            assert ours == [token["token"] for token in tokens]


def _prose(rng, n):
    """Lines of real names and words: those of Unicode's characters, with inflections."""
    words = sorted(
        {
            word.lower()
            for code in range(0x20, 0x3000)
            for word in unicodedata.name(chr(code), "").split()
        }
    )
    endings = ["", "s", "'s", "ed", "ing", "ly", "ness", "ation", "ology", "ibly", "ful", "."]
    return [" ".join(rng.choice(words) + rng.choice(endings) for _ in range(12)) for _ in range(n)]


def _words(rng, n):
    """Lines of made-up words that end in stacked suffixes, as the stemmer's rules want them."""
    suffixes = [
        "ational",
        "tional",
        "enci",
        "anci",
        "izer",
        "bli",
        "alli",
        "entli",
        "eli",
        "ousli",
        "ization",
        "ation",
        "ator",
        "alism",
        "iveness",
        "fulness",
        "ousness",
        "aliti",
        "iviti",
        "biliti",
        "logi",
        "logy",
        "bly",
        "icate",
        "ative",
        "alize",
        "iciti",
        "ical",
        "ful",
        "ness",
        "al",
        "ance",
        "ence",
        "er",
        "ic",
        "able",
        "ible",
        "ant",
        "ement",
        "ment",
        "ent",
        "sion",
        "tion",
        "ou",
        "ism",
        "ate",
        "iti",
        "ous",
        "ive",
        "ize",
        "s",
        "es",
        "ies",
        "ed",
        "eed",
        "ing",
        "ss",
        "y",
        "ll",
        "e",
    ]
    # No doubled y: the stemmers differ there, and no English word has one.
    consonants, vowels = "bcdglmnprstz", "aeiou"

    def word():
        stem = "".join(
            rng.choice(consonants) + rng.choice(vowels) for _ in range(rng.randint(0, 3))
        )
        return stem + rng.choice(consonants) + "".join(rng.sample(suffixes, rng.randint(0, 2)))

    lines = [" ".join(word() for _ in range(12)) for _ in range(2 * n)]
    return [line for line in lines if "yy" not in line][:n]


def _mixed(rng, n):
    """Lines of letters, digits, punctuation, marks and several scripts, close together."""
    characters = "aBsS19_'.,:;-\"’‘＇/@#*é\u0301٣あ漢한ไ１\u202f\u00ad\u200b‑ "
    return ["".join(rng.choices(characters, k=rng.randint(1, 24))) for _ in range(n)]
