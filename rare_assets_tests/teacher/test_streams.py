"""What a stream says is one answer, an error, or nothing whole."""

import json

import pytest

from rare_assets.teacher.wire import error_in, parse_json

END = "data: [DONE]\n\n"


def event(chunk, name=None):
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(chunk)}\n\n"


def piece(text, finish_reason=None):
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish_reason}]}


def said(stream):
    (choice,) = parse_json(stream.encode())["choices"]
    return choice["message"]["content"]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_only_line_ends_part_lines(mark):
    chunk = json.dumps(piece(f"a{mark}b", "stop"), ensure_ascii=False)
    assert mark in chunk
    assert said(f"data: {chunk}\n\n{END}") == f"a{mark}b"
    lines = (
        {"message": {"content": f"a{mark}"}},
        {"message": {"content": "b"}, "done_reason": "stop"},
    )
    assert said("\n".join(json.dumps(line, ensure_ascii=False) for line in lines)) == f"a{mark}b"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_end_as_the_standard_has_it(end):
    stream = event(piece("It ")) + event(piece("melts.", "stop")) + END
    assert said(stream.replace("\n", end)) == "It melts."


@pytest.mark.parametrize(
    "alive",
    [
        *("data:\n\n", "data: \n\n", ": still here\n\n", "data: {}\n\n"),
        *(event({"type": "ping"}), "event: ping\ndata: now\n\n", event({"usage": {"n": 1}})),
        *(event({"choices": []}), "\ufeff"),
    ],
)
def test_signs_of_life_are_no_part_of_the_answer(alive):
    assert said(alive + event(piece("It ")) + event(piece("melts.")) + END) == "It melts."


@pytest.mark.parametrize(
    "error",
    [
        {"object": "error", "message": "CUDA out of memory", "code": 500},
        {"error_code": 50001, "text": "NETWORK ERROR"},
        {"code": "InternalError", "message": "x"},
        {"type": "error", "message": "x"},
        {"choices": "none"},
    ],
)
def test_an_error_in_a_form_of_its_own_is_no_answer(error):
    for begun in ("", event(piece("half an ans"))):
        with pytest.raises(ValueError, match=r"a stream (without an answer|that broke off)"):
            parse_json((begun + event(error) + END).encode())
    # What is whole all the same stays.
    assert said(event(error) + event(piece("It melts.", "stop")) + END) == "It melts."


@pytest.mark.parametrize("error", [{"message": "upstream died"}, "upstream died", {"code": 500}])
def test_an_event_named_error_is_one(error):
    stream = event(piece("half an ans")) + event(error, "error") + END
    assert error_in(parse_json(stream.encode())) == error
