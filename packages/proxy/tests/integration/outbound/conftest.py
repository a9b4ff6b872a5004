"""What the tests of stores in files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.outbound import sqlite_file, store_sqlite
from packages.proxy.tests.integration.outbound.replicas import Make, Pop, sync


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


@pytest.fixture
def make_pop(tmp_path: Path) -> Make:
    """Makes members that replicate, each with a file of its own."""
    return lambda node, **settings: Pop(tmp_path / f"{node}.db", node, **settings)


@pytest.fixture
def two_pops(make_pop: Make) -> tuple[Pop, Pop]:
    """Two members that agree on the rows a and b."""
    first, second = make_pop("pop-1"), make_pop("pop-2")
    first.add("a", "b")
    sync(first, second)
    return first, second
