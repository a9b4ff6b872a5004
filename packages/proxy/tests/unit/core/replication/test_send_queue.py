"""What waits for a peer is bounded, and so is what the peer has to keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.replication.send_queue import OVERHEAD_BYTES, SendQueue

pytestmark = pytest.mark.feature("replication.peers")

COST = 100 + OVERHEAD_BYTES


def drain(queue: SendQueue) -> list[bytes]:
    found = []
    while (wire := queue.take()) is not None:
        found.append(wire)
    return found


def test_messages_leave_in_order() -> None:
    queue = SendQueue()
    assert all(queue.offer(wire, 100) for wire in (b"a", b"b", b"c"))
    assert len(queue) == 3
    assert drain(queue) == [b"a", b"b", b"c"]


def test_nothing_leaves_beyond_the_window_until_something_was_worked_off() -> None:
    queue = SendQueue(window_bytes=2 * COST)
    for wire in (b"a", b"b", b"c", b"d", b"e"):
        queue.offer(wire, 100)
    assert drain(queue) == [b"a", b"b", b"c"]
    assert queue.outstanding_bytes == 3 * COST
    assert queue.worked_off(COST)
    assert drain(queue) == [b"d"]


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    queue = SendQueue(window_bytes=0, queue_bytes=2 * COST)
    queue.offer(b"sent", 100)
    queue.take()
    assert [queue.offer(b"x", 100) for _ in range(3)] == [True, True, False]
    assert queue.dropped == 1
    assert queue.waiting_bytes == 2 * COST


def test_one_message_larger_than_the_queue_is_taken_alone() -> None:
    queue = SendQueue(queue_bytes=10)
    assert queue.offer(b"large", 1_000)
    assert not queue.offer(b"x", 0)


@pytest.mark.parametrize("total", [-1, COST - 1, 3 * COST])
def test_a_peer_cannot_work_off_what_it_did_not_get_or_less_than_before(total: int) -> None:
    queue = SendQueue()
    queue.offer(b"a", 100)
    queue.offer(b"b", 100)
    drain(queue)
    assert queue.worked_off(COST)
    assert not queue.worked_off(total)
    assert queue.outstanding_bytes == COST


@given(st.lists(st.tuples(st.integers(0, 500), st.booleans()), max_size=60))
def test_bounds_hold_and_nothing_taken_is_lost(steps: list[tuple[int, bool]]) -> None:
    queue = SendQueue(window_bytes=1_000, queue_bytes=1_000)
    offered, left, got = 0, 0, 0
    for size, is_worked_off in steps:
        offered += queue.offer(b"x", size)
        left += len(drain(queue))
        if is_worked_off:
            got += queue.outstanding_bytes
            assert queue.worked_off(got)
        assert queue.outstanding_bytes <= 1_000 + 500 + OVERHEAD_BYTES
        assert queue.waiting_bytes <= 1_000
        assert offered == left + len(queue)
