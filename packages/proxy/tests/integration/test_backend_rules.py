"""Rules for backends in a running proxy."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

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
