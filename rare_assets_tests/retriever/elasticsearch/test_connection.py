"""Which server is meant and what answers there, without a node: other products' answers as they give them."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rare_assets.retriever import ElasticsearchError, ElasticsearchRetriever
from rare_assets.retriever.elasticsearch.address import is_cloud_id, url_of_cloud_id

SECRET = "p4ss"  # noqa: S105
OLDER = {
    "error": {
        "root_cause": [
            {
                "type": "media_type_header_exception",
                "reason": "Invalid media-type value on headers [Accept, Content-Type]",
            }
        ],
        "type": "media_type_header_exception",
        "reason": "Invalid media-type value on headers [Accept, Content-Type]",
    },
    "status": 400,
}
NO_ROOT = {"error": "Incorrect HTTP method for uri [/] and method [GET]", "status": 405}


def root(number, **version):
    return {"name": "n", "version": {"number": number, **version}, "tagline": "..."}


# What answers: GET / (status, body), all else (status, body), what a user is told.
ANSWERS = {
    "OpenSearch": (
        (200, root("2.19.0", distribution="opensearch")),
        (200, {}),
        "is OpenSearch 2.19.0, which is not supported",
    ),
    "Elasticsearch 8": (
        (200, root("8.19.0", build_flavor="default")),
        (400, OLDER),
        "is Elasticsearch 8.19.0, and version 9 or a serverless project is needed: upgrade it",
    ),
    "Elasticsearch 8 that does not say its version": (
        (405, NO_ROOT),
        (400, OLDER),
        "is no Elasticsearch, or an older one, and version 9",
    ),
    "another JSON API": ((200, {"hello": "world"}), (200, {}), "is no Elasticsearch, or an older"),
}


@pytest.fixture
def server():
    """A server that answers as it is told, and keeps the authorization it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            seen.append(self.headers.get("Authorization"))
            length = int(self.headers.get("Content-Length", 0))
            self.rfile.read(length)
            status, body = answers["/" if self.path == "/" else "*"]
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815

        def log_message(self, *_):
            pass

    answers, seen = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers, seen
    server.shutdown()


@pytest.mark.parametrize("product", ANSWERS)
def test_another_product_is_named_in_one_sentence_with_what_to_do(server, product):
    url, answers, seen = server
    answers["/"], answers["*"], said = ANSWERS[product]
    retriever = ElasticsearchRetriever(url, "x", username="me", password=SECRET, wait_seconds=1)
    with pytest.raises(ElasticsearchError) as refused:
        retriever.state()
    message = str(refused.value)
    assert said in message
    assert url in message
    assert "unset ELASTICSEARCH_URL" in message
    assert SECRET not in message
    token = base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert set(seen) == {f"Basic {token}"}


def cloud_id(*parts):
    return f"my-deployment:{base64.b64encode('$'.join(parts).encode()).decode()}"


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        (("eu-1.aws.found.io", "abc123", "def456"), "https://abc123.eu-1.aws.found.io:443"),
        (("eu-1.aws.found.io:9243", "abc123", ""), "https://abc123.eu-1.aws.found.io:9243"),
        (("eu-1.aws.found.io", "abc123"), "https://abc123.eu-1.aws.found.io:443"),
    ],
)
def test_a_cloud_id_names_its_url(parts, url):
    assert is_cloud_id(cloud_id(*parts))
    assert url_of_cloud_id(cloud_id(*parts)) == url
    assert url in repr(ElasticsearchRetriever(cloud_id(*parts)))


@pytest.mark.parametrize(
    "setting",
    ["localhost:9200", "host", "http://host:9200", "https://me:pw@host:9243", "a:b", "", "x:aGk="],
)
def test_what_is_no_cloud_id_is_not_taken_for_one(setting):
    assert not is_cloud_id(setting)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://search.example.com", "https://search.example.com:443"),
        ("https://search.example.com/es", "https://search.example.com:443/es"),
        ("https://a.example.com,https://b:9243", "https://a.example.com:443,https://b:9243"),
        ("https://[::1]", "https://[::1]:443"),
    ],
)
def test_an_https_url_without_a_port_has_its_own(given, used):
    assert repr(used) in repr(ElasticsearchRetriever(given))


def test_an_http_url_without_a_port_is_refused_since_two_are_usual():
    with pytest.raises(ValueError, match="http\\(s\\)://host:port"):
        ElasticsearchRetriever("http://search.example.com")
