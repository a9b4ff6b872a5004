"""Leases beside the rows they belong to, in real files that others edit."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.core.controlplane.registry import Refusal, RefusalReason
from edgeproxy.errors import StoreError
from edgeproxy.outbound.leases_sqlite import SqliteLeases
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import Lease, LeaseOperation, LeaseWrite, NotWritten, Row, RowChange

VALUES: Mapping[str, object] = {
    "app": "web",
    "region": "eu",
    "country": None,
    "wg_ip": "10.0.0.7",
    "port": 9001,
    "healthy": 1,
    "weight": 2,
    "soft_limit": 100,
    "hard_limit": 150,
    "deleted": 0,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    database = tmp_path / "routing.db"
    SqliteStore.create(database)
    return database


@pytest.fixture
def leases(path: Path) -> SqliteLeases:
    return SqliteLeases(SqliteStore(path))


def lease(backend_id: str = "b", **changes: Any) -> Lease:
    values = {"owner": "pop", "registered_at_s": 10.5, "heartbeat_at_s": 20.25, "expired": False, **changes}
    return Lease(backend_id, **values)


def writes(backend_id: str = "b", *, expired: bool = False, **values: object) -> LeaseOperation[Refusal]:
    write = LeaseWrite(
        backend_id, RowChange(backend_id, {**VALUES, **values}), lease(backend_id, expired=expired)
    )
    return lambda _table, _lease: write


def apply(leases: SqliteLeases, operation: LeaseOperation[Refusal], backend_id: str = "b") -> object:
    (outcome,) = leases.apply([(backend_id, operation)])
    return outcome


def seen(leases: SqliteLeases, backend_id: str = "b") -> tuple[Row | None, Lease | None]:
    found: list[tuple[Row | None, Lease | None]] = []

    def look(table: Mapping[str, Row], lease: Lease | None) -> Refusal:
        found.append((table.get(backend_id), lease))
        return Refusal(RefusalReason.UNKNOWN, ())

    apply(leases, look, backend_id)
    return found[0]


def select(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(sql).fetchall()
        connection.commit()
        return rows


def test_nothing_is_added_to_the_file_before_the_first_lease(path: Path, leases: SqliteLeases) -> None:
    before = select(path, "SELECT name FROM sqlite_master")
    assert leases.leases() == []
    assert seen(leases) == (None, None)
    removes = LeaseWrite("b", None, None)
    assert apply(leases, lambda _table, _lease: removes) == removes
    assert select(path, "SELECT name FROM sqlite_master") == before


def test_refusal_writes_nothing(path: Path, leases: SqliteLeases) -> None:
    refusal = Refusal(RefusalReason.UNKNOWN, ("no",))
    before = path.read_bytes()
    assert apply(leases, lambda _table, _lease: refusal) == refusal
    assert path.read_bytes() == before


# ---- what the file's owner does --------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE backends SET healthy = 0 WHERE id = 'b'",
        "UPDATE backends SET healthy = 1, weight = 3",
        "INSERT OR REPLACE INTO backends SELECT * FROM backends",
    ],
)
def test_whoever_writes_health_takes_it_from_the_lease(path: Path, leases: SqliteLeases, edit: str) -> None:
    apply(leases, writes(healthy=0, expired=True))
    assert seen(leases)[1] == lease(expired=True)
    subprocess.run(["sqlite3", path, edit], check=True)
    assert seen(leases)[1] == lease(expired=False)


def test_table_made_anew_by_hand_is_watched_again(path: Path, leases: SqliteLeases) -> None:
    apply(leases, writes())
    select(path, "CREATE TABLE kept AS SELECT * FROM backends")
    select(path, "DROP TABLE backends")
    select(path, "ALTER TABLE kept RENAME TO backends")
    apply(leases, writes(healthy=0, expired=True))
    select(path, "UPDATE backends SET healthy = 0")
    assert seen(leases)[1] == lease(expired=False)


def test_original_reads_the_file_as_before(path: Path, leases: SqliteLeases) -> None:
    apply(leases, writes())
    query = "SELECT id, app, region, wg_ip, port, healthy, weight, soft_limit, hard_limit FROM backends"
    assert select(path, f"{query} WHERE deleted IS NULL OR deleted = 0") == [
        ("b", "web", "eu", "10.0.0.7", 9001, 1, 2, 100, 150)
    ]


# ---- what goes wrong -------------------------------------------------------------------------


def test_country_in_a_table_without_that_column_is_refused_with_the_remedy(
    path: Path, leases: SqliteLeases
) -> None:
    select(path, "ALTER TABLE backends DROP COLUMN country")
    outcome = apply(leases, writes(country="DE"))
    assert isinstance(outcome, NotWritten)
    assert "ALTER TABLE backends ADD COLUMN country TEXT" in outcome.why
    assert isinstance(apply(leases, writes()), LeaseWrite)


def test_file_that_is_locked_is_left_as_it_was(
    path: Path, leases: SqliteLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.outbound.sqlite_file.BUSY_TIMEOUT_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is locked by another program"):
            apply(leases, writes())
    assert leases.leases() == []


def test_missing_file_is_an_error_and_not_made(path: Path, leases: SqliteLeases) -> None:
    path.unlink()
    with pytest.raises(StoreError, match="does not exist"):
        leases.leases()
    with pytest.raises(StoreError, match="does not exist"):
        apply(leases, writes())
    assert not path.exists()
