"""Cutting writes into messages."""

from __future__ import annotations

import msgspec
import pytest

from edgeproxy.core.replication.messages import KINDS, MAX_BYTES, MAX_WRITES, batches, row_bytes, write_bytes
from edgeproxy.core.replication.model import Cell, Dot, Group, RowState, Stamp, Write

pytestmark = pytest.mark.feature("replication.changes")


def write(number: int, text: str = "") -> Write:
    return Write(Dot("a/1", number), Stamp(number, 0, "a"), "x", {Group.IDENTITY: {"app": text, "port": 80}})


def test_nothing_makes_no_message() -> None:
    assert batches([]) == []


def test_so_many_writes_are_in_one_message() -> None:
    writes = [write(number) for number in range(1, 2 * MAX_WRITES + 2)]
    cut = batches(writes)
    assert [len(each) for each in cut] == [MAX_WRITES, MAX_WRITES, 1]
    assert [each for batch in cut for each in batch] == writes


def test_long_writes_are_sent_in_smaller_numbers() -> None:
    writes = [write(number, "x" * (MAX_BYTES // 3)) for number in range(1, 6)]
    assert [len(each) for each in batches(writes)] == [2, 2, 1]


def test_one_that_is_too_long_is_sent_alone() -> None:
    assert [len(each) for each in batches([write(1), write(2, "x" * 2 * MAX_BYTES), write(3)])] == [1, 1, 1]


def test_what_is_counted_is_not_less_than_what_is_sent() -> None:
    each = write(1, "some text")
    row = RowState("x", {Group.IDENTITY: Cell(each.stamp, each.dot, each.groups[Group.IDENTITY])})
    assert len(msgspec.msgpack.encode(each)) <= write_bytes(each)
    assert len(msgspec.msgpack.encode(row)) <= row_bytes(row)


def test_kinds_are_those_of_frames() -> None:
    assert sorted(KINDS) == list(range(16, 22))
