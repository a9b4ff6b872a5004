"""One proxy succeeds another: nobody is refused, nothing is forgotten, nobody is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edgeproxy.errors import EdgeproxyError
from packages.proxy.tests.integration.proxies import (
    EDGEPROXY,
    Backend,
    Proxy,
    StartProxy,
    environment,
    greeting,
    row,
)
from testkit.wait import wait_until

StartBackend = Callable[[str], Backend]
NewClient = Callable[[], str]


@pytest.fixture(scope="module")
def rows(start_backend: StartBackend) -> list[dict[str, object]]:
    return [row(name, start_backend(name).port) for name in ("one", "two", "three")]


@pytest.fixture
def open_clients() -> Iterator[ExitStack]:
    with ExitStack() as clients:
        yield clients


def upgrade(proxy: Proxy) -> dict[str, int]:
    """Upgrade over the admin socket, as `edgeproxy upgrade` does, and return the answer."""
    from edgeproxy.admin_client import AdminClient

    client = AdminClient.connect(proxy.admin_path)
    assert client is not None
    with client:
        client.wait_up_to(60)
        answer: dict[str, int] = client.ask("upgrade")
    return answer


def echoes(client: socket.socket, text: bytes) -> bool:
    client.sendall(text)
    received = b""
    while len(received) < len(text):
        data = client.recv(len(text) - len(received))
        if not data:
            return False
        received += data
    return received == text


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


@contextmanager
def visitors(proxy: Proxy, new_client: NewClient, count: int = 4) -> Iterator[list[str]]:
    """Clients who come, are greeted, say something, go, and come again; yields what went wrong."""
    stop, troubles = threading.Event(), list[str]()
    visits = [0] * count

    def visit(number: int, source: str) -> None:
        while not stop.is_set():
            try:
                with proxy.connect(source) as client:
                    if not greeting(client) or not echoes(client, b"hello"):
                        troubles.append("not served")
            except OSError as error:
                troubles.append(repr(error))
            visits[number] += 1

    threads = [threading.Thread(target=visit, args=(n, new_client())) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: min(visits) > 3, reason="the clients to come and go")
        yield troubles
        before = list(visits)
        wait_until(
            lambda: all(now > then + 3 for now, then in zip(visits, before, strict=True)),
            reason="the clients to come and go afterwards",
        )
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.feature("process.upgrade")
def test_two_upgrades_under_load_fail_nobody(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient, open_clients: ExitStack
) -> None:
    proxy = start_proxy(rows, workers=2, shutdown_timeout_secs=60)
    sources = [new_client() for _ in range(8)]
    bound = {source: proxy.backend_of(source) for source in sources}
    lasting = [open_clients.enter_context(proxy.connect(source)) for source in sources]
    for client in lasting:
        assert greeting(client)
    processes = [proxy.process.pid, *proxy.stats()["workers"]]

    with visitors(proxy, new_client) as troubles:
        for _ in range(2):
            answer = upgrade(proxy)
            stats = proxy.stats()
            assert stats["pid"] == answer["pid"] != answer["predecessor"]
            assert sum(stats["backends"].values()) >= len(lasting)
            assert {source: proxy.backend_of(source) for source in sources} == bound
            processes += [answer["pid"], *stats["workers"]]
    assert troubles == []

    for client in lasting:
        assert echoes(client, b"still here")
        client.close()
    assert proxy.process.wait_exit() == 0
    *former, last = processes[::3]
    wait_until(lambda: all(map(has_ended, set(processes) - {last, *stats["workers"]})), reason="the end")
    wait_until(lambda: set(proxy.stats()["backends"].values()) == {0}, reason="all counts to be given back")
    assert len(former) == 2

    os.kill(last, signal.SIGTERM)
    wait_until(lambda: all(map(has_ended, processes)), reason="the last proxy to end")
    assert not proxy.admin_path.exists()
    assert [line["sessions_reset"] for line in proxy.log("stopped")] == [0, 0, 0]


@pytest.fixture
def ended_at_last(start_proxy: StartProxy) -> Iterator[list[int]]:
    """Pids of successors, which are nobody's children, ended with the test."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: all(map(has_ended, pids)), reason="the successors to end", timeout_s=30)


def test_a_limit_holds_across_versions(
    start_proxy: StartProxy,
    start_backend: StartBackend,
    new_client: NewClient,
    ended_at_last: list[int],
    open_clients: ExitStack,
) -> None:
    proxy = start_proxy([row("only", start_backend("only").port, hard_limit=3)], workers=2)
    former = [open_clients.enter_context(proxy.connect(new_client())) for _ in range(2)]
    assert all(map(greeting, former))
    ended_at_last.append(upgrade(proxy)["pid"])

    later = open_clients.enter_context(proxy.connect(new_client()))
    assert greeting(later)
    assert proxy.stats()["backends"] == {"only": 3}
    assert proxy.backend_of(new_client()) == ""
    former[0].close()
    wait_until(lambda: proxy.stats()["backends"] == {"only": 2}, reason="the former version to count down")
    assert proxy.backend_of(new_client()) == "only"


@pytest.mark.new_interpreters
def test_signal_starts_an_upgrade_too(
    start_proxy: StartProxy, rows: list[dict[str, object]], ended_at_last: list[int]
) -> None:
    proxy = start_proxy(rows)
    proxy.process.kill(signal.SIGUSR2)
    (upgraded,) = proxy.wait_log("upgraded")
    ended_at_last.append(upgraded["successor"])
    assert proxy.process.wait_exit() == 0
    assert proxy.stats()["pid"] == upgraded["successor"]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_number_of_workers_may_change(
    start_proxy: StartProxy,
    rows: list[dict[str, object]],
    new_client: NewClient,
    ended_at_last: list[int],
    tmp_path: Path,
    workers: int,
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("workers = 3\n")
    # From the file, which is read anew; of the environment a process has only a copy.
    proxy = start_proxy(rows, workers=None, config=settings)
    assert len(proxy.stats()["workers"]) == 3
    settings.write_text(f"workers = {workers}\n")
    with visitors(proxy, new_client) as troubles:
        ended_at_last.append(upgrade(proxy)["pid"])
        assert proxy.process.wait_exit() == 0
    assert troubles == []
    assert len(proxy.stats()["workers"]) == workers


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("region = 'nowhere'\n", "EDGEPROXY_REGION|region"),
        ("affinity_capacity = 2048\n", "EDGEPROXY_AFFINITY_CAPACITY"),
        ("workers = 100\n", "room for 64 workers"),
    ],
)
def test_a_successor_that_cannot_start_leaves_the_old_one_serving(
    start_proxy: StartProxy,
    rows: list[dict[str, object]],
    new_client: NewClient,
    tmp_path: Path,
    line: str,
    why: str,
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("workers = 1\n")
    proxy = start_proxy(rows, workers=None, region=None, config=settings)
    before = proxy.stats()
    settings.write_text(line)
    with pytest.raises(EdgeproxyError, match=f"the successor cannot start, so this proxy goes on.*({why})"):
        upgrade(proxy)
    assert proxy.backend_of(new_client()) in {"one", "two", "three"}
    after = proxy.stats()
    assert (after["pid"], after["workers"]) == (before["pid"], before["workers"])
    proxy.process.wait_output("the upgrade failed")
    assert set(proxy.process.group()) == {before["pid"], *before["workers"]}


def test_a_database_that_is_gone_leaves_the_old_one_serving(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient
) -> None:
    proxy = start_proxy(rows)
    proxy.db_path.rename(proxy.db_path.with_suffix(".away"))
    proxy.db_path.mkdir()
    with pytest.raises(EdgeproxyError, match=r"routing\.db"):
        upgrade(proxy)
    assert proxy.backend_of(new_client())


def test_other_ports_are_handed_over(
    start_proxy: StartProxy, rows: list[dict[str, object]], ended_at_last: list[int]
) -> None:
    proxy = start_proxy(
        rows,
        dns_enabled=1,
        dns_listen_addr="127.0.0.1:0",
        api_enabled=1,
        api_listen_addr="127.0.0.1:0",
        metrics_enabled=1,
        metrics_listen_addr="127.0.0.1:0",
    )
    (before,) = proxy.log("listening")
    ended_at_last.append(upgrade(proxy)["pid"])
    assert proxy.process.wait_exit() == 0
    after = proxy.wait_log("listening", 2)[1]
    for name in ("address", "dns", "api", "metrics"):
        assert after[name] == before[name]
    for name in ("dns", "api", "metrics"):
        host, _, port = after[name].rpartition(":")
        socket.create_connection((host, int(port)), 10).close()


def test_those_who_stay_are_reset_one_after_another(
    start_proxy: StartProxy,
    rows: list[dict[str, object]],
    new_client: NewClient,
    ended_at_last: list[int],
    open_clients: ExitStack,
) -> None:
    proxy = start_proxy(rows, shutdown_timeout_secs=2)
    clients = [open_clients.enter_context(proxy.connect(new_client())) for _ in range(40)]
    assert all(map(greeting, clients))
    for client in clients:
        client.setblocking(False)
    ended_at_last.append(upgrade(proxy)["pid"])
    seen: list[int] = []

    def are_all_ended() -> bool:
        for client in list(clients):
            try:
                client.recv(1)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                clients.remove(client)
        seen.append(len(clients))
        return not clients

    wait_until(are_all_ended, reason="all clients to be reset")
    assert len(set(seen)) > 4, "they were reset in the same moment"
    assert proxy.process.wait_exit() == 0


def test_command_says_what_became_of_it(
    start_proxy: StartProxy, rows: list[dict[str, object]], ended_at_last: list[int]
) -> None:
    proxy = start_proxy(rows)
    chosen = {"admin_socket": proxy.admin_path, "db_path": proxy.db_path}
    done = subprocess.run(
        [*EDGEPROXY, "upgrade"],
        env={**os.environ, **environment(chosen)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pid = proxy.stats()["pid"]
    ended_at_last.append(pid)
    assert done.stdout.startswith(f"process {pid}, version ")
    again = subprocess.run(
        [*EDGEPROXY, "upgrade", "--json"],
        env={**os.environ, **environment(chosen)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    ended_at_last.append(told["pid"])
    assert (told["pid"], told["predecessor"]) == (proxy.stats()["pid"], pid)


def test_a_stray_variable_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [*EDGEPROXY, "run"],
        env={**os.environ, "HANDOVER_FD": "999"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "HANDOVER_FD=999 names no handover" in done.stderr
