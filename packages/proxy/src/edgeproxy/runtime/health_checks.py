"""Checks every backend again and again, each at its own times, many at once but never too many.

What a result means is decided elsewhere (:mod:`edgeproxy.core.controlplane.verdicts`); here it is asked for,
in time. The first check of a backend comes at a random moment of its interval, so that a table of
10,000 rows spreads evenly over it and goes on like that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from edgeproxy.core.controlplane.routing_table import TableChange
from edgeproxy.core.model import Backend
from edgeproxy.ports import Probe

MAX_CONCURRENT = 1_000
"""Checks under way at once. When that many backends hang, the others are checked later than they should be,
but this process keeps its descriptors and its breath."""


class _Target:
    """Where a backend is found, and when it is looked at next."""

    __slots__ = ("backend", "checks", "timer")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.checks = 0
        self.timer: asyncio.TimerHandle | None = None
        """For the next check; ``None`` while one is waited for or under way."""

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class HealthChecks:
    """The checks of one POP, which begin with :meth:`run`."""

    def __init__(
        self,
        probe_of: Callable[[Backend], Probe],
        *,
        interval_s: float,
        timeout_s: float,
        addresses: Callable[[str], Sequence[str]],
        next_check_s: Callable[[str, float], float | None],
        on_result: Callable[[str, str | None, float, float], None],
        on_unable: Callable[[str], None],
        draw: Callable[[], float],
    ) -> None:
        """Arguments that are called:

        ``probe_of`` gives what asks a backend; ``addresses`` gives those of a host; ``next_check_s``, with a
        backend id and a draw, the time from one check to the next, ``None`` for no more; ``on_result`` takes
        a backend id, what was wrong (``None``: nothing), and when the check began and ended, by the clock of
        the loop; ``on_unable`` hears why this machine cannot check, once until it can again; ``draw`` gives
        numbers uniform in [0, 1).
        """
        self._probe_of = probe_of
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._addresses = addresses
        self._next_check_s = next_check_s
        self._on_result = on_result
        self._on_unable = on_unable
        self._draw = draw
        self._targets: dict[str, _Target] = {}
        self._waiting: deque[tuple[str, _Target]] = deque()
        self._under_way = 0
        self._is_able = True
        self._group: asyncio.TaskGroup | None = None

    def change_settings(
        self, probe_of: Callable[[Backend], Probe], *, interval_s: float, timeout_s: float
    ) -> None:
        """Ask in another way; each backend is asked within the new interval, at a moment of its own."""
        self._probe_of = probe_of
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        for backend_id, target in self._targets.items():
            if target.timer is not None:
                target.timer.cancel()
                self._schedule(backend_id, target, interval_s * self._draw())

    def follow(self, change: TableChange) -> None:
        """Check what the routing table holds now. A backend at a new address is a new one."""
        for placed in change.removed:
            self._forget(placed.backend.id)
        for placed in change.upserts:
            backend = placed.backend
            known = self._targets.get(backend.id)
            if known is None or _address(known.backend) != _address(backend):
                self._forget(backend.id)
                target = self._targets[backend.id] = _Target(backend)
                self._schedule(backend.id, target, self._interval_s * self._draw())
            else:
                known.backend = backend

    async def run(self) -> None:
        """Check until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for backend_id, target in self._targets.items():
                    self._schedule(backend_id, target, self._interval_s * self._draw())
                await asyncio.get_running_loop().create_future()
            finally:
                # Before the group ends its tasks, for the last of them would begin others.
                self._group = None
                for target in self._targets.values():
                    target.cancel()

    def _forget(self, backend_id: str) -> None:
        target = self._targets.pop(backend_id, None)
        if target is not None:
            target.cancel()

    def _schedule(self, backend_id: str, target: _Target, delay_s: float) -> None:
        if self._group is not None:
            loop = asyncio.get_running_loop()
            target.timer = loop.call_later(delay_s, self._due, backend_id, target)

    def _due(self, backend_id: str, target: _Target) -> None:
        target.timer = None
        self._waiting.append((backend_id, target))
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        while self._waiting and self._group is not None and self._under_way < MAX_CONCURRENT:
            backend_id, target = self._waiting.popleft()
            if self._targets.get(backend_id) is target:
                self._under_way += 1
                self._group.create_task(self._check(backend_id, target))

    async def _check(self, backend_id: str, target: _Target) -> None:
        began_s = monotonic()
        try:
            why = await self._ask(target)
        except OSError as error:
            if self._is_able:
                self._is_able = False
                self._on_unable(str(error.strerror))
        else:
            self._is_able = True
            # The row may have changed meanwhile; then this says nothing of the backend of now.
            if self._targets.get(backend_id) is target:
                self._on_result(backend_id, why, began_s, monotonic())
        finally:
            self._under_way -= 1
        interval_s = self._next_check_s(backend_id, self._draw())
        if interval_s is not None and self._targets.get(backend_id) is target:
            self._schedule(backend_id, target, max(0.0, began_s + interval_s - monotonic()))
        self._begin_waiting()

    async def _ask(self, target: _Target) -> str | None:
        addresses = self._addresses(target.backend.host)
        if not addresses:
            return "its host name does not resolve"
        target.checks += 1
        address = addresses[target.checks % len(addresses)]
        try:
            async with asyncio.timeout(self._timeout_s):
                probe = self._probe_of(target.backend)
                return await probe.check(target.backend.host, address, target.backend.port)
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"


def _address(backend: Backend) -> tuple[str, int]:
    return backend.host, backend.port
