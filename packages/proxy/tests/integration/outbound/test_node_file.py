"""The file that a node may lose: written whole, checked when read, replaced when it is no good."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy import stores
from edgeproxy.config import load
from edgeproxy.core.replication.clock import Clock
from edgeproxy.errors import StoreError
from edgeproxy.outbound.node_file import NodeFile, NodeState
from edgeproxy.outbound.store_sqlite import SqliteStore
from packages.proxy.tests.integration.outbound.replicas import Pop, assert_same, sync


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def no_warning(text: str) -> None:
    raise AssertionError(text)


@pytest.mark.feature("replication.changes")
def test_what_was_written_is_read_by_the_next_process(path: Path) -> None:
    file = NodeFile(path, "pop-1", no_warning)
    assert file.state == NodeState("pop-1")
    file.write(origin="pop-1/ab", sequence=7, clock_ms=99, members={"pop-2": "192.0.2.1:4001"})
    file.write(sequence=8)
    assert NodeFile(path, "pop-1", no_warning).state == file.state
    assert file.state == NodeState("pop-1", "pop-1/ab", 8, 99, {"pop-2": "192.0.2.1:4001"})
    assert [each.name for each in path.parent.iterdir()] == ["state.db"]


def test_nothing_new_is_not_written(path: Path) -> None:
    file = NodeFile(path, "pop-1", no_warning)
    file.write(sequence=7)
    before = path.stat()
    file.write(sequence=7)
    assert path.stat() == before


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "other"])
def test_file_that_is_no_good_is_replaced_with_a_warning(path: Path, damage: str) -> None:
    NodeFile(path, "pop-1", no_warning).write(sequence=7)
    content = path.read_bytes()
    damaged = {
        "torn": content[:-3],
        "flipped": content.replace(b"sequence\x07", b"sequence\x06"),
        "empty": b"",
        "other": b"SQLite format 3\0\xff\xfe",
    }
    path.write_bytes(damaged[damage])
    warnings: list[str] = []
    file = NodeFile(path, "pop-1", warnings.append)
    assert file.state == NodeState("pop-1")
    (warning,) = warnings
    assert warning.startswith(f"{path} cannot be used and is replaced: ")
    file.write(sequence=8)
    assert NodeFile(path, "pop-1", no_warning).state.sequence == 8


def test_file_of_another_node_is_replaced_with_a_warning(path: Path) -> None:
    NodeFile(path, "pop-1", no_warning).write(sequence=7)
    warnings: list[str] = []
    assert NodeFile(path, "pop-2", warnings.append).state == NodeState("pop-2")
    assert warnings == [f"{path} is that of pop-1 and is replaced; this POP is pop-2"]


def test_file_that_cannot_be_used_is_an_error(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written: No such file"):
        NodeFile(tmp_path / "none" / "state.db", "pop-1", no_warning).write(sequence=1)
    with pytest.raises(StoreError, match="cannot be read: Is a directory"):
        NodeFile(tmp_path, "pop-1", no_warning)


def test_losing_the_file_does_no_harm(tmp_path: Path, path: Path) -> None:
    first, second = Pop(tmp_path / "a.db", "a"), Pop(tmp_path / "b.db", "b")
    first.add("x")
    sync(first, second)
    first.ahead_ms = 50_000
    first.edit("UPDATE backends SET weight = 5")
    sync(first, second)
    for pop in (first, second):
        # A new process with a new clock, whose wall clock is right again.
        pop.ahead_ms = 0
        pop.start()
        file = NodeFile(path, pop.node, lambda _: None)
        pop.replica._clock = Clock(pop.node, file.state.clock_ms)
        pop.edit("UPDATE backends SET weight = weight + 1")
        sync(first, second)
    assert first.table["x"][6] == 7
    assert_same(first, second)


def test_replica_of_the_settings_remembers_how_far_it_came(tmp_path: Path) -> None:
    config = load(
        {
            "EDGEPROXY_DB_PATH": str(tmp_path / "routing.db"),
            "EDGEPROXY_REPLICATION_ENABLED": "true",
            "EDGEPROXY_REPLICATION_NODE_ID": "pop-1",
            "EDGEPROXY_REPLICATION_DB_PATH": str(tmp_path / "state.db"),
        },
        {},
        None,
    )
    SqliteStore.create(config.db_path)
    replica, file = stores.open_replica(config, no_warning)
    origin = replica.capture().origin
    assert file.state.origin == origin
    assert file.state.clock_ms > 0
    file.write(sequence=70)
    # The database has counted fewer: it went back while nobody looked.
    again, _ = stores.open_replica(config, no_warning)
    assert again.capture().origin != origin
