"""A cluster of processes on the loopback interface, with a fault link for each link."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from testkit.cluster.addressed import AddressedCluster, command_of, wait_listening
from testkit.cluster.machine import Machine
from testkit.cluster.topology import Topology
from testkit.faults.journal import Journal
from testkit.faults.program_clock import ProgramClock
from testkit.ports import reserved_port
from testkit.process import Process
from testkit.wait import wait_until_async

_HOST = "127.0.0.1"
_STOPPED = frozenset("Tt")


class ProcessNode(Machine):
    """A program that can be stopped, killed and started again."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        port: int,
        log: Path,
        journal: Journal,
        clock: ProgramClock | str,
    ) -> None:
        super().__init__(name, journal, clock)
        self.address = (_HOST, port)
        self._command = command
        self._environment = environment
        self._log = log
        self._process: Process | None = None

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    @property
    def process(self) -> Process:
        assert self._process is not None, f"{self.name} is not started"
        return self._process

    async def start(self) -> None:
        self._process = Process(self._command, env=self._environment, log_path=self._log, name=self.name)
        await wait_listening(self.name, *self.address)

    async def stop(self) -> None:
        """End it, in order if it can."""
        await asyncio.to_thread(self.process.stop)

    async def kill(self) -> None:
        self.process.kill()
        await asyncio.to_thread(self.process.wait_exit)

    async def pause(self) -> None:
        self.process.kill(signal.SIGSTOP)
        await wait_until_async(lambda: self._state() in _STOPPED, reason=f"{self.name} to stand still")

    async def resume(self) -> None:
        if self.process.running:
            self.process.kill(signal.SIGCONT)
            await wait_until_async(lambda: self._state() not in _STOPPED, reason=f"{self.name} to go on")

    def pids(self) -> list[int]:
        return [self.process.pid] if self.process.running else []

    def _state(self) -> str:
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii", errors="replace")
        return stat.rpartition(")")[2].split()[0]


class ProcessCluster(AddressedCluster):
    """See the package. Logs of the nodes lie in ``folder``."""

    def __init__(self, topology: Topology, folder: Path, **options: Any) -> None:
        """``options``: of `Cluster`."""
        super().__init__(topology, **options)
        self._folder = folder
        self.nodes: dict[str, ProcessNode] = {}

    async def start(self) -> None:
        programs = {node.name: node for node in self.topology.nodes if node.program is not None}
        ports = {name: self._ending.enter_context(reserved_port()) for name in programs}
        await self.open_links(_HOST, {name: (_HOST, port) for name, port in ports.items()})
        for name, node in programs.items():
            assert node.program is not None
            command = command_of(node.program, python=sys.executable, name=name, host=_HOST, port=ports[name])
            clock = self.clock_of(node.program)
            environment = self.environment(node, node.program, clock)
            started = ProcessNode(
                name, command, environment, ports[name], self._folder / f"{name}.log", self.journal, clock
            )
            self.members[name] = self.nodes[name] = started
            self._ending.push_async_callback(started.stop)
            await started.start()

    def logs(self) -> dict[str, str]:
        return {name: node.log for name, node in self.nodes.items()}
