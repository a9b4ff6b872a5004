"""Caps, the queue and warm connections of a running proxy, with two workers, as its users see them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from edgeproxy.__main__ import main
from packages.proxy.tests.integration.proxies import Backend, Proxy, StartProxy, greeting, row
from testkit.wait import wait_until


@pytest.fixture(scope="module")
def backend(start_backend: Callable[[str], Backend]) -> Backend:
    return start_backend("one")


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    """Connections that are entered here end with the test."""
    with ExitStack() as stack:
        yield stack


def come(proxy: Proxy, clients: ExitStack, source: str = "127.0.0.1") -> socket.socket:
    return clients.enter_context(proxy.connect(source))


def closes(proxy: Proxy, reason: str) -> int:
    count: int = proxy.stats()["closes"].get(reason, 0)
    return count


Shown = Callable[..., str]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shown:
    """What a command prints of a proxy, run in this process."""

    def run(proxy: Proxy, *arguments: str) -> str:
        monkeypatch.setenv("EDGEPROXY_ADMIN_SOCKET", str(proxy.admin_path))
        monkeypatch.setenv("EDGEPROXY_DB_PATH", str(proxy.db_path))
        monkeypatch.setattr(sys, "argv", ["edgeproxy", *arguments])
        with contextlib.suppress(SystemExit):
            main()
        return capsys.readouterr().out

    return run


def backend_view(proxy: Proxy) -> dict[str, Any]:
    (view,) = proxy.ask("overview")["backends"]
    assert isinstance(view, dict)
    return view


def test_caps_hold_are_shown_and_outlive_a_worker(
    start_proxy: StartProxy, backend: Backend, clients: ExitStack, shown: Shown
) -> None:
    proxy = start_proxy(
        [row("one", backend.port)], workers=2, max_connections=8, max_connections_per_client=5
    )
    mine = [come(proxy, clients, "127.0.0.2") for _ in range(5)]
    assert [greeting(client) for client in mine] == ["one"] * 5
    assert proxy.backend_of("127.0.0.2") == ""
    assert [greeting(come(proxy, clients, "127.0.0.3")) for _ in range(3)] == ["one"] * 3
    assert proxy.backend_of("127.0.0.4") == ""

    explanation = proxy.ask("explain", client="127.0.0.2")
    assert explanation["decision"] == "No backend: the client has 5 connections, and may have no more"
    assert explanation["all_connections"] == {"open": 8, "most": 8}
    explanation = proxy.ask("explain", client="127.0.0.4")
    assert explanation["decision"] == "No backend: clients have 8 connections, and may have no more"
    assert proxy.stats()["caps"] == {
        "connections": 8,
        "max_connections": 8,
        "max_connections_per_client": 5,
    }
    lines = shown(proxy, "explain", "--client", "127.0.0.2").splitlines()
    assert lines[3:5] == [
        "Cap      5 of 5 connections of this client",
        "Cap      8 of 8 connections of all clients",
    ]
    assert "8 of 8 may be open, 5 of one client" in shown(proxy, "ctl", "show", "stats")
    wait_until(lambda: closes(proxy, "max_connections_per_client") == 1, reason="the refusal of one")
    wait_until(lambda: closes(proxy, "max_connections") == 1, reason="the refusal of another")

    for pid in proxy.stats()["workers"]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: proxy.stats()["caps"]["connections"] == 0, reason="the places to be given back")
    wait_until(lambda: len(proxy.stats()["workers"]) == 2, reason="new workers")
    assert [greeting(come(proxy, clients, "127.0.0.2")) for _ in range(5)] == ["one"] * 5
    assert proxy.backend_of("127.0.0.2") == ""


def test_an_upgrade_hands_the_counts_over(
    start_proxy: StartProxy, backend: Backend, clients: ExitStack
) -> None:
    proxy = start_proxy([row("one", backend.port)], max_connections=2)
    assert greeting(come(proxy, clients)) == "one"
    predecessor = proxy.stats()["pid"]
    answer = proxy.ask("upgrade")
    assert answer["predecessor"] == predecessor
    assert greeting(come(proxy, clients)) == "one"
    assert proxy.backend_of("127.0.0.1") == ""
    os.kill(answer["pid"], signal.SIGTERM)


def test_who_waits_is_counted_explained_and_served(
    start_proxy: StartProxy, backend: Backend, clients: ExitStack, shown: Shown
) -> None:
    proxy = start_proxy(
        [row("one", backend.port, hard_limit=1)], workers=2, queue_length=2, queue_timeout_secs=60
    )
    first = come(proxy, clients)
    assert greeting(first) == "one"
    waiting: list[socket.socket] = []
    for _ in range(2):
        waiting.append(come(proxy, clients))
        wait_until(lambda: proxy.stats()["queue"]["waiting"] == len(waiting), reason="it to wait")
    assert proxy.backend_of("127.0.0.1") == ""
    explanation = proxy.ask("explain", client="127.0.0.9")
    assert explanation["decision"] == (
        "No backend: the connection is reset, because 2 wait already, and no more may"
    )
    assert "Queue    2 of 2 clients wait" in shown(proxy, "explain", "--client", "127.0.0.9")
    assert "2 of 2 wait" in shown(proxy, "ctl", "show", "stats")
    first.close()
    while waiting:  # they may have come too close to each other for an order between workers
        (client, *_), _, _ = select.select(waiting, [], [], 10)
        assert greeting(client) == "one"
        waiting.remove(client)
        client.close()
    wait_until(lambda: sum(proxy.stats()["queue"]["waits"]["counts"]) == 2, reason="both waits to be told")
    assert "2 were served after" in shown(proxy, "ctl", "show", "stats")
    overview = proxy.ask("overview")
    assert (overview["waiting"], overview["queue_limit"]) == (0, 2)
    wait_until(lambda: closes(proxy, "queue_full") == 1, reason="the refusal")


def test_warm_connections_are_kept_shown_used_and_dropped_with_the_switch(
    start_proxy: StartProxy, backend: Backend, clients: ExitStack, tmp_path: Any
) -> None:
    settings = tmp_path / "edgeproxy.toml"
    settings.write_text("pool_enabled = true\npool_max_per_backend = 3\n")
    proxy = start_proxy([row("one", backend.port)], workers=2, config=settings)
    assert greeting(come(proxy, clients)) == "one"
    wait_until(lambda: backend_view(proxy)["warm"] > 0, reason="warm connections")

    def is_used() -> bool:
        assert greeting(come(proxy, clients)) == "one"
        return bool(backend_view(proxy)["connects"]["from_warm"] > 0)

    wait_until(is_used, reason="one to be used")
    view = backend_view(proxy)
    assert view["warm"] <= 3
    assert view["connections"] < len(backend.connections)
    settings.write_text("pool_enabled = false\n")
    assert proxy.ask("reload")["changed"]["pool_enabled"] == ["true", "false"]
    wait_until(lambda: backend_view(proxy)["warm"] == 0, reason="them to be dropped")
