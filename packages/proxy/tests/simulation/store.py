"""The replicated state of one node in memory: what a store has to do, without a database.

A :class:`Disk` is what would be in the file. It is copied whenever something is durable, so a crash, a torn
write and a restored backup are other copies of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeproxy.core.replication.clock import Clock
from edgeproxy.core.replication.messages import Ranges
from edgeproxy.core.replication.model import Cell, Dot, Group, RowState, Value, Write
from edgeproxy.core.replication.rows import (
    FINGERPRINT_MASK,
    Cells,
    installed,
    is_garbage,
    is_present,
    row_fingerprint,
    written,
)
from edgeproxy.core.replication.vector import Known
from packages.proxy.tests.simulation.plants import Plant


@dataclass(slots=True)
class Disk:
    """Everything that is in the file."""

    origin: str
    sequence: int = 0
    rows: dict[str, Cells] = field(default_factory=dict)
    log: dict[Dot, Write] = field(default_factory=dict)
    """Oldest first."""
    known: Known = field(default_factory=Known)

    def copy(self) -> Disk:
        """A file with the same content."""
        return Disk(self.origin, self.sequence, self.rows.copy(), self.log.copy(), Known(self.known.ranges))


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one message and of the log, small ones so that little is enough to reach them."""

    writes: int = 8
    rows: int = 3
    log: int = 60


class MemoryStore:
    """One disk, as one process works with it. Every method is a transaction."""

    def __init__(self, node: str, disk: Disk, clock: Clock, limits: Limits, plant: Plant | None) -> None:
        self.node = node
        self.disk = disk
        self.clock = clock
        self._limits = limits
        self._plant = plant
        for cells in disk.rows.values():
            for cell in cells.values():
                self._saw(cell)

    def write(self, row_id: str, groups: Mapping[Group, Mapping[str, Value]], wall_ms: int) -> Write:
        """A local change."""
        disk = self.disk
        disk.sequence += 1
        write = Write(Dot(disk.origin, disk.sequence), self.clock.stamp(wall_ms), row_id, groups)
        self._take(write)
        return write

    def apply(self, writes: tuple[Write, ...]) -> None:
        """Changes of others."""
        for write in writes:
            if not self.disk.known.has(write.dot):
                self._saw(write)
                self._take(write)
        if self._plant is Plant.TOMBSTONES_COLLECTED_EARLY:
            self.collect({})

    def read_log(self, ranges: Ranges) -> tuple[list[Write], bool]:
        """Writes of these ranges, and whether some that are known are not there any more."""
        found: list[Write] = []
        gone = False
        for origin, spans in ranges.items():
            for first, last in spans:
                for sequence in range(first, last + 1):
                    dot = Dot(origin, sequence)
                    if (write := self.disk.log.get(dot)) is not None:
                        found.append(write)
                    elif self.disk.known.has(dot):
                        gone = True
                    if len(found) == self._limits.writes:
                        return found, gone
        return found, gone

    def read_rows(self, after: str | None) -> tuple[list[RowState], str | None, Ranges]:
        """The next rows, where they end, and the vector."""
        ids = sorted(row_id for row_id in self.disk.rows if after is None or row_id > after)
        chosen = ids[: self._limits.rows]
        until = chosen[-1] if len(ids) > len(chosen) else None
        return [RowState(each, self.disk.rows[each]) for each in chosen], until, self.disk.known.ranges

    def install(
        self, after: str | None, until: str | None, known: Ranges, rows: tuple[RowState, ...], learn: bool
    ) -> None:
        """Merge part of a snapshot."""
        theirs = {row.id: row.cells for row in rows}
        snapshot = Known(known)
        mine = {
            row_id
            for row_id in self.disk.rows
            if (after is None or row_id > after) and (until is None or row_id <= until)
        }
        they_know = snapshot.has if self._plant is not Plant.SNAPSHOT_REMOVES_NOTHING else lambda _: False
        for row_id in theirs.keys() | mine:
            cells = installed(
                self.disk.rows.get(row_id, {}), theirs.get(row_id, {}), self.disk.known.has, they_know
            )
            if cells:
                self.disk.rows[row_id] = cells
            else:
                self.disk.rows.pop(row_id, None)
        for row in rows:
            for cell in row.cells.values():
                self._saw(cell)
                self.disk.known.add(cell.dot)
        if learn or self._plant is Plant.VECTOR_BEFORE_ROWS:
            self.disk.known.learn(known)

    def collect(self, stable: Ranges) -> None:
        """Remove what nobody needs."""
        everywhere = Known(stable) if self._plant is not Plant.TOMBSTONES_COLLECTED_EARLY else self.disk.known
        for row_id, cells in list(self.disk.rows.items()):
            if is_garbage(cells, everywhere.has):
                del self.disk.rows[row_id]

    def fingerprint(self) -> int:
        """Of the rows that are present."""
        return (
            sum(
                row_fingerprint(row_id, ((group, cell.dot) for group, cell in cells.items()))
                for row_id, cells in self.disk.rows.items()
                if is_present(cells)
            )
            & FINGERPRINT_MASK
        )

    def renew(self, origin: str) -> None:
        """Begin a new incarnation."""
        self.disk.origin, self.disk.sequence = origin, 0

    def _take(self, write: Write) -> None:
        disk = self.disk
        cells = disk.rows.get(write.id, {})
        if self._plant is Plant.LAST_TO_ARRIVE_WINS:
            cells = {group: cell for group, cell in cells.items() if group not in write.groups}
        disk.rows[write.id] = written(cells, write)
        disk.log[write.dot] = write
        if len(disk.log) > self._limits.log:
            del disk.log[next(iter(disk.log))]
        if self._plant is Plant.GAPS_IGNORED:
            disk.known.learn({write.dot.origin: ((1, write.dot.sequence),)})
        disk.known.add(write.dot)

    def _saw(self, what: Write | Cell) -> None:
        if self._plant is not Plant.CLOCK_NOT_MERGED:
            self.clock.saw(what.stamp)
