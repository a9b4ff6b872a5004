"""What the tests of stores in files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.outbound import sqlite_file, store_sqlite


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust a file sooner, and wait less for its locks."""
    # A kernel tick is at most 10 ms, and that is the granularity of file systems that tests run on.
    monkeypatch.setattr(store_sqlite, "STAMP_GRANULARITY_S", 0.02)
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "routing.db"


@pytest.fixture(params=["delete", "wal"])
def journal_mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)
