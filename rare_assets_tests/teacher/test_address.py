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
