"""What a node's file knows when the node begins anew."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from examples.log.node import Disk
from examples.log.stored import StoredDisk
from examples.log.wire import Entry


def reopened(file: Path) -> Disk:
    with closing(StoredDisk(file)) as disk:
        return Disk(disk.term, disk.voted_for, disk.entries)


def test_new_file_knows_nothing(tmp_path: Path) -> None:
    assert reopened(tmp_path / "a.db") == Disk()


def test_everything_saved_is_known_again(tmp_path: Path, rng: Random) -> None:
    for _ in range(10):
        with closing(StoredDisk(tmp_path / "a.db")) as disk:
            for _ in range(rng.randrange(4)):
                for _ in range(rng.randrange(4)):
                    disk.append(Entry(disk.term, rng.choice([None, rng.randbytes(3)])))
                if disk.entries and rng.random() < 0.5:
                    disk.cut(rng.randint(1, len(disk.entries)))
                if rng.random() < 0.5:
                    disk.term, disk.voted_for = disk.term + 1, rng.choice([None, "b"])
                disk.save()
        assert reopened(tmp_path / "a.db") == Disk(disk.term, disk.voted_for, disk.entries)


def test_what_was_not_saved_is_forgotten(tmp_path: Path) -> None:
    with closing(StoredDisk(tmp_path / "a.db")) as disk:
        disk.append(Entry(1, b"kept"))
        disk.term, disk.voted_for = 1, "a"
        disk.save()
        disk.append(Entry(1, b"not kept"))
        disk.term = 2
    assert reopened(tmp_path / "a.db") == Disk(1, "a", [Entry(1, b"kept")])


def test_lost_log_leaves_the_vote(tmp_path: Path) -> None:
    with closing(StoredDisk(tmp_path / "a.db")) as disk:
        disk.append(Entry(1, b"x"))
        disk.term, disk.voted_for = 1, "a"
        disk.save()
        disk.lose()
        disk.save()
    assert reopened(tmp_path / "a.db") == Disk(1, "a")


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(sqlite3.Error):
        StoredDisk(tmp_path / "a.db")
