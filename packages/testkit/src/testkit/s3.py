"""An S3 for tests: moto's server in a thread of this process, on a port of its own. Extra ``s3``.

Clients need three things, which :attr:`S3Server.client_options` has by the names that boto3 gives them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

try:
    from moto.server import ThreadedMotoServer
except ImportError as error:
    raise ImportError("testkit.s3 needs moto: install edgeproxy-testkit[s3]") from error

REGION = "us-east-1"


class S3Server:
    """A server that accepts every key."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._buckets = itertools.count()

    @property
    def client_options(self) -> Mapping[str, Any]:
        """For ``boto3.client("s3", **options)``."""
        return {
            "endpoint_url": self.url,
            "region_name": REGION,
            "aws_access_key_id": "testing",
            "aws_secret_access_key": "testing",
        }

    def new_bucket_name(self) -> str:
        """A name that no bucket here has."""
        return f"test-{os.getpid()}-{next(self._buckets)}"


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A running server; what it holds is gone with it."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()
