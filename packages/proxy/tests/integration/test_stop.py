"""The end: drained, timed out, or at once; and what the next start remembers."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from edgeproxy.app.control import SAME_REQUEST_S
from packages.proxy.tests.integration.proxies import Backend, Proxy, StartProxy, greeting, row
from testkit.wait import wait_until

StartBackend = Callable[[str], Backend]
NewClient = Callable[[], str]


@pytest.fixture(scope="module")
def rows(start_backend: StartBackend) -> list[dict[str, object]]:
    return [row(name, start_backend(name).port) for name in ("one", "two")]


@pytest.fixture
def open_clients() -> Iterator[ExitStack]:
    with ExitStack() as clients:
        yield clients


def greeted(proxy: Proxy, source: str, open_clients: ExitStack) -> socket.socket:
    client = open_clients.enter_context(proxy.connect(source))
    assert greeting(client)
    return client


def is_refused(proxy: Proxy) -> bool:
    try:
        proxy.connect().close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass
    return False


def wait_until_refused(proxy: Proxy) -> None:
    wait_until(lambda: is_refused(proxy), reason="new connections to be refused")


@pytest.mark.feature("process.stop")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_what_is_under_way_completes_and_new_connections_are_refused(
    start_proxy: StartProxy,
    rows: list[dict[str, object]],
    new_client: NewClient,
    open_clients: ExitStack,
    signum: signal.Signals,
) -> None:
    proxy = start_proxy(rows, workers=2)
    clients = [greeted(proxy, new_client(), open_clients) for _ in range(10)]

    proxy.process.kill(signum)
    wait_until_refused(proxy)

    for client in clients:
        client.sendall(b"late question")
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(4096):
            answer += data
        assert answer == b"late question"
    assert proxy.process.wait_exit() == 0
    assert proxy.process.group() == []
    assert [line["sessions_reset"] for line in proxy.log("stopped")] == [0]
    assert not proxy.admin_path.exists()


def test_ctrl_c_which_reaches_every_process_drains_too(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient, open_clients: ExitStack
) -> None:
    proxy = start_proxy(rows)
    client = greeted(proxy, new_client(), open_clients)
    os.killpg(proxy.process.pid, signal.SIGINT)
    wait_until_refused(proxy)
    client.sendall(b"?")
    assert client.recv(1) == b"?"
    client.close()
    assert proxy.process.wait_exit() == 0


def test_a_service_manager_may_tell_the_workers_too(
    start_proxy: StartProxy, rows: list[dict[str, object]]
) -> None:
    proxy = start_proxy(rows, workers=2)
    workers = proxy.stats()["workers"]
    # All are told at once; that the control process is the last to notice is a matter of luck otherwise.
    proxy.process.kill(signal.SIGSTOP)
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: proxy.process.group() == [proxy.process.pid], reason="the workers to end")
    proxy.process.kill(signal.SIGTERM)
    proxy.process.kill(signal.SIGCONT)
    assert proxy.process.wait_exit() == 0
    # They did as they were told, which is no reason for alarm.
    assert proxy.log("a worker died, starting another") == []


def test_what_is_open_after_the_timeout_is_reset(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient, open_clients: ExitStack
) -> None:
    proxy = start_proxy(rows, workers=2, shutdown_timeout_secs=0.3, access_log="all")
    clients = [greeted(proxy, new_client(), open_clients) for _ in range(5)]
    proxy.process.kill(signal.SIGTERM)
    assert proxy.process.wait_exit() == 0
    for client in clients:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert [line["sessions_reset"] for line in proxy.log("stopped")] == [5]
    assert [line["reason"] for line in proxy.log("session")] == ["shutdown"] * 5


def seconds_between(line: dict[str, Any], later: dict[str, Any]) -> float:
    """Between two lines of the log."""
    times = [datetime.fromisoformat(each["timestamp"]) for each in (line, later)]
    return (times[1] - times[0]).total_seconds()


def test_a_second_signal_ends_the_drain_at_once(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient, open_clients: ExitStack
) -> None:
    proxy = start_proxy(rows, shutdown_timeout_secs=600)
    client = greeted(proxy, new_client(), open_clients)
    # As `timeout` does it: the process, then its group. That is one request, and cuts nothing off.
    proxy.process.kill(signal.SIGTERM)
    proxy.process.kill(signal.SIGTERM)
    (draining,) = proxy.wait_log("draining")
    assert proxy.process.running

    def told_again() -> bool:
        proxy.process.kill(signal.SIGTERM)
        return bool(proxy.log("told to stop a second time, ending at once"))

    wait_until(told_again, reason="the second request to be heard", interval_s=0.1)
    assert proxy.process.wait_exit() == 0
    assert proxy.process.group() == []
    ended = proxy.log("told to stop a second time, ending at once")
    assert ended
    assert seconds_between(draining, ended[0]) >= SAME_REQUEST_S - 0.1
    # Not in order: what was cut off must not look whole.
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_worker_that_does_not_drain_in_time_is_ended(
    start_proxy: StartProxy, rows: list[dict[str, object]]
) -> None:
    proxy = start_proxy(rows, shutdown_timeout_secs=0)
    os.kill(proxy.stats()["workers"][0], signal.SIGSTOP)
    proxy.process.kill(signal.SIGTERM)
    assert proxy.process.wait_exit() == 0
    assert proxy.process.group() == []


# ---- affinity over a restart ---------------------------------------------------------------------


def test_clients_find_their_backends_again_after_a_restart(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient, tmp_path: Path
) -> None:
    state_dir = tmp_path / "state"
    proxy = start_proxy(rows, state_dir=state_dir)
    sources = [new_client() for _ in range(24)]
    before = {source: proxy.backend_of(source) for source in sources}
    assert set(before.values()) == {"one", "two"}
    proxy.process.terminate()
    (saved,) = proxy.log("affinity saved")
    assert (saved["bindings"], saved["folder"]) == (24, str(state_dir))

    restarted = start_proxy(rows, state_dir=state_dir, admin_socket=tmp_path / "admin.sock")
    assert restarted.ask("explain", client=sources[0])["bound_to"] == before[sources[0]]
    assert {source: restarted.backend_of(source) for source in sources} == before


def test_the_time_between_stop_and_start_counts(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient, tmp_path: Path
) -> None:
    settings = {"state_dir": tmp_path / "state", "binding_ttl_secs": 1.0}
    source = new_client()
    proxy = start_proxy(rows, **settings)
    proxy.backend_of(source)
    used_s = monotonic()
    assert proxy.ask("explain", client=source)["bound_to"] is not None
    proxy.process.terminate()
    assert [line["bindings"] for line in proxy.log("affinity saved")] == [1]
    wait_until(lambda: monotonic() - used_s > 1, reason="the binding to expire")
    restarted = start_proxy(rows, **settings)
    assert restarted.ask("explain", client=source)["bound_to"] is None


def test_a_state_folder_that_cannot_be_written_costs_the_affinity_only(
    start_proxy: StartProxy, rows: list[dict[str, object]], tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file")
    proxy = start_proxy(rows, state_dir=tmp_path / "state", admin_socket=tmp_path / "admin.sock")
    proxy.backend_of("127.0.0.1")
    proxy.process.terminate()
    (warning,) = proxy.log("affinity is not saved")
    assert warning["folder"] == str(tmp_path / "state")
