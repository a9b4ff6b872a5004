"""Affinity on disk: what is written is read again, and whatever else is there is nothing."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from edgeproxy.core.dataplane.affinity import Binding
from edgeproxy.runtime import affinity_file
from edgeproxy.runtime.affinity_file import FILE_NAME, SavedAffinity


class FakeBindings:
    """A segment's table without limits that knows when it may be written."""

    def __init__(self, secret: int = 42, stored: dict[int, Binding] | None = None) -> None:
        self.secret = secret
        self.stored = stored or {}
        self.locked: int | None = None

    def bindings(self) -> Iterable[tuple[int, Binding]]:
        return self.stored.items()

    def lock(self, tag: int) -> None:
        assert self.locked is None
        self.locked = tag

    def unlock(self, tag: int) -> None:
        assert self.locked == tag
        self.locked = None

    def put(self, tag: int, binding: Binding) -> None:
        assert self.locked == tag
        self.stored[tag] = binding


TTL_S = 600.0


def save(folder: Path, stored: dict[int, Binding], now_s: float = 1000.0, wall_s: float = 5e9) -> int:
    return affinity_file.save(folder, FakeBindings(stored=stored), now_s, wall_s, TTL_S)


def restored(folder: Path, now_s: float = 10.0, wall_s: float = 5e9) -> dict[int, Binding]:
    saved = affinity_file.load(folder)
    assert saved is not None
    bindings = FakeBindings()
    count = affinity_file.restore(saved, bindings, now_s, wall_s, TTL_S)
    assert count == len(bindings.stored)
    return bindings.stored


@pytest.mark.feature("affinity.saved")
def test_bindings_come_back_with_the_age_they_had(tmp_path: Path) -> None:
    stored = {7: Binding(11, 22, last_use_s=990.0), 2**64 - 1: Binding(2**64 - 1, 0, last_use_s=1000.0)}
    assert save(tmp_path, stored) == 2
    assert restored(tmp_path, now_s=10.0) == {
        7: Binding(11, 22, last_use_s=0.0),
        2**64 - 1: Binding(2**64 - 1, 0, last_use_s=10.0),
    }


def test_the_secret_comes_back_without_which_tags_mean_nothing(tmp_path: Path) -> None:
    save(tmp_path, {})
    saved = affinity_file.load(tmp_path)
    assert saved is not None
    assert saved.secret == 42


def test_expired_bindings_are_not_saved(tmp_path: Path) -> None:
    assert save(tmp_path, {1: Binding(1, 1, last_use_s=400.0), 2: Binding(2, 2, last_use_s=400.1)}) == 1
    assert restored(tmp_path).keys() == {2}


def test_the_time_since_they_were_saved_counts(tmp_path: Path) -> None:
    save(tmp_path, {1: Binding(1, 1, last_use_s=700.0), 2: Binding(2, 2, last_use_s=900.0)}, wall_s=5e9)
    assert restored(tmp_path, now_s=1000.0, wall_s=5e9 + 300) == {2: Binding(2, 2, last_use_s=600.0)}


def test_a_clock_that_was_set_back_makes_nothing_younger(tmp_path: Path) -> None:
    save(tmp_path, {1: Binding(1, 1, last_use_s=900.0)}, wall_s=5e9)
    assert restored(tmp_path, now_s=1000.0, wall_s=4e9) == {1: Binding(1, 1, last_use_s=900.0)}


def test_makes_the_folder_and_lets_only_the_owner_read(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "of" / "this"
    save(folder, {1: Binding(1, 1, last_use_s=1000.0)})
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600


def test_replaces_what_was_saved_before(tmp_path: Path) -> None:
    save(tmp_path, {1: Binding(1, 1, last_use_s=1000.0)})
    save(tmp_path, {2: Binding(2, 2, last_use_s=1000.0)})
    assert restored(tmp_path).keys() == {2}


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(OSError, match="state"):
        save(tmp_path / "state", {})


WHOLE = msgspec.msgpack.encode(SavedAffinity(1, 42, 5e9, [(1, 1, 1, 0.0)]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe garbage",
        WHOLE[:-1],
        WHOLE + b"more",
        msgspec.msgpack.encode({"format": 1}),
        msgspec.msgpack.encode(SavedAffinity(2, 42, 5e9, [])),
        msgspec.msgpack.encode([1, 42, 5e9, [("no", "binding")]]),
    ],
    ids=["empty", "garbage", "cut off", "too long", "other shape", "other format", "other entries"],
)
def test_a_file_that_is_of_no_use_is_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert affinity_file.load(tmp_path) is None


def test_a_file_that_is_not_there_or_no_file_is_nothing(tmp_path: Path) -> None:
    assert affinity_file.load(tmp_path) is None
    (tmp_path / FILE_NAME).mkdir()
    assert affinity_file.load(tmp_path) is None
