"""Tiers do what one big dictionary does, whatever is lost and spoilt; what happens is counted."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from examples.log.tiers import TierCounts, Tiers

MOST_IN_MEMORY, MOST_IN_FILES = 2, 3
KEYS = st.sampled_from("abcdefgh")


class NoSuchKeyError(Exception):
    pass


class Store:
    """As much of boto3's client as the tiers use."""

    class exceptions:  # noqa: N801  as boto3 has it
        NoSuchKey = NoSuchKeyError

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:  # noqa: N803
        self.objects[Key] = Body

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        if Key not in self.objects:
            raise NoSuchKeyError
        return {"Body": io.BytesIO(self.objects[Key])}


def tiers_of(folder: Path, store: Store) -> Tiers:
    return Tiers(store, "bucket", folder, most_in_memory=MOST_IN_MEMORY, most_in_files=MOST_IN_FILES)


class TiersMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        self.store = Store()
        self.tiers = tiers_of(self.folder, self.store)
        self.expected: dict[str, bytes] = {}

    def teardown(self) -> None:
        self._folder.cleanup()

    @rule(key=KEYS, data=st.binary(max_size=20))
    def put(self, key: str, data: bytes) -> None:
        data = self.expected.setdefault(key, data)
        self.tiers.put(key, data)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        if key in self.expected:
            assert self.tiers.get(key) == self.expected[key]
        else:
            with pytest.raises(KeyError):
                self.tiers.get(key)

    @rule()
    def restart(self) -> None:
        self.tiers = tiers_of(self.folder, self.store)

    @precondition(lambda self: any(self.folder.iterdir()))
    @rule(draw=st.data(), spoils=st.booleans())
    def harm_a_file(self, draw: st.DataObject, spoils: bool) -> None:
        path = draw.draw(st.sampled_from(sorted(self.folder.iterdir())))
        if spoils:
            path.write_bytes(path.read_bytes()[:3])
        else:
            path.unlink()

    @invariant()
    def nothing_grows_beyond_its_bounds(self) -> None:
        assert len(self.tiers._in_memory) <= MOST_IN_MEMORY
        assert len([*self.folder.iterdir()]) <= MOST_IN_FILES

    @invariant()
    def what_is_in_memory_is_not_in_files(self) -> None:
        names = {bytes.fromhex(path.name).decode() for path in self.folder.iterdir()}
        assert names.isdisjoint(self.tiers._in_memory)

    @invariant()
    def all_is_in_the_store(self) -> None:
        assert self.store.objects == self.expected


TestTiers = TiersMachine.TestCase
# Each step works on real files.
TestTiers.settings = settings(max_examples=20, stateful_step_count=30)


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    tiers = tiers_of(tmp_path, Store())
    for key in "abc":
        tiers.put(key, key.encode())
    assert tiers.memory.evictions == 1
    assert tiers.get("b") == b"b"
    assert tiers.get("a") == b"a"  # from a file; c was not asked for and makes room
    assert (tiers.memory, tiers.files) == (TierCounts(1, 1, 2), TierCounts(1, 0, 0))
    assert tiers.get("c") == b"c"
    assert tiers.files.hits == 2


def test_what_neither_memory_nor_files_have_comes_from_the_store(tmp_path: Path) -> None:
    tiers = tiers_of(tmp_path, Store())
    for key in "abcdef":
        tiers.put(key, key.encode())
    # e and f are in memory, b to d in files.
    assert tiers.files.evictions == 1
    assert tiers.get("a") == b"a"
    assert tiers.store == TierCounts(1, 0, 0)
    assert tiers.get("a") == b"a"
    assert tiers.memory.hits == 1


def test_files_outlive_the_process_and_memory_does_not(tmp_path: Path) -> None:
    store = Store()
    before = tiers_of(tmp_path, store)
    for key in "abc":
        before.put(key, key.encode())
    after = tiers_of(tmp_path, store)
    assert (after.get("a"), after.get("c")) == (b"a", b"c")
    assert (after.files, after.store) == (TierCounts(1, 1, 0), TierCounts(1, 0, 0))


def test_damaged_file_is_a_miss(tmp_path: Path) -> None:
    tiers = tiers_of(tmp_path, Store())
    for key in "abc":
        tiers.put(key, b"as it was put")
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"\0" + file.read_bytes()[1:])
    assert tiers.get("a") == b"as it was put"
    assert (tiers.files.misses, tiers.store.hits) == (1, 1)


def test_what_is_not_there_is_counted_by_every_tier(tmp_path: Path) -> None:
    tiers = tiers_of(tmp_path, Store())
    with pytest.raises(KeyError):
        tiers.get("nothing")
    assert [each.misses for each in (tiers.memory, tiers.files, tiers.store)] == [1, 1, 1]


def test_bytes_that_were_stored_are_counted(tmp_path: Path) -> None:
    tiers = tiers_of(tmp_path, Store())
    tiers.put("a", bytes(10))
    tiers.put("b", bytes(5))
    assert tiers.stored_bytes == 15
