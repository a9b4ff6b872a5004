"""Listeners of the TOML file in a running proxy."""

from __future__ import annotations

import socket
from pathlib import Path

from edgeproxy.core.wire.proxy_protocol import encode_v1
from packages.proxy.tests.integration.proxies import Backend, StartProxy, greeting, row

FURTHER = """
proxy_protocol_trusted = "127.0.0.1/32"

[[listeners]]
address = "127.0.0.1:0"
app = "shop"
proxy_protocol = true
"""


def test_a_further_listener_serves_its_app_to_clients_behind_a_balancer(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    shop, blog = Backend("shop"), Backend("blog")
    settings = tmp_path / "edgeproxy.toml"
    settings.write_text(FURTHER)
    proxy = start_proxy(
        [row("shop", shop.port, app="shop"), row("blog", blog.port, app="blog")],
        config=settings,
        app="blog",
        access_log="all",
    )
    (started,) = proxy.log("listening")
    host, _, port = started["further"][0].rpartition(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(encode_v1("203.0.113.7", 4711, "198.51.100.1", 443))
        assert greeting(client) == "shop"
    assert proxy.backend_of("127.0.0.1") == "blog"
    sessions = proxy.wait_log("session", 2)
    assert {(each["client"], each["backend"]) for each in sessions} == {
        ("203.0.113.7", "shop"),
        ("127.0.0.1", "blog"),
    }
    shop.stop()
    blog.stop()
