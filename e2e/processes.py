"""The POP on this machine: a folder, and everything real processes on the loopback interface."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

from e2e.clients import Client
from e2e.pop import Backend, Pop, Proxy, records_of, region_of, register_command
from e2e.world import address_in, write_map
from mock_backend.process import MockBackendProcess
from testkit.faults.blocking import BlockingLinks
from testkit.faults.vocabulary import Fault, Kill, Pause, UnavailableError
from testkit.process import UNMEASURED, Process, ProcessFactory
from testkit.wait import wait_until

PROGRAM: Final = (str(Path(sys.executable).with_name("edgeproxy")),)
"""What users type."""
FORKED_PROGRAM: Final = (sys.executable, "-P", "-m", "edgeproxy")
"""The same in the words that :mod:`testkit.forked` knows; so its workers are forks, too."""
PLANTED: Final = Path(__file__).parent / "hosts" / "inside" / "planted"
ECHO: Final = Path(__file__).parent / "hosts" / "inside" / "echo.py"


class LocalBackend:
    """A mock backend in a process of its own."""

    def __init__(
        self, start: Callable[[int], MockBackendProcess], links: BlockingLinks | None = None
    ) -> None:
        """``start`` takes the port, 0 for any; with ``links`` one of them leads to it."""
        self._start = start
        self._running = start(0)
        self._link = links.tcp("127.0.0.1", self._running.port, name=self.id) if links is not None else None
        self._in_force: list[int] = []

    @property
    def id(self) -> str:
        return self._running.id

    @property
    def region(self) -> str:
        return self._running.region

    @property
    def address(self) -> str:
        return self._running.address

    @property
    def port(self) -> int:
        return self._link.port if self._link is not None else self._running.port

    def stop(self) -> None:
        self._running.stop()

    def inject(self, fault: Fault) -> None:
        match fault:
            case Kill():
                self._running.process.kill()
                self._running.process.wait_exit()
            case Pause():
                self._running.process.kill(signal.SIGSTOP)
            case _ if self._link is not None:
                self._in_force.append(self._link.inject(fault))
            case _:
                raise UnavailableError(f"{fault} on {self.id}: it is reached directly, so no link can break")

    def recover(self) -> None:
        while self._link is not None and self._in_force:
            self._link.recover(self._in_force.pop())
        if self._running.process.running:
            self._running.process.kill(signal.SIGCONT)
        else:
            self._running = self._start(self._running.port)


class LocalSidecar:
    """A process of this machine."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def log(self) -> str:
        return self._process.log

    def stop(self) -> None:
        self._process.terminate()

    def die(self) -> None:
        self._process.kill()
        self._process.wait_exit()


class LocalProxy(Proxy):
    """A process of this machine."""

    def __init__(self, process: Process, host: str, port: int) -> None:
        self.process = process
        self.host = host
        self.port = port

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers: everything in the proxy's process group but itself."""
        return [pid for pid in self.process.group() if pid != self.process.pid]

    @property
    def running(self) -> bool:
        return self.process.running

    def events(self, name: str) -> list[dict[str, Any]]:
        return records_of(self.process.log, name)

    def begin_stop(self) -> None:
        self.process.kill(signal.SIGTERM)

    def wait_stopped(self) -> None:
        assert self.process.wait_exit() == 0
        assert self.process.group() == []

    def stop_successor(self) -> None:
        last = self.events("upgraded")[-1]["successor"]
        os.kill(last, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{last}/fd/0").exists(), reason="the successor to end")
        wait_until(lambda: self.process.group() == [], reason="all processes to be gone")


class LocalPop(Pop):
    """A folder, and whatever was started in it."""

    def __init__(
        self,
        folder: Path,
        start: ProcessFactory,
        reserve_port: Callable[[], int],
        links: Callable[[], BlockingLinks] | None = None,
        program: Sequence[str] = PROGRAM,
        measures_backends: bool = False,
    ) -> None:
        """``links``: asked for when the first is needed; ``measures_backends``: for coverage.

        Mock backends have tests of their own, and take long to be measured.
        """
        super().__init__()
        self._links = links
        self._program = program
        self._backends_environment = {} if measures_backends else UNMEASURED
        self.folder = folder
        self.database = folder / "routing.db"
        self.settings = {
            "EDGEPROXY_REGION": "eu",
            "EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0",
            "EDGEPROXY_GEOIP_PATH": "world.mmdb",
        }
        self._start_process = start
        self._reserve_port = reserve_port
        write_map(folder / "world.mmdb")

    def listen(self) -> tuple[str, int]:
        port = self._reserve_port()
        return f"127.0.0.1:{port}", port

    def write(self, name: str, content: bytes | str) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        new.replace(path)
        return name

    def folder_of(self, name: str) -> str:
        return name

    def edgeproxy(self, *arguments: str) -> str:
        environment = {**os.environ, **self._environment()}
        ended = subprocess.run(
            [*self._program, *arguments],
            cwd=self.folder,
            env={name: value for name, value in environment.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, f"edgeproxy {arguments} exited {ended.returncode}: {ended.stderr}"
        return ended.stdout

    def sql(self, statements: str) -> None:
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            connection.executescript(statements)

    def client(self, country: str, number: int = 1) -> Client:
        return Client(address_in(country, number))

    def start_backend(self, backend_id: str) -> LocalBackend:
        return LocalBackend(partial(self._start_mock, backend_id))

    def start_breakable_backends(self, countries: dict[str, str]) -> dict[str, Backend]:
        assert self._links is not None, "this POP was made without links"
        backends: dict[str, Backend] = {
            name: LocalBackend(partial(self._start_mock, name), self._links()) for name in countries
        }
        self.add_rows(backends, countries)
        return backends

    def reach(self, port: int) -> tuple[str, int]:
        return "127.0.0.1", port

    def start_echo(self, backend_id: str) -> tuple[str, int]:
        port = self._reserve_port()
        command = [sys.executable, str(ECHO), "127.0.0.1", str(port)]
        self._start_process(command, ready="ready", name=f"echo of {backend_id}").wait_ready(timeout_s=30)
        return "127.0.0.1", port

    def start_sidecar(self, backend: Backend, api_port: int, token: str) -> LocalSidecar:
        self.write(f"{backend.id}.token", token)
        process = self._start_process(
            [*self._program, *register_command(backend, f"127.0.0.1:{api_port}", f"{backend.id}.token")],
            cwd=self.folder,
            # Not the line that says it is not registered yet.
            ready=": registered",
            name=f"sidecar of {backend.id}",
        )
        process.wait_ready(timeout_s=30)
        return LocalSidecar(process)

    def start_proxy(self) -> LocalProxy:
        process = self._start_process(
            [*self._program, "run"], env=self._environment(), cwd=self.folder, name="edgeproxy"
        )
        process.wait_output('"event": "listening"', timeout_s=30)
        (listening,) = records_of(process.log, "listening")
        host, _, port = listening["address"].rpartition(":")
        return LocalProxy(process, host, int(port))

    def report(self) -> list[tuple[str, str]]:
        """Nothing: logs of processes are told by their fixture."""
        return []

    def _start_mock(self, backend_id: str, port: int) -> MockBackendProcess:
        start = partial(self._start_process, env=self._backends_environment)
        return MockBackendProcess(start, region=region_of(backend_id), id=backend_id, port=port)

    def _environment(self) -> dict[str, str | None]:
        """The settings, and none of those of whoever runs the stories."""
        foreign = [name for name in os.environ if name == "DEBUG" or name.startswith("EDGEPROXY_")]
        return {**dict.fromkeys(foreign), "NO_COLOR": "1", **self.environment}
