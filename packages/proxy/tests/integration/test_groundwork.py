"""What is done before the control process is imported, and that it is given back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

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


def is_given_back(entrances: Entrances) -> bool:
    """Whether the addresses are. Not by binding them: by now they may be anybody's."""
    return {fd for each in entrances.listeners for fd in each.descriptors} == {-1}


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
    assert not is_given_back(groundwork.entrances)
    groundwork.abandon()
    assert [worker.process.poll() is None for worker in groundwork.workers] == [False]
    assert is_given_back(groundwork.entrances)


def no_segment(*_: object) -> int:
    raise EdgeproxyError("there is no memory")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("WORKER_PROGRAM", ("/no/such/program",), "cannot start a worker process"),
        ("create_segment", no_segment, "there is no memory"),
    ],
)
def test_what_cannot_be_laid_gives_the_address_back(
    config: Config, monkeypatch: pytest.MonkeyPatch, name: str, value: object, why: str
) -> None:
    opened: list[Entrances] = []

    def open_entrances(*arguments: Any) -> Entrances:
        opened.append(Entrances(*arguments))
        return opened[0]

    monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "Entrances", open_entrances)
    with pytest.raises(EdgeproxyError, match=why):
        Groundwork(config)
    assert is_given_back(opened[0])


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
    assert is_given_back(laid[0].entrances)
