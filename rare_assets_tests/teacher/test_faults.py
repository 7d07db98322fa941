import pytest

from rare_assets.teacher.faults import Kind, body_fault, response_fault, status_fault


@pytest.mark.parametrize(
    ("status", "text", "kind", "reason"),
    [
        (429, "Rate limit reached", Kind.THROTTLED, "rate_limited"),
        (503, "", Kind.THROTTLED, "rate_limited"),
        (429, "You exceeded your current quota (insufficient_quota)", Kind.FATAL, "quota"),
        (429, "You exceeded your current quota per minute", Kind.THROTTLED, "rate_limited"),
        (429, "Request too large for gpt-4 on tokens per min", Kind.REFUSED, "context_length"),
        (402, "Insufficient balance", Kind.FATAL, "quota"),
        (401, "", Kind.FATAL, "unauthorized"),
        (403, "Country not supported", Kind.REFUSED, "refused_by_endpoint"),
        (403, "Input was flagged by moderation", Kind.REFUSED, "content_filter"),
        (404, "The model `x` does not exist", Kind.REFUSED, "not_found"),
        (404, "Not Found", Kind.REFUSED, "not_found"),
        (400, "maximum context length is 4096 tokens", Kind.REFUSED, "context_length"),
        (413, "", Kind.REFUSED, "context_length"),
        (400, "(content_filter)", Kind.REFUSED, "content_filter"),
        (400, "messages: wrong role", Kind.REFUSED, "refused_by_endpoint"),
        (422, "messages: wrong role", Kind.REFUSED, "refused_by_endpoint"),
        (408, "", Kind.TRANSIENT, "server_error"),
        (409, "", Kind.TRANSIENT, "server_error"),
        (500, "", Kind.TRANSIENT, "server_error"),
        (502, "", Kind.TRANSIENT, "server_error"),
        (504, "", Kind.TRANSIENT, "server_error"),
        (529, "overloaded", Kind.THROTTLED, "rate_limited"),
        (400, "`inputs` tokens + `max_new_tokens` must be <= 4096", Kind.REFUSED, "context_length"),
        (500, "the request exceeds the available context size", Kind.REFUSED, "context_length"),
        (429, "request tokens have exceeded your rate limit", Kind.THROTTLED, "rate_limited"),
        # Bedrock's, of a rate and of a prompt.
        (429, "Too many tokens, please wait before trying again.", Kind.THROTTLED, "rate_limited"),
        (400, "Too many input tokens", Kind.REFUSED, "context_length"),
        (500, "Too many tokens", Kind.REFUSED, "context_length"),
    ],
)
def test_a_status_means(status, text, kind, reason):
    fault = status_fault(status, text, retry_after=3.0)
    assert (fault.kind, fault.reason, fault.retry_after) == (kind, reason, 3.0)
    assert str(fault) == f"HTTP {status}: {text}"


@pytest.mark.parametrize(
    ("text", "wait", "reason"),
    [
        ("You exceeded your current quota, please check your plan and billing details", None, "quota"),
        # Gemini says so of a rate per minute, too, and then how long to wait; but not of a day's.
        ("You exceeded your current quota, please check your plan and billing details", 34.0, "rate_limited"),
        ("You exceeded your current quota (quotaId GenerateRequestsPerDayPerProject)", 34.0, "quota"),
        ("Rate limit reached for requests per minute", None, "rate_limited"),
        ("Too many requests", None, "rate_limited"),
        ("Your balance is too low: insufficient balance", None, "quota"),
        ("\u8bf7\u6c42\u8fc7\u4e8e\u9891\u7e41", None, "rate_limited"),
        ("Zu viele Anfragen", None, "rate_limited"),
        ("Quota per minute exceeded", 2.0, "rate_limited"),
        # Google's, Vertex's and Azure's words for a rate; and those for a day's quota.
        ("Quota exceeded for quota metric 'Generate Content API requests per minute'", None, "rate_limited"),
        ("Quota exceeded: aiplatform.googleapis.com/online_prediction_requests_per_base_model", None, "rate_limited"),
        ("You have exceeded your current quota of 90K TPM", None, "rate_limited"),
        ("Quota exceeded for 'requests per day', at most 15 requests per minute", None, "quota"),
        ("Rate limit reached. Add a payment method at https://x.example/account/billing", None, "rate_limited"),
        ("Your account is not active, check your billing details", None, "quota"),
    ],
)  # fmt: skip
def test_an_account_without_quota_is_told_from_a_rate(text, wait, reason):
    assert status_fault(429, text, wait).reason == reason


@pytest.mark.parametrize(
    ("body", "wait"),
    [
        ([{"error": {"details": [{"retryDelay": "34s"}]}}], 34.0),
        ({"error": {"details": [{"retryDelay": "1.5s"}]}}, 1.5),
        ({"error": {"details": [{"retryDelay": {"seconds": 7}}]}}, 7.0),
        ({"retry_after": 3}, 3.0),
        ({"retry_after_ms": 250}, 0.25),
        ({"error": {"message": "Please try again in 7.66s. Visit"}}, 7.66),
        ({"error": {"message": "Please try again in 1m2.5s."}}, 62.5),
        ({"error": {"message": "Please try again in 430ms"}}, 0.43),
        ({"error": {"message": "Slow down"}}, None),
        (None, None),
    ],
)
def test_a_wait_is_read_from_the_body(body, wait):
    assert response_fault(429, body, str).retry_after == wait


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ({"error": {"message": "slow down", "code": 429}}, Kind.THROTTLED, "slow down"),
        ({"error": {"message": "upstream", "code": 502}}, Kind.TRANSIENT, "upstream"),
        ({"error": "wrong"}, Kind.TRANSIENT, "wrong"),
        ({"error": {"message": "upstream", "code": "503"}}, Kind.THROTTLED, "upstream"),
        ({"choices": [{"error": {"message": "cut", "code": 502}}]}, Kind.TRANSIENT, "cut"),
        ({"choices": [{"error": {"message": "no", "status": 403}}]}, Kind.REFUSED, "no"),
        ({"choices": []}, Kind.TRANSIENT, "not a chat completion"),
        (None, Kind.TRANSIENT, "not a chat completion"),
        ({"error": {"message": "no", "code": "x" * 9}}, Kind.TRANSIENT, "xxxxxxxxx"),
    ],
)
def test_a_body_that_is_no_completion_means(body, kind, says):
    fault = body_fault(body, lambda text: text)
    assert fault.kind is kind
    assert says in str(fault)


def test_the_key_is_taken_out_before_a_long_message_is_cut():
    secret = "sk-0123456789"  # noqa: S105 (not a real one)
    message = "x" * 595 + secret
    fault = body_fault({"error": {"message": message}}, lambda text: text.replace(secret, "***"))
    assert "sk-" not in str(fault)
