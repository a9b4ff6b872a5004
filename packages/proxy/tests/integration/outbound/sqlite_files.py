"""Routing databases as people make and edit them, and stores that poll them."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.outbound import store_sqlite
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import Row
from testkit.wait import wait_until

ORIGINAL_SCHEMA = """
    CREATE TABLE backends (id TEXT PRIMARY KEY, app TEXT, region TEXT, wg_ip TEXT, port INTEGER,
    healthy INTEGER, weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER DEFAULT 0);
"""
SCHEMA_WITHOUT_KEY = ORIGINAL_SCHEMA.replace(" PRIMARY KEY", "")

# As the guide to testing the original has it.
GUIDE = """
-- Clear existing test backends
DELETE FROM backends WHERE id LIKE 'mock-%';

-- Add mock backends
INSERT INTO backends (id, app, region, wg_ip, port, healthy, weight, soft_limit, hard_limit)
VALUES
  ('mock-eu-1', 'test', 'eu', '127.0.0.1', 9001, 1, 2, 100, 150),
  ('mock-eu-2', 'test', 'eu', '127.0.0.1', 9002, 1, 2, 100, 150),
  ('mock-us-1', 'test', 'us', '127.0.0.1', 9003, 1, 2, 100, 150);
"""
GUIDE_IDS = ["mock-eu-1", "mock-eu-2", "mock-us-1"]


def execute(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(sql)


def shell(path: Path, sql: str) -> str:
    program = shutil.which("sqlite3")
    if program is None:
        pytest.skip("the sqlite3 program is not installed")
    done = subprocess.run([program, path, sql], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def make(path: Path, journal_mode: str = "delete", schema: str = ORIGINAL_SCHEMA) -> Path:
    execute(path, f"PRAGMA journal_mode = {journal_mode}; {schema} {GUIDE}")
    return path


def settled(store: SqliteStore) -> SqliteStore:
    """Poll until the store trusts the stamp it has, so that only a change of the stamp makes it read."""

    def is_settled() -> bool:
        store.poll()
        return store._stamp is not None and store._stamp.is_settled

    wait_until(is_settled, reason="the stamp settles")
    assert store.poll() is None
    return store


def polled(store: SqliteStore) -> dict[object, Row]:
    """The rows by id, read because of the stamp and not because the file is young."""
    wait_until(lambda: store_sqlite._Stamp.of(store.path).is_settled, reason="the file is no longer young")
    rows = store.poll()
    assert rows is not None, "the edit was not seen"
    return {row["id"]: row for row in rows}


def message_of(act: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        act()
    (line,) = str(caught.value).splitlines()
    return line
