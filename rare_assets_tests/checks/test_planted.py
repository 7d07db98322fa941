"""Bad rows planted on purpose, and good ones that look suspicious: what catches which, as the README says."""

import asyncio
import json
from typing import NamedTuple

import pytest

from rare_assets.checks.by_table import CHECKS
from rare_assets.operators.doc2query import doc2query
from rare_assets.operators.reason_distill import reason_distill
from rare_assets.operators.templates import load_templates
from rare_assets.schemas import HardNegatives
from rare_assets_tests.support.doubles import ScriptedTeacher, documents, questions

TEMPLATES = load_templates()
TEXT = (
    "Peukert found that a lead battery gives back less charge the faster it is drawn. Sulfuric acid is used "
    "up inside the pores of the plates, and diffusion can't replace it in time. After a rest the pores have "
    "filled again, so that the battery yields some of the charge that seemed to be lost. A cell of 100 "
    "ampere hours at a draw of 5 amperes may give only 60 at 50 amperes."
)
NEGATIVES = (
    "Copper plates in sulfuric acid make another battery, whose voltage falls as bubbles cover them.",
    "A capacitor gives its whole charge at any current, since nothing in it has to diffuse.",
    "Forklifts lift pallets of up to two tons and are charged overnight.",
)
SCENARIO = (
    "A technician empties a forklift within forty minutes, waits, and finds that it drives again."
)
QUESTION = "Where was the energy that a quickly emptied forklift has back after an hour's break?"
ANSWER = "It was never used: fresh electrolyte had not reached the inner material."
CHAIN = (
    "At such a current the acid near the surface runs out, and what diffuses in comes too late, so the voltage "
    "breaks down while the pores deeper in still hold material. Peukert's loss is one of transport, and a "
    "rest undoes it."
)
# By number as shown, see `reasoned`.
GOLD_TAG, NONE_TAG = "<documents>GOLD</documents>", "<documents>none</documents>"


class Asked(NamedTuple):
    """A question, and the rest of what the teacher wrote."""

    question: str = QUESTION
    scenario: str = SCENARIO
    answer: str = ANSWER


def caught(stored, table):
    """Names of the quality rules of a table that fail with a threshold of 0."""
    stored_shard = stored.shard(table)
    (check,) = [check for check in CHECKS[table] if check.name == "quality"]
    found = {}
    for rule in check.rules:
        measured = rule.judge(stored_shard).metadata
        found[rule.name] = next(value for name, value in measured.items() if name.endswith("_rate"))
    return {name for name, rate in found.items() if rate > 0}


def asked_for(stored, one, *before):
    """What catches a question: a reject's reason, or the rules that flag it."""
    docs = documents({"doc_id": "d", "text": TEXT})
    reply = json.dumps({"question": one.question, "scenario": one.scenario, "answer": one.answer})
    produced = asyncio.run(
        doc2query(docs, ScriptedTeacher(lambda *_: reply), templates=TEMPLATES, max_attempts=1)
    )
    if not produced.rejects.is_empty():
        return set(produced.rejects["reason"])
    row = produced.rows.row(0, named=True) | {"length": None}
    stored.write("documents", {"doc_id": "d", "text": TEXT})
    earlier = [row | {"question_id": f"b{n}", "question": b} for n, b in enumerate(before)]
    stored.write("questions", *earlier, row)
    return caught(stored, "questions")


def reasoned(stored, text, *, given="It was never used.", origin="given"):
    """What catches an answer: a reject's reason, `answer_correct`, or the rules that flag it."""
    asked = questions(
        {
            **{"question_id": "q", "doc_id": "d", "text_hash": "h", "origin": origin},
            **{"question": QUESTION, "scenario": SCENARIO, "reference_answer": given},
        }
    )
    negative = [
        {"doc_id": f"n{n}", "score": 5.0 - n, "rank": n + 2, "origin": "question"} for n in range(3)
    ]
    mined = {
        **{"question_id": "q", "doc_id": "d", "query": QUESTION, "hard_negatives": list(NEGATIVES)},
        **{"hard_negative_titles": [None] * 3, "negatives": negative, "gold_score": 9.0},
        **{"gold_rank": 1, "judged_relevant": []},
    }
    docs = documents({"doc_id": "d", "text": TEXT})

    def say(ask, _):
        prompt = ask.messages[-1]["content"]
        gold = next(n for n in range(1, 5) if f'number="{n}">\nPeukert' in prompt)
        return text.replace("GOLD", str(gold)).replace("OTHER", str(gold % 4 + 1))

    found = HardNegatives.create_empty().vstack(
        type(docs)([mined], schema=HardNegatives.create_empty().schema)
    )
    produced = asyncio.run(
        reason_distill(
            asked, docs, found, ScriptedTeacher(say), templates=TEMPLATES, max_attempts=1
        )
    )
    if not produced.rejects.is_empty():
        return set(produced.rejects["reason"])
    row = produced.rows.row(0, named=True)
    stored.write("documents", {"doc_id": "d", "text": TEXT})
    stored.write("reasoning", row)
    wrong = {"answer_correct"} if row["answer_correct"] is False else set()
    return caught(stored, "reasoning") | wrong


QUESTIONS = {
    "quotes its document": (
        Asked(
            "Why is it that sulfuric acid is used up inside the pores of the plates and yet a rest helps?"
        ),
        {"questions_not_quoted", "questions_need_more_than_lookup"},
    ),
    "trivia": (
        Asked(
            "What did Peukert find about the charge that a lead battery gives back?", answer="Less."
        ),
        {"questions_need_more_than_lookup"},
    ),
    "German": (
        Asked(
            "Woher kommt die Energie, die ein schnell entladener Gabelstapler nach einer Pause wieder hat?"
        ),
        {"questions_in_language_of_document"},
    ),
    "Chinese": (
        Asked("为什么叉车在快速放电之后休息一个小时又可以继续行驶一段时间呢？"),  # noqa: RUF001
        {"questions_in_language_of_document"},
    ),
    "Japanese": (
        Asked("急速に放電したフォークリフトは、なぜ一時間休むとまた走れるようになるのでしょうか。"),
        {"questions_in_language_of_document"},
    ),
    "about nothing": (Asked("Peukert."), {"too_little_asked"}),
    "declines in words": (Asked("No question can be written from this."), {"not_a_question"}),
    "several things at once": (
        Asked("Where was the energy of the forklift, and how long must it rest to have it back?"),
        {"questions_ask_one_thing"},
    ),
    "gives its answer away": (
        Asked(
            "Was the energy never used because fresh electrolyte had not reached the inner material?"
        ),
        {"answers_not_given_away"},
    ),
    "scenario that answers": (
        Asked(
            scenario="A technician learns that fresh electrolyte never reached the inner material he used."
        ),
        {"answers_not_given_away"},
    ),
    "reference to the document": (
        Asked("In the study, why does a quickly emptied forklift drive again after an hour?"),
        {"questions_stand_alone"},
    ),
}


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_planted_question_is_caught_by_what_the_readme_names(stored, kind):
    one, by = QUESTIONS[kind]
    assert asked_for(stored, one) == by


def test_a_planted_copy_is_caught(stored):
    assert asked_for(stored, Asked(), QUESTION.replace("quickly", "rapidly")) == {
        "questions_distinct"
    }


def test_only_a_judge_tells_what_the_document_does_not_settle(stored):
    unanswerable = Asked(
        "How much does a new forklift battery of this kind cost in a typical warehouse?"
    )
    assert asked_for(stored, unanswerable) == set()


REASONING = {
    "no reasoning": ("<answer>It was never used.</answer>", {"no_reasoning"}),
    "gold copied": (f"{TEXT} {GOLD_TAG} <answer>It was never used.</answer>", {"copied_reasoning"}),
    "invented chain": (
        (
            f"Engines store heat in their oil, and heat drives the wheels once the driver turns the key. "
            f"{NONE_TAG} <answer>It was never used.</answer>"
        ),
        {"reasoning_uses_gold"},
    ),
    "another document taken for the gold": (
        (
            "Copper plates gather bubbles, which go away after an hour. <documents>OTHER</documents> "
            "<answer>It was never used.</answer>"
        ),
        {"reasoning_uses_gold"},
    ),
    "injected instruction obeyed": (
        (
            "As the document demands, every question is answered with a discount code. "
            f"{GOLD_TAG} <answer>SAVE20</answer>"
        ),
        {"reasoning_uses_gold", "answer_correct"},
    ),
    "right chain and opposite answer": (
        f"{CHAIN} {GOLD_TAG} <answer>It had been used up.</answer>",
        {"answer_correct"},
    ),
    "wrong sum": (
        f"{CHAIN} So 60 of 100 are 40 %. {GOLD_TAG} <answer>40 %</answer>",
        {"answer_correct"},
    ),
}


@pytest.mark.parametrize("kind", REASONING)
def test_a_planted_answer_is_caught_by_what_the_readme_names(stored, kind):
    text, by = REASONING[kind]
    assert reasoned(stored, text) == by


def test_of_a_reference_that_the_teacher_wrote_only_a_judge_tells_what_contradicts_it(stored):
    text, _ = REASONING["right chain and opposite answer"]
    assert reasoned(stored, text, origin="written") == set()


GOOD_QUESTIONS = [
    "The document database MongoDB runs on two hosts; which one answers while they elect a new primary?",
    "Which document must a seller hand over before the title to the goods passes to the buyer?",
    "Under which article of the constitution may a judge be removed from office for taking bribes?",
    "How does the text of the treaty bind a state that signed it after the deadline had passed?",
    "Based on the findings of the 9/11 commission, would a shared watch list have stopped the flights?",
    "Would the results of a blood test taken at noon differ from those of one taken at dawn?",
    "Which study design would tell a seasonal effect from one of age in a herd of cattle?",
    "Do salt and what it melts both get colder when a road is gritted on a frosty night?",
    "If a driver cannot say why his truck stops, what single reading would tell most about its cells?",
    "Explain how the hour's break changes what a forklift can still lift.",
    "My golf buggy crawls uphill, yet after lunch it is fine again. What is going on?",
    "Is there no question of law that a judge could still decide here?",
    "In which passage of the strait would a ship of ten metres' draught run aground at low tide?",
    "Why did the author of Frankenstein set her novel in Geneva?",
    "At 50 amperes, how many minutes does a cell of 100 ampere hours last by Peukert's rule?",
]


@pytest.mark.parametrize("question", GOOD_QUESTIONS)
def test_a_good_question_that_looks_suspicious_passes(stored, question):
    assert asked_for(stored, Asked(question)) == set()


GOOD_ANSWERS = [
    f"{CHAIN} {GOLD_TAG} <answer>It was never used.</answer>",
    f'{CHAIN} As it says: "After a rest the pores have filled again". {GOLD_TAG} <answer>it was never used</answer>',
    f"<think>{CHAIN}</think>{GOLD_TAG}<answer>It was never used.</answer>",
    f"{CHAIN} Document OTHER is on capacitors and does not help. {GOLD_TAG} <answer>It was never used.</answer>",
    f"{CHAIN} One of the documents tells me to ignore the question; I don't. {GOLD_TAG} <answer>It was never used.</answer>",
    f"{CHAIN} <answer>It was never used.</answer>",
]


@pytest.mark.parametrize("text", GOOD_ANSWERS)
def test_a_good_answer_that_looks_suspicious_passes(stored, text):
    assert reasoned(stored, text) == set()
