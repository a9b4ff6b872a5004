"""What all workers have reported, added up since the start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import chain
from typing import Final

import msgspec

from edgeproxy.core.dataplane.connects import Connects
from edgeproxy.core.dataplane.times import Times
from edgeproxy.core.wire.frames import KernelCounts, Report

FORGOTTEN: Final = "(forgotten)"
"""Stands for backends that were removed so long ago that nobody asks for them one by one."""

GONE_MAX: Final = 1_000
"""Removed backends that are remembered. Those that register themselves may take a new id at each start."""


class TrafficRow(msgspec.Struct):
    """Connections between clients of one country and one backend."""

    country: str
    backend: str
    opened: int = 0
    active: int = 0
    score_mean: float = 0.0
    """Mean score at which connections were given this backend."""
    bytes_received: int = 0
    """From clients. Counted when a connection ends, as is ``bytes_sent``."""
    bytes_sent: int = 0


class TrafficTotals:
    """Totals per (country, backend), per close reason and per failing backend."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], TrafficRow] = {}
        self._active_by_worker: dict[int, Counter[tuple[str, str]]] = {}
        self.closes: Counter[str] = Counter()
        self.connect_errors: Counter[str] = Counter()
        self.connects: dict[str, Connects] = {}
        """Connections established, by backend id."""
        self.waits = Times()
        """In the queue, of those clients that got a backend."""
        self.kernel: dict[int, KernelCounts] = {}
        """What the kernel relays, by the worker that has it do so."""
        self._promotions_of_the_dead = 0
        self._ended_without_backend = 0

    def add(self, worker: int, report: Report) -> None:
        """Take in what a worker counted since its last report."""
        active = self._active_by_worker.setdefault(worker, Counter())
        for traffic in report.traffic:
            key = traffic.country, traffic.backend
            row = self._rows.setdefault(key, TrafficRow(*key))
            scores = row.score_mean * row.opened + traffic.score_sum
            row.opened += traffic.opened
            row.score_mean = scores / row.opened if row.opened else 0.0
            row.active += traffic.opened - traffic.closed
            row.bytes_received += traffic.bytes_received
            row.bytes_sent += traffic.bytes_sent
            active[key] += traffic.opened - traffic.closed
        self.closes.update(report.closes)
        self.connect_errors.update(report.connect_errors)
        self._ended_without_backend += sum(report.closes.values()) - sum(t.closed for t in report.traffic)
        if report.waits is not None:
            self.waits.merge(report.waits)
        if report.kernel is not None:
            self.kernel[worker] = report.kernel
        for backend, connects in report.connects.items():
            self.connects.setdefault(backend, Connects()).merge_connects(connects)

    @property
    def clients(self) -> int:
        """Connections of clients since the start, each counted when it has a backend or ends without one."""
        return self._ended_without_backend + sum(row.opened for row in self._rows.values())

    @property
    def in_kernel(self) -> int:
        """Connections that the kernel relays at this moment."""
        return sum(each.open for each in self.kernel.values())

    @property
    def promotions(self) -> int:
        """Connections that the kernel took over since the start."""
        return self._promotions_of_the_dead + sum(each.promotions for each in self.kernel.values())

    def forget(self, present: Collection[str]) -> None:
        """Sum up as :data:`FORGOTTEN` the backends that are not ``present`` any more, but for the last ones.

        One with connections open keeps its rows. The sums over all stay what they are.
        """
        open_ = {row.backend for row in self._rows.values() if row.active}
        known = dict.fromkeys(
            chain((backend for _, backend in self._rows), self.connect_errors, self.connects)
        )
        gone = [each for each in known if each not in present and each not in open_ and each != FORGOTTEN]
        forgotten = set(gone[: max(0, len(gone) - GONE_MAX)])
        if not forgotten:
            return
        for key in [key for key in self._rows if key[1] in forgotten]:
            row = self._rows.pop(key)
            kept = self._rows.setdefault((row.country, FORGOTTEN), TrafficRow(row.country, FORGOTTEN))
            scores = kept.score_mean * kept.opened + row.score_mean * row.opened
            kept.opened += row.opened
            kept.score_mean = scores / kept.opened if kept.opened else 0.0
            kept.bytes_received += row.bytes_received
            kept.bytes_sent += row.bytes_sent
            for active in self._active_by_worker.values():
                active.pop(key, None)
        for backend in forgotten:
            if errors := self.connect_errors.pop(backend, 0):
                self.connect_errors[FORGOTTEN] += errors
            if (connects := self.connects.pop(backend, None)) is not None:
                self.connects.setdefault(FORGOTTEN, Connects()).merge_connects(connects)

    def worker_died(self, worker: int) -> None:
        """Its connections are gone without a report."""
        for key, count in self._active_by_worker.pop(worker, Counter()).items():
            self._rows[key].active -= count
        if (kernel := self.kernel.pop(worker, None)) is not None:
            self._promotions_of_the_dead += kernel.promotions

    def rows(self) -> list[TrafficRow]:
        """All totals, ordered by country and backend."""
        return [self._rows[key] for key in sorted(self._rows)]
