"""Addresses, headers and redirects, as an endpoint sees them."""

import json
import ssl
import subprocess
import sys
from types import SimpleNamespace

import pytest
import trustme
from pydantic import SecretStr

from rare_assets.teacher.connections import same_host_target
from rare_assets_tests.support.fake_endpoint import FakeEndpoint, Fault, Response
from rare_assets_tests.support.ports import free_port
from rare_assets_tests.teacher.test_online import asks, run

SECRET = "team-s3cret-0123456789"  # noqa: S105 (not a real one)


def test_a_query_goes_with_every_request_and_is_not_shown():
    with FakeEndpoint(shares={"bad_request": 1.0}) as endpoint:
        result = run(f"{endpoint.url}/chat/completions?api-version=1&code={SECRET} ", asks(12))
    assert {r.path for r in endpoint.requests} == {f"/v1/chat/completions?api-version=1&code={SECRET}"}  # fmt: skip
    assert SECRET not in str(result.error)


def test_headers_and_fields_of_the_settings_are_sent_and_the_headers_are_never_shown():
    said = Fault("status", text=f"400 header {SECRET} is unknown, and so is Bearer")
    settings = {
        "extra_headers": {"X-Team": SecretStr(SECRET), "Authorization": SecretStr(f"Basic {SECRET}")},
        "extra_body": {"top_p": 0.5, "chat_template_kwargs": {"enable_thinking": False}},
    }  # fmt: skip
    with FakeEndpoint() as endpoint:
        assert len(run(endpoint, asks(2), **settings).good) == 2
    for request in endpoint.requests:
        assert request.headers["x-team"] == SECRET
        assert request.headers["authorization"] == f"Basic {SECRET}"
        assert request.body["top_p"] == 0.5
        assert request.body["chat_template_kwargs"] == {"enable_thinking": False}
    with FakeEndpoint(shares={said: 1.0}) as endpoint:
        result = run(endpoint, asks(12), **settings)
    assert "is unknown" in str(result.error)
    assert SECRET not in str(result.error)
    assert all(SECRET not in str(outcome) for outcome in result.outcomes)


@pytest.mark.parametrize(
    "headers", [{"X Team": "a"}, {"X-Team": f"{SECRET}\n"}, {"X-Team": "sécret"}]
)
def test_a_header_that_can_not_be_sent_is_refused_without_its_value(headers):
    secrets = {name: SecretStr(value) for name, value in headers.items()}
    with pytest.raises(ValueError, match="RARE_EXTRA_HEADERS") as raised:
        run("http://127.0.0.1:1/v1", [], extra_headers=secrets)
    assert "cret" not in str(raised.value).replace("secrets", "")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_request_follows_a_redirect_of_its_own_host_as_it_was(status):
    with FakeEndpoint() as target, FakeEndpoint() as endpoint:

        async def moved(recorded):
            endpoint.requests.append(recorded)
            location = f"{target.url}/chat/completions"
            return Response(status, b"", {"Location": location})

        endpoint.route("POST", r"/v1/chat/completions", moved)
        result = run(endpoint, asks(3), api_key=SecretStr(SECRET), max_concurrency=1)
    assert len(result.good) == 3
    assert [r.method for r in target.requests] == ["POST"] * 3
    assert {r.headers["authorization"] for r in target.requests} == {f"Bearer {SECRET}"}
    # On a busy machine they may not arrive in one order.
    assert {r.raw for r in target.requests} == {r.raw for r in endpoint.requests}


def test_a_redirect_from_http_to_https_is_followed_with_key_and_prompt(tmp_path, monkeypatch):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with FakeEndpoint(tls=tls) as target, FakeEndpoint() as endpoint:

        async def moved(recorded):
            return Response(308, b"", {"Location": f"{target.url}/chat/completions"})

        endpoint.route("POST", r"/v1/chat/completions", moved)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        result = run(endpoint, asks(3), api_key=SecretStr(SECRET))
        sent = len(target.requests)
        # A certificate that nobody vouches for is an endpoint that can't be reached.
        monkeypatch.delenv("SSL_CERT_FILE")
        refused = run(endpoint, asks(3), api_key=SecretStr(SECRET))
    assert len(result.good) == 3
    assert {r.headers["authorization"] for r in target.requests} == {f"Bearer {SECRET}"}
    assert len(target.requests) == sent == 3
    assert "certificate" in str(refused.error).lower()


def test_the_certificate_authorities_are_read_once_for_all_connections(tmp_path, monkeypatch):
    read = ssl.SSLContext.load_verify_locations
    reads = []

    def counted(context, *files, **named):
        reads.append(context)
        read(context, *files, **named)

    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", counted)
    with FakeEndpoint(latency=0.5) as endpoint:
        assert len(run(endpoint, asks(80), max_concurrency=80).good) == 80
        assert endpoint.high_water > 64
    assert len(reads) == 1


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_certificate_authorities_that_can_not_be_read_are_named_before_anything_is_sent(
    tmp_path, monkeypatch, content
):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with FakeEndpoint() as endpoint:
        result = run(endpoint, asks(30))
    assert f"SSL_CERT_FILE={path}" in str(result.error)
    assert "or unset them" in str(result.error)
    assert result.outcomes == []
    assert endpoint.requests == []


@pytest.fixture
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_what_is_on_this_machine_is_asked_without_a_proxy(no_proxies, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with FakeEndpoint() as endpoint:
        assert len(run(endpoint, asks(2)).good) == 2


def test_a_proxy_that_can_not_be_reached_is_named_without_its_password(no_proxies, monkeypatch):
    port = free_port()
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{SECRET}@127.0.0.1:{port}")
    result = run("http://endpoint.invalid/v1", asks(2))
    assert f"by the proxy http://127.0.0.1:{port}, as HTTP_PROXY" in str(result.error)
    assert "has not been reachable" in str(result.error)
    assert SECRET not in str(result.error)


def test_a_proxy_that_asks_for_a_password_is_no_matter_of_the_api_key(no_proxies, monkeypatch):
    with FakeEndpoint() as proxy:

        async def refuse(_):
            return Response(407, b"Proxy Authentication Required", {})

        proxy.route("POST", r".*/chat/completions", refuse)
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        result = run("http://endpoint.invalid/v1", asks(2))
    assert "A proxy before it asks for a password" in str(result.error)
    assert "OPENAI_API_KEY" not in str(result.error)


@pytest.mark.parametrize("url", ["socks5://user:{}@h:1", "ftp://user:{}@h:1", "http://user:{}/@h"])
def test_a_proxy_that_can_not_be_used_is_named_at_once(no_proxies, monkeypatch, url):
    monkeypatch.setenv("HTTPS_PROXY", url.format(SECRET))
    result = run("https://endpoint.invalid/v1", asks(2))
    assert "the proxies (HTTPS_PROXY=" in str(result.error)
    assert "or unset them" in str(result.error)
    assert "s3cret" not in str(result.error)
    assert result.usage.requests == 2


def test_another_host_gets_neither_key_nor_prompt():
    with FakeEndpoint() as target, FakeEndpoint() as endpoint:

        async def moved(recorded):
            location = f"http://localhost:{target.port}/v1/chat/completions"
            return Response(307, b"", {"Location": location})

        endpoint.route("POST", r"/v1/chat/completions", moved)
        result = run(endpoint, asks(3), api_key=SecretStr(SECRET))
    assert target.requests == []
    assert f"it redirects to http://localhost:{target.port}/v1." in str(result.error)
    assert "Set OPENAI_BASE_URL to that address" in str(result.error)


def test_a_wait_is_read_from_milliseconds_and_from_the_body():
    for fault in (Fault("asks_to_wait", seconds=0.3), Fault("asks_to_wait", seconds=0.3, date=True)):  # fmt: skip
        with FakeEndpoint(script=[fault]) as endpoint:
            result = run(endpoint, asks(1))
        assert [o.reason for o in result.outcomes] == [None]
        first, second = endpoint.requests
        assert second.arrived - first.arrived >= 0.3


@pytest.mark.parametrize(
    "said",
    [
        "您的账户余额不足",
        "当前配额已用完",
        "残高が不足しています",
        "Ihr Guthaben ist aufgebraucht",
        "Votre quota est dépassé",
        "Saldo insuficiente",
        "크레딧이 부족합니다",
        "You have run out of credits",
        "Access denied, account is in arrears (Arrearage)",
    ],
)
def test_a_quota_ends_the_run_at_once_in_any_language(said):
    with FakeEndpoint(shares={Fault("throttled", text=said): 1.0}) as endpoint:
        result = run(endpoint, asks(50), max_concurrency=4)
    assert "no quota left" in str(result.error)
    assert said in str(result.error)
    assert len(endpoint.requests) <= 8


def test_a_page_in_place_of_an_answer_is_an_outage():
    with FakeEndpoint(shares={"not_json": 1.0}) as endpoint:
        result = run(endpoint, asks(3))
    assert "Welcome" in str(result.error)
    assert result.outcomes == []


def test_the_body_sent_is_what_json_says():
    with FakeEndpoint() as endpoint:
        run(endpoint, asks(1), extra_body={"stop": ["\u51b0"]})
    assert json.loads(endpoint.requests[0].raw)["stop"] == ["\u51b0"]


@pytest.mark.parametrize(
    ("asked", "location", "target"),
    [
        ("http://host/v1/x", "https://host/v1/x", "https://host/v1/x"),
        ("http://host/v1/x", "/v2/x", "http://host/v2/x"),
        ("https://host/v1/x", "https://host:8443/v1/x", "https://host:8443/v1/x"),
        ("https://host/v1/x", "http://host/v1/x", None),  # the key would be readable on its way
        ("http://host/v1/x", "https://other/v1/x", None),
        ("http://host/v1/x", "https://host.other/v1/x", None),
        ("http://host/v1/x", "file:///etc/passwd", None),
        ("http://host/v1/x", "", None),
    ],
)
def test_a_redirect_is_followed_to_the_same_host_if_it_is_no_less_safe(asked, location, target):
    request = SimpleNamespace(url=asked)
    response = SimpleNamespace(status_code=307, headers={"location": location})
    assert same_host_target(request, response) == target


# Prints the packages of which a module is imported only as it asks.
ASKS = """
import asyncio, sys
from rare_assets.teacher import AnswerStore, Ask, EndpointOptions, OpenAITeacher, import_client

async def main():
    endpoint = EndpointOptions(base_url=sys.argv[1])
    async with (
        AnswerStore(sys.argv[2]) as store,
        OpenAITeacher(model="fake", endpoint=endpoint, store=store) as teacher,
    ):
        ask = Ask("salt", [{"role": "user", "content": "Why does salt melt ice?"}])
        async for outcome in teacher.ask_all([ask], lambda ask, answer: answer.content):
            assert outcome.value is not None

import_client()
before = {*sys.modules}
asyncio.run(main())
print(*{name.partition(".")[0] for name in {*sys.modules} - before})
"""


def test_what_a_client_imports_can_be_imported_before(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with FakeEndpoint() as endpoint:
        command = [sys.executable, "-c", ASKS, endpoint.url, str(tmp_path)]
        asked = subprocess.run(command, capture_output=True, text=True, check=True)
        assert len(endpoint.requests) == 1
    clients = {"anyio", "h11", "httpcore", "httpcore2", "httpx", "httpx2", "openai"}
    assert "sqlite3" in asked.stdout.split()
    assert clients.isdisjoint(asked.stdout.split())
