"""Rules for backends in a running proxy."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from mock_backend.threaded import ThreadedMockBackend
from packages.proxy.tests.integration.proxies import Backend, StartProxy, row

RULES = """
[[backend_rules]]
match = "web-*"
proxy_protocol = "v1"
"""


@pytest.mark.feature("proxy_protocol.out")
def test_a_backend_is_told_who_the_client_is(start_proxy: StartProxy, tmp_path: Path) -> None:
    backend = Backend("web")
    settings = tmp_path / "edgeproxy.toml"
    settings.write_text(RULES)
    proxy = start_proxy([row("web-1", backend.port)], config=settings)
    with proxy.connect("127.0.0.9") as client:
        line = f"PROXY TCP4 127.0.0.9 127.0.0.1 {client.getsockname()[1]} {proxy.port}\r\n".encode()
        client.shutdown(socket.SHUT_WR)
        # This backend greets, and then says again what it hears.
        assert client.makefile("rb").read() == b"web\n" + line
    backend.stop()


@pytest.mark.feature("proxy_protocol.out")
def test_a_reader_that_is_not_ours_understands_the_header(
    start_proxy: StartProxy, tmp_path: Path, mock_backend_factory: Callable[..., ThreadedMockBackend]
) -> None:
    backend = mock_backend_factory(proxy_protocol=True)
    settings = tmp_path / "edgeproxy.toml"
    settings.write_text(RULES.replace("v1", "v2"))
    proxy = start_proxy([row("web-1", backend.port)], config=settings)
    with proxy.connect("127.0.0.9") as client:
        source, destination = client.getsockname(), client.getpeername()
        client.sendall(b"GET /connection HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        told = json.loads(client.makefile("rb").read().partition(b"\r\n\r\n")[2])
    assert told["proxy"]["version"] == 2
    assert (tuple(told["proxy"]["source"]), tuple(told["proxy"]["destination"])) == (source, destination)
    assert backend.driver.status()["clients"] == {"127.0.0.9": 1}
