"""The convergence contract, held by members that keep their rows in files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from edgeproxy.ports import ReplicaStore, Row
from packages.proxy.tests.convergence import Cluster
from packages.proxy.tests.integration.outbound.replicas import COLUMNS, Pop
from testkit.contracts.convergence import ConvergenceContract

pytestmark = [pytest.mark.feature("replication.changes"), pytest.mark.usefixtures("short_waits")]

NAMES = COLUMNS.split(", ")


class FileTable:
    """One member's file, edited as by somebody with a shell."""

    def __init__(self, path: Path, node: str) -> None:
        self._pop = Pop(path, node)
        self._backup = path.with_suffix(".backup")

    @property
    def ahead_ms(self) -> int:
        return self._pop.ahead_ms

    @ahead_ms.setter
    def ahead_ms(self, ahead_ms: int) -> None:
        self._pop.ahead_ms = ahead_ms

    @property
    def replica(self) -> ReplicaStore:
        return self._pop.replica

    def put(self, row: Row) -> None:
        _let_a_millisecond_pass()
        values = {"deleted": 0, **row}
        updates = ", ".join(f"{name} = excluded.{name}" for name in NAMES[1:])
        literals = ", ".join(_literal(values[name]) for name in NAMES)
        self._pop.edit(
            f"INSERT INTO backends ({COLUMNS}) VALUES ({literals}) ON CONFLICT (id) DO UPDATE SET {updates}"
        )

    def erase(self, row_id: str) -> None:
        _let_a_millisecond_pass()
        self._pop.edit(f"DELETE FROM backends WHERE id = {_literal(row_id)}")

    def rows(self) -> Mapping[str, Row]:
        return {
            str(row_id): dict(zip(NAMES[1:], values, strict=True))
            for row_id, values in self._pop.table.items()
        }

    def tombstones(self) -> Sequence[object]:
        return self._pop.tombstones

    def wall_ms(self) -> int:
        return int(time.time() * 1000) + self._pop.ahead_ms

    def back_up(self) -> None:
        shutil.copy(self._pop.path, self._backup)

    def restore(self) -> None:
        shutil.copy(self._backup, self._pop.path.with_suffix(".new"))
        self._pop.path.with_suffix(".new").replace(self._pop.path)
        self._pop.start()


def _literal(value: object) -> str:
    return str(value) if isinstance(value, int) else f"'{value}'"


def _let_a_millisecond_pass() -> None:
    """Triggers note the time in milliseconds, and of two edits in one of them either may be the later."""
    began_ms = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == began_ms:
        pass


@pytest.fixture
def members(tmp_path: Path) -> Cluster:
    return Cluster(lambda node: FileTable(tmp_path / f"{node}.db", node))


class TestMembersInFiles(ConvergenceContract):
    pass
