"""Computing that comes and goes: started when somebody connects, more when many do, none when nobody does.

Time is that of the event loop.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

Address = tuple[str, int]


class Machine(Protocol):
    """Something that runs."""

    @property
    def address(self) -> Address:
        """Where it listens."""
        ...

    async def stop(self) -> None:
        """End it; return when it is gone."""
        ...


Launch = Callable[[str], Awaitable[Machine]]
"""Start a machine for a project; return when it listens. Raises ``OSError``."""


class State(enum.Enum):
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"


@dataclass
class Usage:
    """One machine from its start to its end, to be paid for."""

    project: str
    asked_s: float
    began_s: float | None = None
    ended_s: float | None = None

    @property
    def resumed_in_s(self) -> float | None:
        """How long whoever woke it had to wait; None while that still takes."""
        return None if self.began_s is None else self.began_s - self.asked_s

    def seconds(self, now_s: float) -> float:
        """How long it has run so far."""
        return (
            0.0 if self.began_s is None else (now_s if self.ended_s is None else self.ended_s) - self.began_s
        )


@dataclass(eq=False)
class _Instance:
    starting: asyncio.Task[Machine]
    usage: Usage
    connections: int = 0
    idle: asyncio.TimerHandle | None = None


class Compute:
    """The machines of one project: none while nobody is connected, at most ``most``."""

    def __init__(
        self, project: str, launch: Launch, *, each: int = 10, most: int = 4, idle_s: float = 300.0
    ) -> None:
        """``each``: connections that one machine takes while another may be started; ``idle_s``: how long one
        that nobody is connected to stays."""
        self.project = project
        self.usage: list[Usage] = []
        self._launch = launch
        self._each = each
        self._most = most
        self._idle_s = idle_s
        self._instances: list[_Instance] = []
        self._suspending: set[asyncio.Task[None]] = set()

    @property
    def states(self) -> list[State]:
        """Of each machine that there is; only `SUSPENDED` when there is none."""
        there = [State.RUNNING if each.starting.done() else State.STARTING for each in self._instances] + [
            State.SUSPENDING for _ in self._suspending
        ]
        return there or [State.SUSPENDED]

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Address]:
        """A machine for one connection, awake when this is entered, and as long as this lasts.

        Raises:
            OSError: it could not be started. The next one tries anew.
        """
        instance = self._choose()
        instance.connections += 1
        if instance.idle is not None:
            instance.idle.cancel()
        try:
            # Others may wait for the same start: who gives up does not end it.
            machine = await asyncio.shield(instance.starting)
            yield machine.address
        finally:
            instance.connections -= 1
            if instance.connections == 0 and instance in self._instances:
                loop = asyncio.get_running_loop()
                instance.idle = loop.call_later(self._idle_s, self._suspend, instance)

    async def close(self) -> None:
        """Suspend everything, whoever is connected."""
        for instance in list(self._instances):
            self._suspend(instance)
        await asyncio.gather(*self._suspending)

    def _choose(self) -> _Instance:
        with_room = [each for each in self._instances if each.connections < self._each]
        if with_room:
            # The fullest, so that others become idle and can go.
            return max(with_room, key=lambda each: each.connections)
        if len(self._instances) == self._most:
            return min(self._instances, key=lambda each: each.connections)
        usage = Usage(self.project, asyncio.get_running_loop().time())
        instance = _Instance(asyncio.create_task(self._start(usage)), usage)
        instance.starting.add_done_callback(lambda started: self._forget_failed(instance, started))
        self._instances.append(instance)
        return instance

    async def _start(self, usage: Usage) -> Machine:
        machine = await self._launch(self.project)
        usage.began_s = asyncio.get_running_loop().time()
        self.usage.append(usage)
        return machine

    def _forget_failed(self, instance: _Instance, started: asyncio.Task[Machine]) -> None:
        if (started.cancelled() or started.exception() is not None) and instance in self._instances:
            self._instances.remove(instance)

    def _suspend(self, instance: _Instance) -> None:
        self._instances.remove(instance)
        if instance.idle is not None:
            instance.idle.cancel()
        task = asyncio.create_task(self._stop(instance))
        self._suspending.add(task)
        task.add_done_callback(self._suspending.discard)

    async def _stop(self, instance: _Instance) -> None:
        try:
            machine = await instance.starting
        except OSError:
            return
        await machine.stop()
        instance.usage.ended_s = asyncio.get_running_loop().time()
