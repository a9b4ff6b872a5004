"""Replicas in real files, each with a clock that a test moves, and writes carried between them by hand."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from edgeproxy.core.replication.clock import Clock
from edgeproxy.core.replication.model import Write
from edgeproxy.core.replication.vector import lacking
from edgeproxy.outbound.change_log_sqlite import LogSettings, inconsistencies
from edgeproxy.outbound.replica_sqlite import ReplicaSettings, SqliteReplica
from edgeproxy.outbound.store_sqlite import SqliteStore

COLUMNS = "id, app, region, country, wg_ip, port, healthy, weight, soft_limit, hard_limit, deleted"
VALUES = "'test', 'eu', 'DE', '127.0.0.1', 9001, 1, 2, 100, 150, 0"


class Pop:
    """One member: its file, its store, its replica."""

    def __init__(self, path: Path, node: str, *, max_changes: int = 1000, max_age_s: float = 3600.0) -> None:
        self.path = path
        self.node = node
        self.ahead_ms = 0
        """How far its wall clock is ahead."""
        self.max_changes = max_changes
        self.max_age_s = max_age_s
        if not path.exists():
            SqliteStore.create(path)
        self.start()

    def start(self) -> None:
        """As a new process would, with a clock that was lost."""
        self.store = SqliteStore(
            self.path, LogSettings("ours", self.node, self.max_changes, self.max_age_s, replicated=True)
        )
        self.replica = SqliteReplica(
            self.store,
            Clock(self.node),
            ReplicaSettings(self.node, self.max_changes, self.max_age_s),
            wall_ms=lambda: int(time.time() * 1000) + self.ahead_ms,
        )

    def edit(self, sql: str) -> None:
        """As somebody with a shell would."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.executescript(sql)

    def add(self, *ids: str) -> None:
        for row_id in ids:
            self.edit(f"INSERT INTO backends ({COLUMNS}) VALUES ('{row_id}', {VALUES})")

    def captured(self) -> list[Write]:
        return [*self.replica.capture().writes]

    def select(self, sql: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql).fetchall()

    @property
    def table(self) -> Mapping[object, tuple[object, ...]]:
        return {row_id: tuple(values) for row_id, *values in self.select(f"SELECT {COLUMNS} FROM backends")}

    @property
    def problems(self) -> list[str]:
        with self.store.reading() as connection:
            return inconsistencies(connection, self.path)

    @property
    def tombstones(self) -> list[object]:
        return [each for (each,) in self.select("SELECT id FROM edgeproxy_cells WHERE fingerprint IS NULL")]


Make = Callable[..., Pop]
"""Makes a member of this name; settings are those of :class:`Pop`."""


def sync(*pops: Pop) -> None:
    """Have all members tell each other everything that they wrote, by the log or else by a snapshot."""
    for pop in pops:
        pop.captured()
    for source in pops:
        for target in pops:
            if source is not target:
                pull(target, source)
    for pop in pops:
        assert pop.captured() == [], "what came from elsewhere is no change of ours"


def pull(target: Pop, source: Pop) -> None:
    while missing := lacking(source.replica.known(), target.replica.known()):
        read = source.replica.read_log(missing)
        if read.gone:
            pull_snapshot(target, source)
            return
        assert target.replica.apply(read.writes)


def pull_snapshot(target: Pop, source: Pop) -> None:
    after, known = None, None
    while True:
        part = source.replica.read_rows(after)
        known = part.known if known is None else known
        target.replica.install(after, part.until, known, part.rows, learn=part.until is None)
        if part.until is None:
            return
        after = part.until


def assert_same(*pops: Pop) -> None:
    first, *others = pops
    for pop in others:
        assert pop.table == first.table
        assert pop.replica.known() == first.replica.known()
        assert pop.replica.fingerprint() == first.replica.fingerprint()
    assert_sound(*pops)


def assert_sound(*pops: Pop) -> None:
    for pop in pops:
        assert pop.problems == []


def dots(writes: Iterable[Write]) -> list[int]:
    return [write.dot.sequence for write in writes]
