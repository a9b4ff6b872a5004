"""Members for the convergence contract: real machines around any stores, and a network without delays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from edgeproxy.core.replication.clock import Clock
from edgeproxy.core.replication.commands import (
    ApplyWrites,
    Cause,
    Collect,
    Command,
    InstallRows,
    ReadFingerprint,
    ReadLog,
    ReadRows,
    Renew,
    Send,
    Warn,
)
from edgeproxy.core.replication.images import row_of, written_groups
from edgeproxy.core.replication.messages import Message, Ranges
from edgeproxy.core.replication.model import RowState, Write
from edgeproxy.core.replication.replica import Now, Replica, Terms
from edgeproxy.core.replication.rows import is_present
from edgeproxy.ports import Captured, LogRead, ReplicaStore, Row, RowsRead
from packages.proxy.tests.simulation.plants import Plant
from packages.proxy.tests.simulation.store import Disk, Limits, MemoryStore
from testkit.contracts.convergence import RETENTION_S

SYNC_INTERVAL_S = 60.0
ROUNDS = 12
"""Of comparisons, until nothing more can come of them."""


class Table(Protocol):
    """What one member keeps, and whoever edits it."""

    ahead_ms: int

    @property
    def replica(self) -> ReplicaStore: ...
    def put(self, row: Row) -> None: ...
    def erase(self, row_id: str) -> None: ...
    def rows(self) -> Mapping[str, Row]: ...
    def tombstones(self) -> Sequence[object]: ...
    def wall_ms(self) -> int: ...
    def back_up(self) -> None: ...
    def restore(self) -> None: ...


class Cluster:
    """Members by name, each with the table that ``make`` gives it."""

    def __init__(self, make: Callable[[str], Table]) -> None:
        self._make = make
        self._now_s = 0.0
        self._tables: dict[str, Table] = {}
        self._machines: dict[str, Replica] = {}
        self._away: set[str] = set()
        self._messages: deque[tuple[str, str, Message]] = deque()

    # ---- what the contract asks for ----------------------------------------------------------------

    def put(self, member: str, row: Row) -> None:
        self._tables[member].put(row)
        self._capture(member)

    def erase(self, member: str, row_id: str) -> None:
        self._tables[member].erase(row_id)
        self._capture(member)

    def rows(self, member: str) -> Mapping[str, Row]:
        return self._tables[member].rows()

    def tombstones(self, member: str) -> int:
        return len(self._tables[member].tombstones())

    def set_clock(self, member: str, ahead_ms: int) -> None:
        self._tables[member].ahead_ms = ahead_ms

    def cut_off(self, member: str) -> None:
        self._away.add(member)
        for name in self._machines.keys() - {member}:
            for one, other in ((name, member), (member, name)):
                self._machines[one].disconnected(other)
                self._machines[one].dead(other, self._now(one))

    def reconnect(self, member: str) -> None:
        self._away.discard(member)
        if member not in self._tables:
            self._tables[member] = self._make(member)
            self._start(member)
        for name in self._machines.keys() - self._away - {member}:
            for one, other in ((name, member), (member, name)):
                self._machines[one].alive(other)
                self._do(one, self._machines[one].connected(other, self._now(one)))

    def leave(self, member: str) -> None:
        self.cut_off(member)
        del self._tables[member], self._machines[member]
        for machine in self._machines.values():
            machine.left(member)

    def back_up(self, member: str) -> None:
        self._tables[member].back_up()

    def restore(self, member: str) -> None:
        self.cut_off(member)
        self._tables[member].restore()
        self._start(member)
        self.reconnect(member)

    def settle(self) -> None:
        for _ in range(ROUNDS):
            self._round()

    def pass_time(self, seconds: float) -> None:
        end_s = self._now_s + seconds
        self.settle()
        # Between here and there nothing happens; what is due then is seen in the rounds after it.
        self._now_s = max(self._now_s, end_s)
        self.settle()

    # ---- the shell ---------------------------------------------------------------------------------

    def _start(self, member: str) -> None:
        store = self._tables[member].replica
        terms = Terms(sync_interval_s=SYNC_INTERVAL_S, retention_s=RETENTION_S)
        origin = store.capture().origin
        others = sorted(self._machines.keys() - {member})
        self._machines[member] = Replica(member, origin, store.known(), terms, self._now(member), others)

    def _now(self, member: str) -> Now:
        return Now(self._now_s, self._tables[member].wall_ms())

    def _round(self) -> None:
        self._now_s += 1.5 * SYNC_INTERVAL_S
        for member, machine in self._machines.items():
            self._do(member, machine.tick(self._now(member), 0.5))
        while self._messages:
            sender, receiver, message = self._messages.popleft()
            if receiver in self._machines and not {sender, receiver} & self._away:
                machine = self._machines[receiver]
                self._do(receiver, machine.received(sender, message, self._now(receiver)))

    def _capture(self, member: str) -> None:
        captured = self._tables[member].replica.capture()
        assert captured.origin == self._machines[member].origin
        self._do(member, self._machines[member].written(captured.writes))

    def _do(self, member: str, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, Send):
                self._messages.append((member, command.peer, command.message))
            elif isinstance(command, Warn):
                assert command.cause in (Cause.SNAPSHOT, Cause.FORGOTTEN)
            else:
                self._do(member, self._ask_store(member, command))

    def _ask_store(self, member: str, command: Command) -> Sequence[Command]:
        store, machine = self._tables[member].replica, self._machines[member]
        match command:
            case ApplyWrites():
                store.apply(command.writes)
                return machine.applied(command, self._now(member))
            case ReadLog():
                log = store.read_log(command.ranges)
                return machine.log_read(command, log.writes, gone=log.gone)
            case ReadRows():
                read = store.read_rows(command.after)
                return machine.rows_read(command, read.rows, read.until, read.known)
            case InstallRows():
                store.install(command.after, command.until, command.known, command.rows, learn=command.learn)
                return machine.installed(command, self._now(member))
            case ReadFingerprint():
                machine.fingerprint_read(*store.fingerprint())
            case Renew():
                machine.renewed(store.renew(command.origin))
            case Collect():
                store.collect(command.stable)
        return ()


class MemoryTable:
    """The simulator's store, with rows that people edit. It is both a table and its replicated state."""

    def __init__(self, node: str, plant: Plant | None = None) -> None:
        self.ahead_ms = 0
        self._node = node
        self._plant = plant
        self._ms = 1_750_000_000_000
        self._incarnation = 0
        self._backup = Disk("")
        self._open(Disk(f"{node}/0"))

    @property
    def replica(self) -> ReplicaStore:
        return self

    def wall_ms(self) -> int:
        self._ms += 1
        return self._ms + self.ahead_ms

    def put(self, row: Row) -> None:
        row_id = str(row["id"])
        cells = self._store.disk.rows.get(row_id, {})
        image = {"deleted": 0, **{column: value for column, value in row.items() if column != "id"}}
        groups = written_groups(row_of(cells), image, cells)  # type: ignore[arg-type]
        if groups:
            self._new.append(self._store.write(row_id, groups, self.wall_ms()))

    def erase(self, row_id: str) -> None:
        cells = self._store.disk.rows[row_id]
        self._new.append(
            self._store.write(row_id, written_groups(row_of(cells), None, cells), self.wall_ms())
        )

    def rows(self) -> Mapping[str, Row]:
        found = ((row_id, row_of(cells)) for row_id, cells in self._store.disk.rows.items())
        return {row_id: image for row_id, image in found if image is not None}

    def tombstones(self) -> Sequence[object]:
        return [row_id for row_id, cells in self._store.disk.rows.items() if not is_present(cells)]

    def back_up(self) -> None:
        self._backup = self._store.disk.copy()

    def restore(self) -> None:
        disk = self._backup.copy()
        if self._plant is not Plant.INCARNATION_REUSED:
            self._incarnation += 1
            disk.origin, disk.sequence = f"{self._node}/{self._incarnation}", 0
        self._open(disk)

    def _open(self, disk: Disk) -> None:
        self._store = MemoryStore(self._node, disk, Clock(self._node), Limits(log=1_000), self._plant)
        self._new: list[Write] = []

    # ---- the replicated state ----------------------------------------------------------------------

    def capture(self) -> Captured:
        writes, self._new = self._new, []
        return Captured(self._store.disk.origin, writes, False)

    def renew(self, origin: str) -> str:
        if self._plant is Plant.INCARNATION_REUSED:
            return origin
        raise AssertionError(f"{origin} need not be renewed")

    def apply(self, writes: Sequence[Write]) -> int:
        self._store.apply(tuple(writes))
        return len(writes)

    def install(
        self, after: str | None, until: str | None, known: Ranges, rows: Sequence[RowState], *, learn: bool
    ) -> None:
        self._store.install(after, until, known, tuple(rows), learn)

    def collect(self, stable: Ranges) -> int:
        self._store.collect(stable)
        return 0

    def known(self) -> Ranges:
        return self._store.disk.known.ranges

    def read_log(self, ranges: Ranges) -> LogRead:
        writes, gone = self._store.read_log(ranges)
        return LogRead(writes, gone)

    def read_rows(self, after: str | None) -> RowsRead:
        return RowsRead(*self._store.read_rows(after))

    def fingerprint(self) -> tuple[Ranges, int]:
        return self.known(), self._store.fingerprint()
