"""What a service manager is told, on a real socket, and that nothing is lost without one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.runtime import service_manager
from edgeproxy.runtime.service_manager import ServiceManager
from packages.proxy.tests.integration.service_managers import ServiceManagerSocket
from testkit.wait import wait_until_async


@pytest.fixture(params=["path", "abstract"])
def ours(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManagerSocket]:
    address = f"@edgeproxy-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with ServiceManagerSocket(address) as opened:
        yield opened


def told(ours: ServiceManagerSocket) -> list[dict[str, str]]:
    return [message for _, message in ours.receive()]


def test_a_service_that_is_ready_says_so(ours: ServiceManagerSocket) -> None:
    ServiceManager({"NOTIFY_SOCKET": ours.address}).ready("serving\n127.0.0.1:80", is_successor=False)
    assert told(ours) == [{"READY": "1", "STATUS": "serving 127.0.0.1:80"}]


def test_a_successor_says_which_process_to_follow(ours: ServiceManagerSocket) -> None:
    ServiceManager({"NOTIFY_SOCKET": ours.address}).ready("serving", is_successor=True)
    assert told(ours) == [{"MAINPID": str(os.getpid()), "READY": "1", "STATUS": "serving"}]


def test_a_reload_has_a_beginning_with_its_time_and_an_end_even_when_it_fails(
    ours: ServiceManagerSocket,
) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": ours.address})

    def reload() -> None:
        with manager.reloading():
            begun.extend(told(ours))
            raise ValueError("wrong")

    begun: list[dict[str, str]] = []
    with pytest.raises(ValueError, match="wrong"):
        reload()
    (begin,) = begun
    assert begin["RELOADING"] == "1"
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 < int(begin["MONOTONIC_USEC"]) <= (uptime_s + 60) * 1e6
    assert told(ours)[1:] == [{"READY": "1"}]


def test_an_end_asks_for_the_time_it_takes(ours: ServiceManagerSocket) -> None:
    ServiceManager({"NOTIFY_SOCKET": ours.address}).stopping(30)
    assert told(ours) == [{"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "40000000", "STATUS": "draining"}]


def test_a_predecessor_is_silent(ours: ServiceManagerSocket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": ours.address})
    manager.leave_to_successor()
    manager.stopping(30)
    assert told(ours) == []


@pytest.mark.parametrize("address", [None, "", "/no/such/socket", "@nobody-listens-here"])
def test_nobody_to_tell_is_no_reason_to_fail(address: str | None) -> None:
    ServiceManager({} if address is None else {"NOTIFY_SOCKET": address}).ready("up", is_successor=True)


def test_one_that_takes_nothing_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_manager, "_SEND_TIMEOUT_S", 0.01)
    with ServiceManagerSocket.in_folder(tmp_path) as ours:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as filler,
            contextlib.suppress(BlockingIOError),
        ):
            while True:
                filler.sendto(b"STATUS=x", ours.address)
        ServiceManager({"NOTIFY_SOCKET": ours.address}).status("lost")
        assert {"STATUS": "lost"} not in told(ours)


async def test_signs_of_life_come_until_they_are_stopped(ours: ServiceManagerSocket) -> None:
    environ = {"NOTIFY_SOCKET": ours.address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    manager = ServiceManager(environ)
    assert manager.watchdog_s == 0.02
    assert "WATCHDOG_PID" not in environ
    signs = asyncio.create_task(manager.keep_alive())
    await wait_until_async(lambda: told(ours).count({"WATCHDOG": "1"}) > 2, reason="signs of life")
    signs.cancel()


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}]
)
async def test_who_is_not_watched_gives_no_sign(tmp_path: Path, environ: dict[str, str]) -> None:
    with ServiceManagerSocket.in_folder(tmp_path) as ours:
        manager = ServiceManager({"NOTIFY_SOCKET": ours.address, **environ})
        await asyncio.wait_for(manager.keep_alive(), 10)
        assert told(ours) == []
