"""The timeouts of open connections in a running proxy."""

from __future__ import annotations

import pytest

from packages.proxy.tests.integration.proxies import Backend, StartProxy, greeting, row


@pytest.mark.parametrize(
    ("setting", "half_closes"),
    [("idle_timeout", False), ("half_close_timeout", True), ("max_age", False)],
)
def test_a_setting_ends_connections(start_proxy: StartProxy, setting: str, half_closes: bool) -> None:
    backend = Backend("web")
    proxy = start_proxy([row("web", backend.port)], access_log="all", **{f"{setting}_secs": "0.3"})
    with proxy.connect() as client:
        assert greeting(client) == "web"
        if half_closes:
            # This backend ends when its client does; one that does not is what the limit is for.
            backend.connections[0].shutdown(1)
            assert client.recv(1) == b""
            assert proxy.wait_log("session")[0]["reason"] == setting
        else:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    (session,) = proxy.wait_log("session")
    assert session["reason"] == setting
    assert session["duration_s"] >= 0.3
    backend.stop()
