"""The running proxy as a service manager sees it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgeproxy.errors import EdgeproxyError
from packages.proxy.tests.integration.proxies import Backend, StartProxy, greeting, row
from packages.proxy.tests.integration.service_managers import ServiceManagerSocket
from testkit.wait import wait_until

StartBackend = Callable[[str], Backend]
NewClient = Callable[[], str]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManagerSocket]:
    with ServiceManagerSocket.in_folder(tmp_path) as opened:
        monkeypatch.setenv("NOTIFY_SOCKET", opened.address)
        yield opened


@pytest.fixture(scope="module")
def rows(start_backend: StartBackend) -> list[dict[str, object]]:
    return [row("one", start_backend("one").port)]


@pytest.mark.feature("process.service_manager")
def test_a_life_from_start_to_end(
    start_proxy: StartProxy, manager: ServiceManagerSocket, rows: list[dict[str, object]], tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("")
    proxy = start_proxy(rows, config=settings, shutdown_timeout_secs=5)
    ((pid, ready),) = manager.wait_for(READY="1")
    assert pid == proxy.process.pid
    assert ready["STATUS"].startswith(f"serving {proxy.address}, 1 backends, version ")
    assert "MAINPID" not in ready

    settings.write_text("nonsense = 1\n")
    with pytest.raises(EdgeproxyError, match="nonsense"):
        proxy.ask("reload")
    settings.write_text("")
    proxy.process.kill(signal.SIGHUP)
    manager.wait_for(2, RELOADING="1")
    manager.wait_for(3, READY="1")

    proxy.process.terminate()
    manager.wait_for(STOPPING="1", EXTEND_TIMEOUT_USEC="15000000")
    assert {pid for pid, _ in manager.receive()} == {proxy.process.pid}


def test_a_loop_that_runs_gives_signs_of_life_and_one_that_hangs_gives_none(
    start_proxy: StartProxy,
    manager: ServiceManagerSocket,
    rows: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    proxy = start_proxy(rows)
    manager.wait_for(3, WATCHDOG="1")
    proxy.process.kill(signal.SIGSTOP)
    wait_until(
        lambda: Path(f"/proc/{proxy.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T",
        reason="the proxy to hang",
    )
    before = len(manager.receive())
    with pytest.raises(TimeoutError):
        wait_until(lambda: len(manager.receive()) > before, reason="a sign of life", timeout_s=0.2)
    proxy.process.kill(signal.SIGCONT)
    wait_until(lambda: len(manager.receive()) > before, reason="a sign of life")


def test_the_successor_is_followed_and_outlives_its_predecessor(
    start_proxy: StartProxy,
    manager: ServiceManagerSocket,
    rows: list[dict[str, object]],
    new_client: NewClient,
) -> None:
    proxy = start_proxy(rows, shutdown_timeout_secs=60)
    with ExitStack() as clients:
        client = clients.enter_context(proxy.connect(new_client()))
        assert greeting(client)
        proxy.process.kill(signal.SIGUSR2)
        (upgraded,) = proxy.wait_log("upgraded", timeout_s=20)
        successor = upgraded["successor"]
        manager.wait_for(MAINPID=str(successor), READY="1")

        workers = set(proxy.stats()["workers"])

        # Told to stop, it waits for the predecessor: with the main process a service has ended.
        os.kill(successor, signal.SIGTERM)
        ((pid, _),) = manager.wait_for(STOPPING="1")
        assert pid == successor
        wait_until(lambda: not workers & set(proxy.process.group()), reason="its workers to end")
        with pytest.raises(TimeoutError):
            wait_until(lambda: proxy.log("stopped"), reason="its end", timeout_s=0.3)
        assert {proxy.process.pid, successor} <= set(proxy.process.group())
        client.sendall(b"still here")
        assert client.recv(10) == b"still here"
    assert proxy.process.wait_exit() == 0
    wait_until(lambda: len(proxy.log("stopped")) == 2, reason="the successor to end")
    wait_until(lambda: proxy.process.group() == [], reason="all processes to be gone")
    # Of the predecessor nothing was heard but that it served.
    assert [message for pid, message in manager.receive() if pid == proxy.process.pid][1:] == []


def test_a_failed_upgrade_is_shown(
    start_proxy: StartProxy, manager: ServiceManagerSocket, rows: list[dict[str, object]]
) -> None:
    proxy = start_proxy(rows)
    proxy.db_path.rename(proxy.db_path.with_suffix(".away"))
    proxy.db_path.mkdir()
    with pytest.raises(EdgeproxyError, match="the successor cannot start"):
        proxy.ask("upgrade")
    wait_until(
        lambda: any("an upgrade failed: the succ" in each.get("STATUS", "") for _, each in manager.receive()),
        reason="the failure to be shown",
    )
    assert not any("MAINPID" in message for _, message in manager.receive())


def test_a_second_request_to_stop_waits_for_no_predecessor(
    start_proxy: StartProxy, rows: list[dict[str, object]], new_client: NewClient
) -> None:
    proxy = start_proxy(rows, shutdown_timeout_secs=60)
    with proxy.connect(new_client()) as client:
        assert greeting(client)
        proxy.process.kill(signal.SIGUSR2)
        (upgraded,) = proxy.wait_log("upgraded", timeout_s=20)
        os.kill(upgraded["successor"], signal.SIGTERM)
        proxy.wait_log("draining", 2)

        def ends() -> bool:
            # Again and again: signals that come within half a second are one request.
            if proxy.log("stopped"):
                return True
            with contextlib.suppress(ProcessLookupError):
                os.kill(upgraded["successor"], signal.SIGTERM)
            return False

        wait_until(ends, reason="the successor to end")
        assert proxy.process.running
