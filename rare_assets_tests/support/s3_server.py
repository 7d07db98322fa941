"""A real S3-compatible server on loopback, for everything that may lie in an object store."""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


@contextmanager
def running_s3() -> Iterator[str]:
    """Start a server of its own. Yields its URL."""
    server_module = pytest.importorskip(
        "moto.server", reason="pip install -e '.[test]' brings moto"
    )
    _say_less()
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@functools.cache
def _say_less() -> None:
    """Take off what moto does for each request anew: a third of the time that one takes."""
    from moto import backends

    services = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: services
    logging.getLogger("werkzeug").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def s3_endpoint():
    """URL of the server; it lives as long as the session."""
    with running_s3() as url:
        yield url


@pytest.fixture
def s3_bucket(s3_endpoint, monkeypatch):
    """URL of a fresh bucket (`s3://...`); fsspec and Polars find it by the environment alone."""
    import s3fs

    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"rare-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(endpoint_url=s3_endpoint).mkdir(bucket)
    yield f"s3://{bucket}"
    s3fs.S3FileSystem.clear_instance_cache()
