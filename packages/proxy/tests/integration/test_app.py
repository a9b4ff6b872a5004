"""What can happen to the control process besides its work."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeproxy.app import control, groundwork, run
from edgeproxy.config import load
from edgeproxy.errors import EdgeproxyError
from edgeproxy.outbound.resolver_system import SystemResolver
from edgeproxy.runtime.supervisor import Supervisor
from edgeproxy.runtime.table_feed import TableFeed
from packages.proxy.tests.integration.proxies import (
    EDGEPROXY,
    Backend,
    Proxy,
    StartProxy,
    environment,
    row,
    write_rows,
)
from testkit.process import ProcessFactory
from testkit.wait import wait_until

StartBackend = Callable[[str], Backend]


@pytest.fixture
def settings(tmp_path: Path, start_backend: StartBackend) -> dict[str, object]:
    write_rows(tmp_path / "routing.db", [row("one", start_backend("one").port)])
    return {
        "listen_addr": "127.0.0.1:0",
        "db_path": tmp_path / "routing.db",
        "admin_socket": tmp_path / "admin.sock",
        "workers": 1,
        "log_format": "json",
    }


@pytest.fixture(autouse=True)
def _signal_mask() -> Iterator[None]:
    """A proxy that ends in this process leaves signals blocked, which processes started later inherit."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- its surroundings ----------------------------------------------------------------------------


def test_modules_in_the_working_directory_are_not_taken_for_its_own(
    settings: dict[str, object], process_factory: ProcessFactory, tmp_path: Path
) -> None:
    for name in ("msgspec", "select", "edgeproxy", "random"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    program = Path(EDGEPROXY[0]).with_name("edgeproxy")
    process = process_factory([program, "run"], env=environment(settings), cwd=tmp_path)
    process.wait_output("listening")
    process.terminate()
    assert "the wrong module" not in process.log


def test_a_log_that_nobody_reads_any_more_stops_nothing(
    settings: dict[str, object], process_factory: ProcessFactory, port: int, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{port}"
    process = process_factory(
        ["bash", "-c", 'exec "$0" "$@" 2> >(head -n 1)', *EDGEPROXY, "run"],
        env=environment({**settings, "listen_addr": address, "access_log": "all"}),
        name="edgeproxy",
    )
    proxy = Proxy(process, tmp_path / "routing.db", tmp_path / "admin.sock", address)
    process.wait_output("routing table changed")
    workers = wait_until(lambda: proxy.stats()["workers"], reason="the start", swallow=(AssertionError,))
    # Each session is a line that cannot be written.
    for _ in range(20):
        assert proxy.backend_of("127.0.0.1") == "one"
    wait_until(lambda: proxy.stats()["closes"] == {"complete": 20}, reason="all to be reported")
    assert proxy.stats()["workers"] == workers
    assert len(process.log.splitlines()) == 1
    process.terminate()


def test_two_proxies_do_not_share_an_admin_socket(
    settings: dict[str, object], process_factory: ProcessFactory, start_proxy: StartProxy, tmp_path: Path
) -> None:
    proxy = start_proxy(db_path=tmp_path / "routing.db", admin_socket=tmp_path / "admin.sock")
    second = process_factory([*EDGEPROXY, "run"], env=environment(settings))
    assert second.wait_exit() == 5
    assert second.log == (
        f"edgeproxy: error: cannot listen on the admin socket {tmp_path}/admin.sock: "
        "another proxy answers on it, or it is no socket; set EDGEPROXY_ADMIN_SOCKET\n"
    )
    assert second.group() == []
    assert proxy.stats()["pid"] == proxy.process.pid


def test_the_admin_socket_of_a_killed_proxy_is_taken_over(start_proxy: StartProxy, tmp_path: Path) -> None:
    first = start_proxy(admin_socket=tmp_path / "admin.sock", shutdown_timeout_secs=0)
    first.process.kill()
    first.process.wait_exit()
    assert first.admin_path.is_socket()
    second = start_proxy(admin_socket=tmp_path / "admin.sock")
    assert second.stats()["pid"] == second.process.pid


# ---- signals while it starts ---------------------------------------------------------------------


class Signals:
    """Sends a signal to this process when something is called, before it goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def on(self, owner: type, method: str, count: int) -> None:
        original = getattr(owner, method)

        async def interrupted(self_: object, *arguments: object, **options: object) -> object:
            for _ in range(count):
                os.kill(os.getpid(), signal.SIGTERM)
                # asyncio calls the handler in a turn of its own.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            return await original(self_, *arguments, **options)

        self._monkeypatch.setattr(owner, method, interrupted)


@pytest.mark.parametrize("count", [1, 2])
def test_told_to_stop_before_the_workers_are_ready_it_ends_in_order(
    settings: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    new_children: Callable[[], set[str]],
    count: int,
) -> None:
    Signals(monkeypatch).on(Supervisor, "start", count)
    assert run(load(environment(settings), {}, None)) == 0
    assert new_children() == set()


@pytest.fixture
def new_children() -> Callable[[], set[str]]:
    """Tells which processes this one has started since, and not seen ending."""
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    before = set(listed.read_text().split())
    return lambda: set(listed.read_text().split()) - before


# ---- defects -------------------------------------------------------------------------------------


def test_a_defect_in_the_background_is_told_in_one_line_and_ends_the_proxy_with_a_drain(
    settings: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    new_children: Callable[[], set[str]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(TableFeed, "watch", fail)
    assert run(load(environment(settings), {}, None)) == 1
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    events = [line["event"] for line in lines]
    assert events[-3:] == ["the control process failed, stopping", "draining", "stopped"]
    assert (lines[-3]["level"], lines[-3]["why"]) == ("critical", "ZeroDivisionError: a defect")
    assert "Traceback" in lines[-3]["exception"]
    assert new_children() == set()


def test_workers_that_cannot_start_end_the_start(
    settings: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    new_children: Callable[[], set[str]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(groundwork, "WORKER_PROGRAM", (EDGEPROXY[0], "-c", "raise SystemExit(9)"))
    with pytest.raises(EdgeproxyError, match=r"workers end before they are ready \(exit code 9\)"):
        run(load(environment(settings), {}, None))
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert {(line["event"], line["exit_code"]) for line in events} == {("a worker died, starting another", 9)}
    assert new_children() == set()


def test_a_name_server_that_does_not_answer_delays_the_start_for_a_moment_only(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def hang(*_: object) -> tuple[str, ...]:
        await asyncio.Event().wait()
        raise AssertionError

    started = []

    async def stop_at_once(*_: object) -> None:
        started.append(True)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    write_rows(tmp_path / "routing.db", [row("one", 9, wg_ip="one.example.org")])
    monkeypatch.setattr(control, "NAMES_AT_START_S", 0.01)
    monkeypatch.setattr(SystemResolver, "resolve", hang)
    monkeypatch.setattr(TableFeed, "watch", stop_at_once)
    assert run(load(environment(settings), {}, None)) == 0
    assert started
