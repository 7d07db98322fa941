import pytest

from rare_assets.teacher.estimating import EstimatingTeacher
from rare_assets.teacher.store.folder import Folder
from rare_assets.teacher.window import window_in, window_of
from rare_assets_tests.support.fake_endpoint import FakeEndpoint, json_response
from rare_assets_tests.teacher.test_estimating import PRICES, collect
from rare_assets_tests.teacher.test_online import MODEL, MemoryAnswers, asks, of_size, run


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("This model's maximum context length is 8192 tokens. However, you requested 10240", 8192),
        ("This model's maximum context length is 16,385 tokens, you sent 20,000", 16_385),
        ("the request exceeds the available context size (4096 tokens), try increasing it", 4096),
        ("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000", 4096),
        ('{"n_prompt_tokens": 5000, "n_ctx": 4096}', 4096),
        ("prompt is too long: 215000 tokens > 200000 maximum", 200_000),
        ("The input token count exceeds the maximum", None),
        ("context length exceeded", None),
        ("maximum context length is 3 tokens", None),
    ],
)
def test_a_refusal_tells_the_window(text, window):
    assert window_in(text) == window


@pytest.mark.parametrize(
    ("entry", "window"),
    [
        ({"id": MODEL, "max_model_len": 8192}, 8192),  # vLLM, SGLang
        ({"id": MODEL, "meta": {"n_ctx": 4096, "n_ctx_train": 131_072}}, 4096),  # llama.cpp
        ({"id": MODEL, "context_length": 131_072}, 131_072),  # OpenRouter
        ({"id": MODEL, "context_window": 131_072}, 131_072),  # Groq
        ({"id": MODEL, "max_context_length": 32_768}, 32_768),  # Mistral, LM Studio
        ({"id": MODEL}, None),
        ({"id": MODEL, "context_length": "many"}, None),
    ],
)
def test_a_list_of_models_tells_the_window(entry, window):
    other = {"id": "other", "max_model_len": 1024}
    assert window_of({"object": "list", "data": [other, entry]}, MODEL) == window
    assert window_of([entry], "another name") == window
    assert window_of({"data": [other, entry]}, "unknown") is None
    for nothing in (None, {}, {"data": None}, [], "x"):
        assert window_of(nothing, MODEL) is None


def test_the_window_is_learnt_from_the_first_refusal_said_once_and_kept(tmp_path):
    memory, told = Folder(str(tmp_path)), []
    with FakeEndpoint(
        fault_for=lambda body: "too_long" if len(str(body["messages"])) > 9_000 else None
    ) as endpoint:
        wanted = [of_size(n, 10_000 if n % 2 else 100) for n in range(10)]
        result = run(endpoint, wanted, memory=memory, say=told.append, max_concurrency=1)
        assert sorted(o.reason or "" for o in result.outcomes) == [""] * 5 + ["context_length"] * 5
    assert len(told) == 1
    assert "takes 4,096 tokens at once" in told[0]
    assert "max_context_tokens of reasoning to 4096" in told[0]
    [kept] = tmp_path.glob("endpoint-*.json")
    assert '"window": 4096' in kept.read_text()


def test_the_window_is_read_from_the_list_of_models_once(tmp_path):
    memory, listed = Folder(str(tmp_path)), []
    with FakeEndpoint() as endpoint:

        async def models(recorded):
            listed.append(recorded)
            return json_response(200, {"data": [{"id": MODEL, "max_model_len": 8192}]})

        endpoint.route("GET", r"/v1/models", models)
        for _ in range(2):
            run(endpoint, asks(2), memory=memory)
    assert len(listed) == 1


def test_an_estimate_counts_what_does_not_fit():
    wanted = [of_size(0, 40_000, max_tokens=500), of_size(1, 100, max_tokens=500)]
    estimating = EstimatingTeacher(MODEL, MemoryAnswers(), PRICES, window=4096)
    collect(estimating, wanted)
    said = estimating.say_too_long()
    assert f"1 of 2 prompts do not fit the window of {MODEL}, 4,096 tokens" in said
    assert "the longest takes about 10,5" in said
    for window in (None, 20_000):
        fits = EstimatingTeacher(MODEL, MemoryAnswers(), PRICES, window=window)
        collect(fits, wanted)
        assert fits.say_too_long() is None
