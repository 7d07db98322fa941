"""Read answers out of responses, and part their chain of thought from their text.

Only this module knows where servers put things. `said_in` finds content, chain and refusal in the JSON of a
response; `part` parts an answer, also one stored long ago, into chain and text. The online client, batches,
`structured_value` and the operators read answers through these two.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rare_assets.teacher.interface import Answer
from rare_assets.text.latex import without_control_characters

# ---- out of a response


class Said(NamedTuple):
    """What a response says.

    Attributes:
        content: the answer, with a chain of thought if the model wrote it there.
        thinking: chain of thought that was sent apart; None without.
        refusal: None without.
        finish_reason: the endpoint's word for why the answer ended; empty if it gives none.
    """

    content: str
    thinking: str | None
    refusal: str | None
    finish_reason: str


# Where a chain stands in a message; the first that holds text counts, since some send it twice.
_CHAIN_FIELDS = (
    *("reasoning_content", "reasoning", "reasoning_text", "thinking", "thoughts"),
    *("thinking_blocks", "reasoning_details"),
)
_CHAIN_KINDS = frozenset(
    [
        *("thinking", "thought", "reasoning", "reasoning_content", "reasoning_text"),
        *("reasoning.text", "reasoning.summary", "summary_text"),
    ]
)
_TOOL_KINDS = frozenset(["tool_use", "tool_call", "function_call", "function"])
# A mapping of these alone is a part of a message; any other is the answer itself, as an object.
_PART_FIELDS = frozenset(
    [
        *("type", "text", "value", "annotations", "content", "parts", "role", "index", "id"),
        *(
            "thought",
            "thoughtSignature",
            "reasoningContent",
            "cache_control",
            "logprobs",
            "refusal",
        ),
    ]
)
_ENDED = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason")


def said_in(response: Any) -> Said:
    """Return what a response says, whichever server's form it has.

    Args:
        response: the response's JSON, of OpenAI's form, Anthropic's, Google's, Ollama's or others.

    Raises:
        ValueError: it holds no message.

    Example:
        >>> said_in({"content": [{"type": "text", "text": "It melts."}], "stop_reason": "end_turn"})
        Said(content='It melts.', thinking=None, refusal=None, finish_reason='end_turn')
    """
    message, finish_reason = _message(response)
    pieces = _Pieces()
    if isinstance(message, str):
        pieces.content.append(message)
    elif isinstance(message, Mapping):
        _read_message(message, pieces)
    else:
        _gather(message, pieces)
    return Said(
        "".join(pieces.content),
        "\n".join(pieces.thinking) or None,
        "".join(pieces.refusal) or None,
        finish_reason,
    )


def _message(response: Any, depth: int = 0) -> tuple[Any, str]:
    """Return a response's message, and why it ended."""
    if isinstance(response, Sequence) and not isinstance(response, str) and len(response) == 1:
        return _message(response[0], depth)
    if not isinstance(response, Mapping):
        raise ValueError(f"not a chat completion: {type(response).__name__}")
    for name in ("choices", "candidates"):
        if name in response:
            found = response[name]
            choice = found[0] if isinstance(found, Sequence) and found else None
            if isinstance(choice, Mapping):
                for field in ("message", "delta", "content", "text"):
                    if isinstance(choice.get(field), Mapping | str):
                        return choice[field], _word(choice) or _word(response)
            raise ValueError("not a chat completion: no message in its first choice")
    # Ollama's own and Cohere's form; Anthropic's; that of OpenAI's Responses; Bedrock's, DashScope's.
    if isinstance(response.get("message"), Mapping):
        return response["message"], _word(response)
    if isinstance(response.get("content"), list) and _word(response):
        return response, _word(response)
    if isinstance(response.get("output"), list):
        return _responses_output(response["output"]), str(response.get("status") or "")
    for name in _WRAPS:
        if isinstance(response.get(name), Mapping | list) and depth < 2:
            message, word = _message(response[name], depth + 1)
            return message, word or _word(response)
    raise ValueError("not a chat completion: it holds no message")


def field_in(response: Any, *names: str) -> Any:
    """Return the value of the first of these fields that a response, or what it wraps, has; else None."""
    for _ in range(3):
        if isinstance(response, list) and len(response) == 1:
            response = response[0]
        if not isinstance(response, Mapping):
            return None
        found = next((response[name] for name in names if response.get(name)), None)
        if found is not None:
            return found
        wrapped = (response[name] for name in _WRAPS if isinstance(response.get(name), Mapping))
        response = next(wrapped, None)
    return None


_WRAPS = ("output", "data", "result", "response", "body")


def _responses_output(items: list[Any]) -> list[Any]:
    parts = [item.get("content", item) if _kind(item) == "message" else item for item in items]
    if not parts:
        raise ValueError("not a chat completion: its output is empty")
    return parts


def _word(part: Mapping[str, Any]) -> str:
    return next((str(part[name]) for name in _ENDED if part.get(name)), "")


def _kind(part: Any) -> str:
    return str(part.get("type") or "").lower() if isinstance(part, Mapping) else ""


class _Pieces:
    """Texts of a message in their order."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.thinking: list[str] = []
        self.refusal: list[str] = []


def _read_message(message: Mapping[str, Any], pieces: _Pieces) -> None:
    content = message.get("content", message.get("parts", message.get("text")))
    if isinstance(content, Mapping) and not _is_part(content):
        pieces.content.append(json.dumps(content, ensure_ascii=False))
    else:
        _gather(content, pieces)
    apart = _Pieces()
    for name in _CHAIN_FIELDS:
        if any(text.strip() for text in apart.thinking):
            break
        apart.thinking.clear()
        _gather(message.get(name), apart, thought=True)
    # Most that send it in parts send it again apart.
    if "".join(apart.thinking).strip() != "".join(pieces.thinking).strip():
        pieces.thinking += [text for text in apart.thinking if text]
    if isinstance(refusal := message.get("refusal"), str) and refusal:
        pieces.refusal.append(refusal)
    calls = [*_listed(message.get("tool_calls")), *_listed(message.get("function_call"))]
    for arguments in filter(None, map(_arguments, calls)):
        pieces.content.append(("\n" if any(pieces.content) else "") + arguments)
    if not "".join(pieces.content).strip() and message.get("parsed"):
        pieces.content.append(json.dumps(message["parsed"], ensure_ascii=False))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _is_part(content: Mapping[str, Any]) -> bool:
    return bool(_kind(content)) or content.keys() <= _PART_FIELDS


def _gather(part: Any, pieces: _Pieces, *, thought: bool = False) -> None:
    """Sort a part of a message, with all that is in it, into chain, content and refusal."""
    if isinstance(part, str):
        (pieces.thinking if thought else pieces.content).append(part)
    elif isinstance(part, list):
        for each in part:
            _gather(each, pieces, thought=thought)
    elif isinstance(part, Mapping):
        _gather_mapping(part, pieces, thought or part.get("thought") is True)


def _gather_mapping(part: Mapping[str, Any], pieces: _Pieces, thought: bool) -> None:
    kind = _kind(part)
    if "reasoningContent" in part:
        thought, part = True, {"content": part["reasoningContent"]}
    thought = thought or kind in _CHAIN_KINDS
    refusal = part.get("refusal")
    # Some servers send an empty one beside each text.
    if kind == "refusal" or (isinstance(refusal, str) and refusal):
        pieces.refusal.append(str(refusal or ""))
    elif kind in _TOOL_KINDS:
        pieces.content.append(_arguments(part))
    elif thought:
        names = ("thinking", "reasoning", "text", "reasoningText", "summary", "content")
        found = next((part[name] for name in names if part.get(name)), None)
        _gather(found, pieces, thought=True)
    elif _is_part(part) or not part:
        names = ("text", "value", "content", "parts", "json", "output_text")
        value = next((part[name] for name in names if part.get(name)), None)
        if isinstance(value, Mapping) and not _is_part(value):
            pieces.content.append(json.dumps(value, ensure_ascii=False))
        else:
            _gather(value, pieces)
    else:
        pieces.content.append(json.dumps(part, ensure_ascii=False))


def _arguments(call: Any) -> str:
    """Return the arguments of a tool call as text; they are the answer where output is structured by calls."""
    if not isinstance(call, Mapping):
        return ""
    inner = call.get("function") if isinstance(call.get("function"), Mapping) else call
    assert isinstance(inner, Mapping)
    given = next((inner[name] for name in ("arguments", "input", "args") if inner.get(name)), None)
    if isinstance(given, str):
        return given
    return "" if given is None else json.dumps(given, ensure_ascii=False)


# ---- chain and text apart


class Parts(NamedTuple):
    """An answer in its parts, free of control tokens and control characters.

    Attributes:
        chain: of thought; empty without.
        text: the answer proper; empty if the chain is `unclosed`.
        unclosed: the content begins a chain and never ends it.
    """

    chain: str
    text: str
    unclosed: bool = False


_NAMES = r"(?:\w+[:_])?(?:think|thinking|thought|thoughts|reasoning|scratchpad)"
# How models mark their chain: what opens it, and what closes it.
_MARKS = (
    (re.compile(rf"<({_NAMES})>", re.I), lambda match: rf"</{re.escape(match[1])}>"),
    (re.compile(r"\[THINK\]"), lambda _: r"\[/THINK\]"),
    (re.compile(r"◁think▷"), lambda _: r"◁/think▷"),
    (re.compile(r"<\|START_THINKING\|>"), lambda _: r"<\|END_THINKING\|>"),
    (re.compile(r"<\|begin_of_thought\|>"), lambda _: r"<\|end_of_thought\|>"),
    (re.compile(r"<\|inner_prefix\|>"), lambda _: r"<\|inner_suffix\|>"),
    (re.compile(r"<unused94>(?:thought\b)?"), lambda _: r"<unused95>"),
    (re.compile(r"<\|channel>(?:thought\b)?"), lambda _: r"<channel\|>"),
    (re.compile(r"Thinking\.\.\.\n"), lambda _: r"\.\.\.done thinking\."),
    (
        re.compile(r"(?:\*\*)?Here(?:['\N{RIGHT SINGLE QUOTATION MARK}]s| is) my thought process:?(?:\*\*)?", re.I),
        lambda _: r"(?:\*\*)?Here(?:['\N{RIGHT SINGLE QUOTATION MARK}]s| is) my (?:final )?(?:response|answer):?(?:\*\*)?",
    ),
)  # fmt: skip
# A phrase that may open a chain may open a sentence as well: without its end it is text.
_SPOKEN = ("T", "H", "h", "*")
# Some chat templates open the chain in the prompt, so that only its end is in the answer.
_END_MARKS = rf"</{_NAMES}>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>|<\|end_of_thought\|>"
_ENDS = re.compile(_END_MARKS, re.I)
_BOTH_ENDS = re.compile(
    rf"(?P<end>{_END_MARKS})|<{_NAMES}>|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|begin_of_thought\|>", re.I
)  # fmt: skip
# What is left without it is the same for a mark that opens and for the one that closes.
_OF_AN_END = re.compile(r"/|(?<=<\|)(?:start|end|begin)_(?:of_)?")
_QUOTES = "`'\"\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}"
_SENTENCE_ENDS = ".!?\N{HORIZONTAL ELLIPSIS}\N{IDEOGRAPHIC FULL STOP}"
_BRACKETS, _PUNCTUATION = "([{<", ",.;:!?)]}"
_OBJECT = re.compile(r'\{\s*"')
_ANSWER_FOLLOWS = re.compile(r"\s*(?:\{|<answer|```)")
_LINE_ENDS = re.compile(r"[ \t]*(?:[\n\r]|\Z)")
# Tokens of chat templates that a server failed to take out.
_MARKUP = (
    r"<\|(?!im_start|start_header_id)[\w/]{2,40}\|?>|<\N{FULLWIDTH VERTICAL LINE}[^>\s]{2,40}\N{FULLWIDTH VERTICAL LINE}>"
    r"|</?s>|<(?:end|start)_of_turn>(?:model\b)?|<(?:eos|bos|pad|unk)>|\[/?INST\]|<\|im_start\|>(?:assistant\b)?"
    r"|<\|start_header_id\|>\w*"
)
# A byte order mark, or a blank of no width, that some servers begin a text with.
_UNSEEN = re.compile(r"\A[\s\ufeff\u200b\u2060]+")
_FIRST_TOKENS = re.compile(rf"(?:\s*(?:{_MARKUP}))+\s*")
# From the beginning of a row of spaces alone: some models end with thousands, which would be looked at for each.
_LAST_TOKENS = re.compile(rf"(?<!\s)(?:\s*(?:{_MARKUP}))+\s*\Z")
# After the end of its turn a model may go on with a turn of its own invention.
_NEXT_TURN = re.compile(
    r"(?:<\|(?:im_end|eot_id|end|eot|endoftext)\|>|<end_of_turn>|</s>)\s*"
    r"(?:<\|(?:im_start|start_header_id|start|user|assistant|begin_of_text)\|>|<start_of_turn>|\[INST\]|<s>).*\Z",
    re.S,
)
_BOX = re.compile(r"<\|begin_of_box\|>((?:(?!<\|begin_of_box\|>).)*?)<\|end_of_box\|>", re.S)


def part(answer: Answer) -> Parts:
    """Part an answer into its chain of thought and its text.

    The chain is what was sent apart, or what stands between marks (`<think>`, ...) at the head of the
    content. Marks further down are text, since documents have them, too.
    """
    parted = part_text(answer.content)
    if answer.thinking is None or not answer.thinking.strip():
        return parted
    apart = trimmed(_without_marks(answer.thinking))
    if not answer.content.strip():
        # The server took all for the chain, the end of it included.
        inner = part_text(answer.thinking)
        if inner.chain and inner.text:
            return inner
    return Parts(apart or parted.chain, parted.text, parted.unclosed)


def part_text(content: str) -> Parts:
    """Part a content into its chain of thought and its text; see `part`.

    Example:
        >>> part_text("<think>Salt lowers it.</think>It melts.")
        Parts(chain='Salt lowers it.', text='It melts.', unclosed=False)
    """
    content = _UNSEEN.sub("", content)
    channels = _channels(content)
    if channels is not None:
        return channels
    body = _without_first_tokens(_NEXT_TURN.sub("", content)).lstrip()
    for opened, start in _openings(body):
        closing = re.compile(opened.closing, re.I)
        end = _end(body, start, opened.opening, closing)
        if end is not None:
            before, after = body[: opened.at], body[end.end() :]
            return Parts(trimmed(body[start : end.start()]), trimmed(f"{before}{after}"))
        if not opened.spoken:
            return Parts(trimmed(body[start:]), "", unclosed=True)
    end = _headless_end(body)
    if end is not None:
        return Parts(trimmed(body[: end.start()]), trimmed(body[end.end() :]))
    return Parts("", trimmed(body))


class _Opened(NamedTuple):
    at: int
    opening: re.Pattern[str]
    closing: str
    spoken: bool


def _openings(body: str) -> Iterator[tuple[_Opened, int]]:
    """Return the mark that opens a chain, with where the chain starts: at the head, or after a short line."""
    for opening, closing in _MARKS:
        match = opening.match(body)
        if match is None and not body.startswith(("{", "[", "`")):
            first, newline, _ = body.partition("\n")
            if newline and len(first) < 80 and "<answer" not in first.lower():
                match = opening.match(body, len(first) + 1)
        if match is not None:
            spoken = match[0].startswith(_SPOKEN)
            yield _Opened(match.start(), opening, closing(match), spoken), match.end()


def _end(
    body: str, start: int, opening: re.Pattern[str], closing: re.Pattern[str]
) -> re.Match[str] | None:
    """Return the mark that closes a chain: pairs that the chain itself quotes are part of it."""
    ends = [match for match in closing.finditer(body, start) if not _quoted(body, match)]
    openings = [m.start() for m in opening.finditer(body, start) if not _quoted(body, m)]
    for number, end in enumerate(ends, start=1):
        if bisect_left(openings, end.start()) < number:
            return end
    # One is opened in the chain and never closed: the first end on a line of its own, or the last.
    return next((end for end in ends if _ends_line(body, end)), ends[-1] if ends else None)


def _headless_end(body: str) -> re.Match[str] | None:
    """Return the mark that closes a chain which the prompt had opened."""
    if body.startswith(("{", "[", "```")):
        return None
    opened = set()
    found = _OBJECT.search(body)
    # In the strings of an object any mark may stand.
    first_object = found.start() if found else len(body)
    for mark in _BOTH_ENDS.finditer(body):
        name = _OF_AN_END.sub("", mark[0].lower())
        if not mark["end"]:
            opened.add(name)
        elif name not in opened and not _quoted(body, mark) and _parts(body, mark, first_object):
            return mark
    return None


def _parts(body: str, end: re.Match[str], first_object: int) -> bool:
    """Return whether an end that nothing opened stands as no sentence has it that speaks of it."""
    if not end.start() or _ends_line(body, end) or _ANSWER_FOLLOWS.match(body, end.end()):
        return True
    if end.start() > first_object:
        return False
    before, after = body[end.start() - 1], body[end.end()]
    if after.isspace():
        return before in _SENTENCE_ENDS
    return not before.isspace() and before not in _BRACKETS and after not in _PUNCTUATION


def _quoted(body: str, mark: re.Match[str]) -> bool:
    before, after = body[max(0, mark.start() - 1) : mark.start()], body[mark.end() : mark.end() + 1]
    return before != "" and before in _QUOTES and after != "" and after in _QUOTES


def _ends_line(body: str, mark: re.Match[str]) -> bool:
    at = mark.start()
    while at and body[at - 1] in " \t":
        at -= 1
    return body[at - 1 : at] == "\n" or _LINE_ENDS.match(body, mark.end()) is not None


# OpenAI's harmony format: <|channel|>analysis<|message|>...<|end|>. A server that drops the tokens
# and keeps their names gives "analysisWe need ...assistantfinalIt melts."
_HARMONY = re.compile(
    r"\s*(?:(?:<\|start\|>)?assistant\s*)?(?:<\|channel\|>|(?:analysis|commentary|final)<\|message\|>)"
)
_CHANNEL = re.compile(
    r"(?:<\|channel\|>|\A)\s*(?P<name>\w+)\b(?P<to>[^<]*)(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(?P<text>.*?)(?:<\|(?:end|return|call)\|>|(?=<\|(?:start|channel)\|>)|\Z)",
    re.S,
)
_BARE_HARMONY = re.compile(
    r"\A\s*analysis(?=[A-Z\"'\n*])(?P<chain>.*?)assistant\s?(?:commentary.*?assistant\s?)?final"
    r"(?P<text>.*)\Z",
    re.S,
)
_BARE_FINAL = re.compile(r"assistant\s?final")


def _channels(content: str) -> Parts | None:
    """Return the parts of an answer in channels; None for any other."""
    # Looked for first, since without it each commentary would be read to the end.
    bare = _BARE_HARMONY.match(content) if _BARE_FINAL.search(content) else None
    if bare is not None:
        return Parts(trimmed(bare["chain"]), trimmed(bare["text"]))
    if not _HARMONY.match(content):
        return None
    chain, final, calls = [], [], []
    for match in _CHANNEL.finditer(content):
        if match["name"] == "final":
            final.append(match["text"])
        elif "to=" in match["to"]:
            calls.append(match["text"])
        else:
            chain.append(match["text"])
    text = trimmed("\n".join(final or calls))
    return Parts(trimmed("\n".join(chain)), text, unclosed=not (final or calls))


def _without_marks(chain: str) -> str:
    """Return a chain that was sent apart without the marks that its server left at its ends."""
    chain = chain.strip()
    for opening, _ in _MARKS:
        match = opening.match(chain)
        if match is not None and not match[0].startswith(_SPOKEN):
            chain = chain[match.end() :]
    ends = list(_ENDS.finditer(chain))
    if ends and not chain[ends[-1].end() :].strip():
        chain = chain[: ends[-1].start()]
    return chain


def _without_first_tokens(content: str) -> str:
    match = _FIRST_TOKENS.match(content)
    if match is None or any(opening.match(match[0].lstrip()) for opening, _ in _MARKS):
        return content
    return content[match.end() :]


def trimmed(text: str) -> str:
    """Return a text without the control tokens at its ends, and without control characters."""
    text = _BOX.sub(r"\1", text)
    text = _LAST_TOKENS.sub("", _FIRST_TOKENS.sub("", text, count=1) if _FIRST_TOKENS.match(text) else text)  # fmt: skip
    return without_control_characters(text).strip()
