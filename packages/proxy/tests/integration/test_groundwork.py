"""What is done before the control process is imported, and that it is given back."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.app import groundwork as module
from edgeproxy.app import run
from edgeproxy.app.control import App
from edgeproxy.app.entrances import Entrances
from edgeproxy.app.groundwork import Groundwork
from edgeproxy.config import Config, load
from edgeproxy.errors import EdgeproxyError
from packages.proxy.tests.integration.proxies import environment, row, write_rows

SLOW = ("asyncio", "sqlite3", "ssl", "maxminddb", "typing_extensions", "importlib.metadata")
"""None of this is needed to bind addresses and start workers."""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    write_rows(tmp_path / "routing.db", [row("one", 9)])
    settings: dict[str, object] = {
        "region": "eu",
        "workers": 1,
        "listen_addr": "127.0.0.1:0",
        "db_path": tmp_path / "routing.db",
        "admin_socket": tmp_path / "admin.sock",
    }
    return load(environment(settings), {}, None)


def is_free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, int(port)))
        except OSError:
            return False
    return True


def test_workers_start_before_anything_slow_is_imported() -> None:
    check = (
        "import sys; before = set(sys.modules)\n"  # coverage may have imported some
        "import edgeproxy.app, edgeproxy.cli.run\n"
        f"print(set({SLOW!r}) & set(sys.modules) - before)"
    )
    ended = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


def test_what_is_abandoned_leaves_neither_a_worker_nor_an_address(config: Config) -> None:
    groundwork = Groundwork(config)
    address = groundwork.entrances.address
    assert not is_free(address)
    groundwork.abandon()
    assert [worker.process.poll() is None for worker in groundwork.workers] == [False]
    assert is_free(address)


def test_a_worker_that_cannot_be_started_gives_the_address_back(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    def close_listeners(entrances: Entrances) -> None:
        closed.append(entrances.address)
        for listeners in entrances.listeners:
            listeners.close()

    monkeypatch.setattr(module, "WORKER_PROGRAM", ("/no/such/program",))
    monkeypatch.setattr(Entrances, "close_listeners", close_listeners)
    with pytest.raises(EdgeproxyError, match="cannot start a worker process"):
        Groundwork(config)
    assert [is_free(address) for address in closed] == [True]


def test_a_control_process_that_cannot_be_built_abandons_what_was_laid(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid: list[Groundwork] = []

    def fail(_app: App, groundwork: Groundwork, *_: object) -> None:
        laid.append(groundwork)
        raise EdgeproxyError("it cannot")

    monkeypatch.setattr(App, "__init__", fail)
    with pytest.raises(EdgeproxyError, match="it cannot"):
        run(config)
    assert [worker.process.poll() is None for worker in laid[0].workers] == [False]
    assert is_free(laid[0].entrances.address)
