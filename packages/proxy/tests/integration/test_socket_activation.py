"""The running proxy on sockets that a service manager opened."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from packages.proxy.tests.integration.proxies import (
    EDGEPROXY,
    Backend,
    Proxy,
    environment,
    greeting,
    row,
    write_rows,
)
from packages.proxy.tests.integration.service_managers import passing
from testkit.process import Process, ProcessFactory
from testkit.wait import wait_until

StartBackend = Callable[[str], Backend]
NewClient = Callable[[], str]


class Activated:
    """Starts proxies with the same sockets, again and again."""

    def __init__(self, factory: ProcessFactory, folder: Path) -> None:
        self._factory = factory
        self._folder = folder
        self._db_path = folder / "routing.db"

    def start(self, sockets: list[tuple[str, socket.socket]], **settings: object) -> Process:
        chosen: dict[str, Any] = {
            "listen_addr": "127.0.0.1:0",
            "region": "eu",
            "workers": 1,
            "db_path": self._db_path,
            "log_format": "json",
            **settings,
        }
        return self._factory(
            passing(sockets, [*EDGEPROXY, "run"]),
            env=environment(chosen),
            cwd=self._folder,
            name="edgeproxy",
            pass_fds=[sock.fileno() for _, sock in sockets],
        )

    def serving(self, sockets: list[tuple[str, socket.socket]], **settings: object) -> Proxy:
        process = self.start(sockets, **settings)
        found = process.wait_output(r'listening.*?"address": "([^"]+)"', timeout_s=20)
        return Proxy(process, self._db_path, Path(f"{self._db_path}.sock"), found[1])


# What starts by way of another program is no fork, and takes a second to import what it needs while measured:
# tests that reach no line which others do not reach are unmeasured.


@pytest.fixture
def activated(process_factory: ProcessFactory, tmp_path: Path, start_backend: StartBackend) -> Activated:
    write_rows(tmp_path / "routing.db", [row(name, start_backend(name).port) for name in ("one", "two")])
    return Activated(process_factory, tmp_path)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as opened:
        yield opened


@pytest.mark.feature("process.activation")
def test_workers_share_one_socket_and_say_so(
    activated: Activated, sock: socket.socket, new_client: NewClient
) -> None:
    proxy = activated.serving([("main", sock)], workers=2)
    assert proxy.port == sock.getsockname()[1]
    (line,) = proxy.wait_log("workers share listening sockets")
    assert (line["address"], line["sockets"], line["workers"]) == (proxy.address, 1, 2)
    with ExitStack() as clients:
        for _ in range(30):
            assert greeting(clients.enter_context(proxy.connect(new_client())))
    assert proxy.process.running


@pytest.mark.usefixtures("unmeasured")
def test_clients_wait_while_the_proxy_restarts(
    activated: Activated, sock: socket.socket, new_client: NewClient
) -> None:
    first = activated.serving([("main", sock)])
    first.process.terminate()
    with closing(first.connect(new_client())) as early:
        second = activated.serving([("main", sock)])
        assert second.port == first.port
        assert greeting(early)


def test_a_socket_for_each_worker_and_an_upgrade_that_keeps_them(
    activated: Activated, new_client: NewClient
) -> None:
    with ExitStack() as opened:
        sockets: list[tuple[str, socket.socket]] = []
        for _ in range(2):
            sock = opened.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(sockets[0][1].getsockname() if sockets else ("127.0.0.1", 0))
            sock.listen(64)
            # Found by its address: systemd calls a socket like its unit when it is given no name.
            sockets.append(("edgeproxy.socket", sock))
        port = sockets[0][1].getsockname()[1]
        proxy = activated.serving(sockets, workers=2, listen_addr=f"127.0.0.1:{port}")
        assert proxy.log("workers share listening sockets") == []
        proxy.process.kill(signal.SIGUSR2)
        (upgraded,) = proxy.wait_log("upgraded", timeout_s=20)
        assert proxy.process.wait_exit() == 0
        for _ in range(10):
            assert proxy.backend_of(new_client())
        os.kill(upgraded["successor"], signal.SIGTERM)
        wait_until(lambda: proxy.process.group() == [], reason="the successor to end")


def test_an_upgrade_to_more_workers_than_sockets_shares_them(
    activated: Activated, sock: socket.socket, new_client: NewClient, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("workers = 1\n")
    proxy = activated.serving([("main", sock)], workers=None, config=settings)
    settings.write_text("workers = 2\n")
    successor = proxy.ask("upgrade")["pid"]
    proxy.wait_log("workers share listening sockets")
    assert proxy.process.wait_exit() == 0
    assert proxy.backend_of(new_client())
    os.kill(successor, signal.SIGTERM)
    wait_until(lambda: proxy.process.group() == [], reason="the successor to end")


def test_a_socket_that_belongs_to_no_listener_ends_the_start(
    activated: Activated, sock: socket.socket
) -> None:
    process = activated.start([("web", sock)])
    assert process.wait_exit() == 5
    port = sock.getsockname()[1]
    assert f"the service manager listens on 127.0.0.1:{port} (called 'web'), where no listener" in process.log
    assert not process.group()


def test_a_second_proxy_on_the_same_socket_is_refused(activated: Activated, sock: socket.socket) -> None:
    activated.serving([("main", sock)])
    second = activated.start([("main", sock)], admin_socket="second.sock")
    assert second.wait_exit() == 5
    assert "another process has the port" in second.log
