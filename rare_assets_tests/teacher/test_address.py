import pytest

from rare_assets.teacher.address import Address, address_of


@pytest.mark.parametrize(
    ("given", "base_url", "query"),
    [
        ("https://host/v1", "https://host/v1", {}),
        (" https://host/v1/ \n", "https://host/v1/", {}),
        ('"https://host/v1"', "https://host/v1", {}),
        ("\N{ZERO WIDTH NO-BREAK SPACE}https://host/v1\N{NO-BREAK SPACE}", "https://host/v1", {}),
        ("https://host/v1/chat/completions", "https://host/v1", {}),
        ("https://host/v1/chat/completions/", "https://host/v1", {}),
        ("https://host/v1/models", "https://host/v1", {}),
        ("https://host/v1/responses", "https://host/v1", {}),
        (
            "https://x.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
            "https://x.openai.azure.com/openai/deployments/gpt",
            {"api-version": "2024-10-21"},
        ),
        ("https://host/v1?key=a%20b&flag=", "https://host/v1", {"key": "a b", "flag": ""}),
        ("HTTPS://host/v1#part", "https://host/v1", {}),
    ],
)
def test_what_people_paste_is_understood(given, base_url, query):
    assert address_of(given) == Address(base_url, query)


@pytest.mark.parametrize("given", ["", "host/v1", "ftp://host", "https://", "https://host:port/v1"])
def test_what_is_no_address_is_refused(given):
    with pytest.raises(ValueError, match="OPENAI_BASE_URL is"):
        address_of(given)


def test_azure_is_known_by_its_host():
    assert address_of("https://x.openai.azure.com/openai/v1").is_azure
    assert not address_of("https://openai.azure.com.example.org/v1").is_azure


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *(("localhost:11434", True), ("127.0.0.1:8000", True), ("127.1.2.3", True)),
        *(("[::1]:8000", True), ("models.localhost", True), ("LOCALHOST", True)),
        *(("localhost.example.com", False), ("10.0.0.1", False), ("host", False)),
    ],
)
def test_what_is_on_this_machine_has_no_proxy(monkeypatch, host, here):
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://user:password@proxy:3128")
    address = address_of(f"http://{host}/v1")
    assert address.is_loopback == here
    assert address.proxy == (None if here else "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "host,10.0.0.1,.example.com")
    assert address.proxy is None
