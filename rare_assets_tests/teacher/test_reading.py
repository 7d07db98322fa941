import json
import time

import pytest

from rare_assets.teacher.interface import Answer
from rare_assets.teacher.prose_objects import prose
from rare_assets.teacher.reading import part, part_text, said_in

NOTE = {"question": "Why does ice melt?", "scenario": "A driver asks."}
JSON = json.dumps(NOTE)


def completion(message, finish="stop"):
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def thinking_part(text):
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


# What servers send: OpenAI, Mistral, OpenRouter, LiteLLM, Anthropic, Gemini, Bedrock, Cohere, ...
@pytest.mark.parametrize(
    ("message", "content", "thinking"),
    [
        ({"content": "A"}, "A", None),
        ({"content": ["A", "B"]}, "AB", None),
        ({"content": {"type": "text", "text": "A"}}, "A", None),
        ({"content": {"parts": [{"text": "B", "thought": True}, {"text": "A"}]}}, "A", "B"),
        ({"content": [thinking_part("B"), {"type": "text", "text": "A"}]}, "A", "B"),
        ({"content": [{"type": "thinking", "thinking": "B", "signature": "x"}, {"type": "text", "text": "A"}]}, "A", "B"),
        ({"content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "A"}]}, "A", None),
        ({"content": [{"type": "reasoning", "text": "B"}, {"type": "output_text", "text": "A"}]}, "A", "B"),
        ({"content": [{"reasoningContent": {"reasoningText": {"text": "B"}}}, {"text": "A"}]}, "A", "B"),
        ({"content": [{"type": "text", "text": {"value": "A", "annotations": []}}]}, "A", None),
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "A"}]}, "A", None),
        ({"content": [{"type": "text", "text": "A", "refusal": ""}]}, "A", None),
        ({"content": {"text": "A", "refusal": None}}, "A", None),
        ({"content": NOTE}, JSON, None),
        ({"content": [NOTE]}, JSON, None),
        ({"content": [{"type": "json", "json": NOTE}]}, JSON, None),
        ({"content": None, "parsed": NOTE}, JSON, None),
        ({"content": "", "reasoning_content": "B"}, "", "B"),
        ({"content": "A", "reasoning": "B", "reasoning_details": [{"type": "reasoning.text", "text": "B"}]}, "A", "B"),
        ({"content": "A", "reasoning_details": [{"type": "reasoning.text", "text": "B"}]}, "A", "B"),
        ({"content": "A", "reasoning_details": [{"type": "reasoning.summary", "summary": "B"}]}, "A", "B"),
        ({"content": "A", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}, "A", None),
        ({"content": "A", "reasoning": {"effort": "low"}}, "A", None),
        ({"content": "A", "reasoning": {"content": "B"}}, "A", "B"),
        ({"content": "A", "thinking": "B"}, "A", "B"),
        ({"content": "A", "thinking_blocks": [{"type": "thinking", "thinking": "B"}]}, "A", "B"),
        ({"content": [thinking_part("B"), {"type": "text", "text": "A"}], "reasoning_content": "B"}, "A", "B"),
        ({"content": None, "tool_calls": [{"type": "function", "function": {"name": "json", "arguments": JSON}}]}, JSON, None),
        ({"content": "", "tool_calls": [{"function": {"name": "json", "arguments": NOTE}}]}, JSON, None),
        ({"content": "So:", "tool_calls": [{"function": {"arguments": JSON}}]}, f"So:\n{JSON}", None),
        ({"content": None, "function_call": {"name": "json", "arguments": JSON}}, JSON, None),
        ({"content": [{"type": "tool_use", "name": "json", "input": NOTE}]}, JSON, None),
        ({"content": None, "tool_calls": []}, "", None),
    ],
)  # fmt: skip
def test_content_and_chain_are_found_where_a_server_puts_them(message, content, thinking):
    said = said_in(completion(message))
    assert (said.content, said.thinking, said.finish_reason) == (content, thinking, "stop")


@pytest.mark.parametrize("message", [
    {"content": None, "refusal": "No."},
    {"content": [{"type": "refusal", "refusal": "No."}]},
])  # fmt: skip
def test_a_refusal_is_no_content(message):
    said = said_in(completion(message))
    assert (said.content, said.refusal) == ("", "No.")


@pytest.mark.parametrize(
    "response",
    [
        {"choices": [{"text": "A", "finish_reason": "stop"}]},
        {"choices": [{"delta": {"content": "A"}, "finish_reason": "stop"}]},
        {"data": completion({"content": "A"})},
        [completion({"content": "A"})],
        {"output": completion({"content": "A"}), "usage": {"input_tokens": 3}},
        {"message": {"role": "assistant", "content": "A"}, "done_reason": "stop"},
        {"content": [{"type": "text", "text": "A"}], "stop_reason": "stop"},
        {"candidates": [{"content": {"parts": [{"text": "A"}]}, "finishReason": "stop"}]},
        {"output": {"message": {"content": [{"text": "A"}]}}, "stopReason": "stop"},
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": "A"}]}], "status": "stop"},
    ],
)  # fmt: skip
def test_other_forms_of_a_response_are_read(response):
    assert said_in(response) == ("A", None, None, "stop")


@pytest.mark.parametrize("response", [
    {"message": "Internal error"}, {"detail": "Not found"}, {"content": "A"}, {"data": []}, {"choices": [None]},
    {"error": "x"}, {"output": "A"}, [], [{}, {}],
])  # fmt: skip
def test_what_holds_no_message_is_no_answer(response):
    with pytest.raises(ValueError, match="not a chat completion"):
        said_in(response)


# ---- chain and text

HARMONY = (
    "<|channel|>analysis<|message|>B<|end|><|start|>assistant<|channel|>final<|message|>A<|return|>"
)


@pytest.mark.parametrize(
    ("content", "chain", "text"),
    [
        ("A", "", "A"),
        ("<think>\nB\n</think>\n\nA", "B", "A"),
        ("<THINKING>B</THINKING>A", "B", "A"),
        ("<thought>B</thought>A", "B", "A"),
        ("<seed:think>B</seed:think>A", "B", "A"),
        ("<longcat_think>B</longcat_think>A", "B", "A"),
        ("<reasoning>B</reasoning><answer>A</answer>", "B", "<answer>A</answer>"),
        ("[THINK]B[/THINK]A", "B", "A"),
        ("\u25c1think\u25b7B\u25c1/think\u25b7A", "B", "A"),
        ("<|START_THINKING|>B<|END_THINKING|><|START_RESPONSE|>A<|END_RESPONSE|>", "B", "A"),
        ("<|begin_of_thought|>B<|end_of_thought|>\n<|begin_of_solution|>A<|end_of_solution|>", "B", "A"),
        ("<unused94>thought\nB<unused95>A", "B", "A"),
        ("<|channel>thought\nB<channel|>A", "B", "A"),
        ("Thinking...\nB\n...done thinking.\n\nA", "B", "A"),
        ("Here is my thought process:\nB\nHere is my response:\nA", "B", "A"),
        ("Here\u2019s my thought process: B Here's my final answer: A", "B", "A"),
        (HARMONY, "B", "A"),
        ("<|start|>assistant" + HARMONY, "B", "A"),
        ("analysis<|message|>B<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>{}", "B", "{}"),
        (HARMONY.replace("<|start|>assistant", "<|start|>assistant<|channel|>commentary<|message|>C<|end|><|start|>assistant"), "B\nC", "A"),
        ("<|channel|>commentary to=functions.json <|constrain|>json<|message|>{}<|call|>", "", "{}"),
        ("analysisWe need B.assistantfinalA", "We need B.", "A"),
        ("<think>B</think>A<|im_end|>", "B", "A"),
        ("A<|eot_id|>\n<|start_header_id|>user<|end_header_id|>\nMore?", "", "A"),
        ("<|im_start|>assistant\nA<|im_end|>\n", "", "A"),
        ("<s>A</s>", "", "A"),
        ("<\uff5cbegin\u2581of\u2581sentence\uff5c>A<\uff5cend\u2581of\u2581sentence\uff5c>", "", "A"),
        ("<think>B</think>So <|begin_of_box|>A<|end_of_box|>", "B", "So A"),
        ("B\n</think>\nA", "B", "A"),
        ("B</think>\n\nA", "B", "A"),
        ("B [/THINK]\nA", "B", "A"),
        ("Salt lowers it.</think>It melts.", "Salt lowers it.", "It melts."),
        ("Salt lowers it</think>**It melts.**", "Salt lowers it", "**It melts.**"),
        ("Salt lowers it.</think> It melts.", "Salt lowers it.", "It melts."),
        ("Brine</THOUGHT>A", "Brine", "A"),
        ("It is closed by </think> here.</think>A", "It is closed by </think> here.", "A"),
        ("It is closed by <|END_THINKING|> here.<|END_THINKING|>A", "It is closed by <|END_THINKING|> here.", "A"),
        ("</think>A", "", "A"),
        ("</think> A", "", "A"),
        # Before it stands what nobody sees.
        ("\ufeff<think>B</think>A", "B", "A"),
        ("\n\u200b\n<think>B</think>A", "B", "A"),
        ("\ufeffA", "", "A"),
        # A chain that quotes its own marks.
        ("<think>The tags <think>x</think> are quoted.</think>A", "The tags <think>x</think> are quoted.", "A"),
        ("<think>It ends with `</think>` here.\n</think>\nA", "It ends with `</think>` here.", "A"),
        ("<think>It begins with <think> and goes on.\n</think>\nA", "It begins with <think> and goes on.", "A"),
    ],
)  # fmt: skip
def test_chain_and_text_are_parted_without_control_tokens(content, chain, text):
    assert part_text(content) == (chain, text, False)


@pytest.mark.parametrize(
    "content",
    [
        "Document 2 says that <think>x</think> stands before an answer. <answer>A</answer>",
        "The model writes <think> first, then </think>, then the answer.",
        "The closing tag </think> ends it.\n<answer>A</answer>",
        "The chain comes first, then </think>, then the answer.",
        "The tag (</think>) ends it, and so does x</think>, or y</think> then.",
        "The template writes<think>x</think>before it.",
        "Cohere writes<|START_THINKING|>x<|END_THINKING|>before it.",
        'So: {"question": "What does x</think>y mark?"}',
        '{"question": "What do <think> and </think> mark?", "scenario": "A\\n</think>\\n"}',
        "```json\n{\"question\": \"What is\\n</think>\\n?\"}\n```",
        "It prints <|im_end|> at the end of a turn, and then [INST].",
        "Here is my thought process: salt makes brine, so ice melts.",
        "analysis of the brine shows that it melts.",
        "Thinking... is not all.",
        "Documents 1 and 2 quote <|channel|>final<|message|> as a mark.",
    ],
)  # fmt: skip
def test_marks_that_an_answer_speaks_of_are_text(content):
    assert part_text(content) == ("", content, False)


@pytest.mark.parametrize("content", ["<think>B", "[THINK]B", "<|channel|>analysis<|message|>B"])
def test_a_chain_that_never_ends_leaves_no_text(content):
    assert part_text(content) == ("B", "", True)


def answer(content, thinking=None):
    return Answer(content, thinking, "stop", None, "m", 1, 1, 0, 0.1, False)


@pytest.mark.parametrize(
    ("given", "chain", "text"),
    [
        (answer("A", "B"), "B", "A"),
        (answer("A", " "), "", "A"),
        (answer("<think>C</think>A", "B"), "B", "A"),
        (answer("A", "<think>\nB\n</think>"), "B", "A"),
        (answer("A<|im_end|>", "B<|end|>"), "B", "A"),
        (answer("", "B\n</think>\nA"), "B", "A"),
        (answer("", "B"), "B", ""),
    ],
)
def test_a_chain_sent_apart_goes_before_one_in_the_content(given, chain, text):
    assert part(given)[:2] == (chain, text)


@pytest.mark.parametrize(
    ("text", "chain", "answer"),
    [
        ('{"reasoning": "B", "answer": "A"}', "B", "A"),
        ('{"Thought": "B", "final_answer": "A", "score": 1}', "B", "A"),
        ('{"reasoning": "B", "answer": 5}', "B", "5"),
        ('{"analysis": true, "thought": "B", "answer": false}', "B", "false"),
        ('```json\n{"reasoning": "B", "answer": "A"}\n```', "B", "A"),
        ('```\n{"reasoning": "B",\n"answer": 0.5}```\n', "B", "0.5"),
        ('```json\n{"answer": "A"}\n```', "", '```json\n{"answer": "A"}\n```'),
        ('{"reasoning": "B", "answer": ["A"]}', "", '{"reasoning": "B", "answer": ["A"]}'),
        ('{"answer": "A"}', "", '{"answer": "A"}'),
        ("{x} is a set.", "", "{x} is a set."),
    ],
)
def test_prose_that_came_as_an_object_is_parted(text, chain, answer):
    assert prose(part_text(text))[:2] == (chain, answer)


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        *(("", "A"), ("A", ""), ("A", "B"), (JSON, "")),
        *(("<think>B</think>", "A"), ("<|channel|>final<|message|>A", "")),
    ],
)
@pytest.mark.parametrize("mark", [" ", "\n", "\t\n"])
def test_spaces_without_end_take_no_longer_than_other_text(begins, ends, mark):
    """As some models write them until they may write no more, where a schema allows them."""
    long = mark * 500_000
    parted = part_text(begins + long + ends)
    text = begins.rpartition(">")[2] + long + ends
    assert parted.text == text.strip()


@pytest.mark.parametrize(
    ("begins", "row"),
    [
        *(("", "x </think> y "), ("", "</think>, "), ("<think>", "<think>x</think>")),
        *(("<|channel|>a", "a"), ("", "B<|begin_of_box|>"), ("analysisWe", "assistantcommentary")),
    ],
)
def test_marks_without_end_take_no_longer_than_other_text(begins, row):
    started = time.process_time()
    part_text(begins + row * (400_000 // len(row)))
    assert time.process_time() - started < 5


def test_control_characters_and_halves_of_a_pair_are_not_kept():
    assert part_text("a\x00b\x0cc\r\nd\te\x1b[0m \ud83d") == ("", "abc\nd\te[0m \N{REPLACEMENT CHARACTER}", False)  # fmt: skip
