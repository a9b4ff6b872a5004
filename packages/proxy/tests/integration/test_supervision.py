"""Workers die, the control process dies: clients notice as little as can be."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from packages.proxy.tests.integration.proxies import (
    EDGEPROXY,
    PROMISE_S,
    Backend,
    Proxy,
    StartProxy,
    edit,
    environment,
    greeting,
    row,
)
from testkit.process import ProcessFactory
from testkit.wait import wait_until

StartBackend = Callable[[str], Backend]
NewClient = Callable[[], str]

CLIENTS = 24
"""So many that each of two workers gets some: the chance of the contrary is 1 in 8 million."""


@pytest.fixture(scope="module")
def rows(start_backend: StartBackend) -> list[dict[str, object]]:
    return [row(name, start_backend(name).port) for name in ("one", "two")]


@pytest.fixture
def open_clients() -> Iterator[ExitStack]:
    with ExitStack() as clients:
        yield clients


def answers(client: socket.socket) -> bool:
    """Whether the backend behind an open connection still echoes."""
    try:
        client.sendall(b"?")
        return client.recv(1) == b"?"
    except OSError:
        return False


def wait_for_new_workers(proxy: Proxy, old: list[int]) -> list[int]:
    def both_live() -> list[int] | None:
        pids: list[int] = proxy.stats()["workers"]
        return pids if len(pids) == len(old) and pids != old else None

    return wait_until(both_live, reason="a new worker", timeout_s=10 * PROMISE_S)


def wait_for_connections(proxy: Proxy, count: int) -> None:
    wait_until(
        lambda: sum(proxy.stats()["backends"].values()) == count,
        reason=f"{count} connections in the counts that workers share",
    )


@pytest.mark.feature("workers.replaced")
def test_a_killed_worker_takes_only_its_own_connections_along(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient, open_clients: ExitStack
) -> None:
    proxy = start_proxy(rows, workers=2)
    clients = [open_clients.enter_context(proxy.connect(new_client())) for _ in range(CLIENTS)]
    for client in clients:
        greeting(client)
    wait_for_connections(proxy, CLIENTS)
    workers = proxy.stats()["workers"]

    os.kill(workers[0], signal.SIGKILL)

    alive = [client for client in clients if answers(client)]
    assert 0 < len(alive) < CLIENTS
    assert wait_for_new_workers(proxy, workers)[1] == workers[1]
    assert proxy.stats()["worker_restarts"] == 1
    # The dead worker's leases are given back, those of the living one are kept.
    wait_for_connections(proxy, len(alive))
    wait_until(
        lambda: sum(each["active"] for each in proxy.stats()["traffic"]) == len(alive),
        reason="the traffic to count those alone",
    )
    (line,) = proxy.wait_log("a worker died, starting another")
    assert (line["pid"], line["exit_code"], line["level"]) == (workers[0], -signal.SIGKILL, "error")
    open_clients.close()
    wait_for_connections(proxy, 0)


@pytest.mark.feature("affinity.kept")
def test_clients_keep_their_backends_when_a_worker_dies(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient
) -> None:
    proxy = start_proxy(rows, workers=2)
    sources = [new_client() for _ in range(CLIENTS)]
    before = {source: proxy.backend_of(source) for source in sources}
    assert set(before.values()) == {"one", "two"}
    workers = proxy.stats()["workers"]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(workers) & set(proxy.stats()["workers"]), reason="both to be replaced")
    assert {source: proxy.backend_of(source) for source in sources} == before


def test_clients_that_wait_in_a_dead_workers_queue_are_served_by_its_replacement(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient, open_clients: ExitStack
) -> None:
    proxy = start_proxy(rows, workers=2)
    victim = proxy.stats()["workers"][0]
    os.kill(victim, signal.SIGSTOP)
    clients = [open_clients.enter_context(proxy.connect(new_client())) for _ in range(CLIENTS)]
    os.kill(victim, signal.SIGKILL)
    assert {greeting(client) for client in clients} == {"one", "two"}


def test_under_load_a_killed_worker_costs_each_client_one_connection_at_most(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient
) -> None:
    proxy = start_proxy(rows, workers=2)
    workers = proxy.stats()["workers"]
    served: list[int] = [0] * 8
    failed: list[int] = [0] * 8
    enough = threading.Event()

    def load(number: int, source: str) -> None:
        while not enough.is_set():
            with proxy.connect(source) as client:
                if greeting_or_end(client) and answers(client):
                    served[number] += 1
                else:
                    failed[number] += 1

    threads = [threading.Thread(target=load, args=(number, new_client())) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: min(served) > 5, reason="load from every client")
        os.kill(workers[1], signal.SIGKILL)
        wait_for_new_workers(proxy, workers)
        progress = [count + 20 for count in served]
        wait_until(
            lambda: all(now > then for now, then in zip(served, progress, strict=True)),
            reason="every client to be served after the death",
        )
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert max(failed) <= 1
    wait_for_connections(proxy, 0)


def greeting_or_end(client: socket.socket) -> bool:
    """Whether the backend's name arrives; a killed process ends its connections in order or by a reset."""
    try:
        return client.recv(100).endswith(b"\n")
    except ConnectionResetError:
        return False


@pytest.mark.new_interpreters
def test_workers_serve_on_when_the_control_process_is_killed_and_a_successor_takes_over(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient, open_clients: ExitStack
) -> None:
    proxy = start_proxy(rows, workers=2, shutdown_timeout_secs=60)
    clients = [open_clients.enter_context(proxy.connect(new_client())) for _ in range(CLIENTS)]
    for client in clients:
        greeting(client)

    proxy.process.kill()
    proxy.process.wait_exit()

    assert all(map(answers, clients))
    assert {proxy.backend_of(new_client()) for _ in range(CLIENTS)} == {"one", "two"}
    # At once, on the same address and admin socket, while the orphans still listen.
    successor = start_proxy(
        workers=2, listen_addr=proxy.address, db_path=proxy.db_path, admin_socket=proxy.admin_path
    )
    assert successor.port == proxy.port
    assert successor.stats()["pid"] == successor.process.pid
    assert all(map(answers, clients))
    # The orphans drain as they would have done; from then on every client comes to the successor.
    open_clients.close()
    proxy.process.stop()
    assert {successor.backend_of(new_client()) for _ in range(CLIENTS)} == {"one", "two"}


def test_orphaned_workers_drain_when_the_shutdown_timeout_is_over(
    start_proxy: StartProxy, rows: list[dict[str, object]]
) -> None:
    proxy = start_proxy(rows, shutdown_timeout_secs=0.2)
    proxy.process.kill()
    proxy.process.wait_exit()
    wait_until(lambda: not proxy.process.group(), reason="the workers to end by themselves")


@pytest.fixture(scope="module")
def live_proxy(start_shared_proxy: StartProxy, rows: list[dict[str, object]]) -> Proxy:
    return start_shared_proxy(rows)


@pytest.mark.parametrize("other", ["127.0.0.1", "0.0.0.0", "[::]"])
def test_a_second_proxy_on_the_port_of_a_live_one_is_refused(
    live_proxy: Proxy, process_factory: ProcessFactory, other: str
) -> None:
    port = live_proxy.port
    second = process_factory(
        [*EDGEPROXY, "run"],
        env=environment({"listen_addr": f"{other}:{port}", "db_path": live_proxy.db_path}),
    )
    assert second.wait_exit() == 5
    assert second.log == (
        f"edgeproxy: error: cannot listen on {other.strip('[]')}:{port}: another process has the port "
        f"(see `ss -tlnp 'sport = :{port}'`); stop it or set EDGEPROXY_LISTEN_ADDR\n"
    )
    assert not second.group()
    # It did not take a single client while it tried.
    assert live_proxy.backend_of("127.0.0.1") in {"one", "two"}


@pytest.mark.feature("workers.hung")
def test_a_worker_that_hangs_is_replaced_and_who_waited_in_its_queue_is_served(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient, open_clients: ExitStack
) -> None:
    proxy = start_proxy(rows, workers=2, worker_hang_timeout_secs=0.5)
    workers = proxy.stats()["workers"]
    os.kill(workers[0], signal.SIGSTOP)
    clients = [open_clients.enter_context(proxy.connect(new_client())) for _ in range(CLIENTS)]
    assert {greeting(client) for client in clients} == {"one", "two"}
    assert workers[0] not in wait_for_new_workers(proxy, workers)
    (line,) = proxy.wait_log("a worker hangs, ending it")
    assert (line["worker"], line["pid"]) == (0, workers[0])
    assert proxy.stats()["worker_troubles"]["hangs"] == 1


@pytest.mark.usefixtures("unmeasured")
def test_a_worker_that_stands_still_while_ten_thousand_rows_change_holds_nobody_up(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: NewClient
) -> None:
    before, after = start_backend("before"), start_backend("after")
    # So long that the channel is full after one change of all.
    name = "far-" + "x" * 450
    many = [row(f"{name}-{number:05}", 9, region="ap") for number in range(10_000)]
    proxy = start_proxy([row("near", before.port), *many], workers=2, worker_hang_timeout_secs=0)
    stats = proxy.stats()
    os.kill(stats["workers"][0], signal.SIGSTOP)
    for version, change in enumerate(
        ("weight = 2", f"weight = 3, healthy = (id = '{name}-00000'), port = {after.port}"),
        stats["table_version"] + 1,
    ):
        edit(proxy.db_path, f"UPDATE backends SET {change}")
        # The control process follows, and answers all the while.
        wait_until(
            lambda: proxy.stats()["table_version"] == version,  # noqa: B023
            reason="the rows to change",
            timeout_s=10 * PROMISE_S,
        )
    proxy.wait_log("a worker does not keep up with changes")
    assert proxy.stats()["worker_troubles"] == {"lags": 1, "hangs": 0, "undecodable": 0}

    os.kill(stats["workers"][0], signal.SIGCONT)
    wait_until(
        # So many clients come to both workers.
        lambda: all(proxy.backend_of(new_client()) == "after" for _ in range(CLIENTS)),
        reason="both workers to route by the last change",
        timeout_s=10 * PROMISE_S,
    )
    assert proxy.stats()["workers"] == stats["workers"]
