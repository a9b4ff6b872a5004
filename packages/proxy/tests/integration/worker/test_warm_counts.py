"""Warm connections in the shared segment: counted beside clients', and never together beyond a limit."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from edgeproxy.worker.shared_state import SharedState, create_segment


@pytest.fixture
def segment_fd() -> Iterator[int]:
    fd = create_segment(workers=4, affinity_capacity=8)
    yield fd
    os.close(fd)


def test_only_so_many_are_kept_by_all_workers_together(segment_fd: int) -> None:
    one, other = SharedState(segment_fd, 0), SharedState(segment_fd, 1)
    assert one.warm.acquire(3, most=2, hard_limit=0)
    assert other.warm.acquire(3, most=2, hard_limit=0)
    assert not one.warm.acquire(3, most=2, hard_limit=0)
    assert one.warm.acquire(4, most=2, hard_limit=0)
    assert one.warm.count(3) == 2
    other.warm.release(3)
    assert one.warm.acquire(3, most=2, hard_limit=0)


def test_they_take_only_what_clients_leave(segment_fd: int) -> None:
    one, other = SharedState(segment_fd, 0), SharedState(segment_fd, 1)
    assert other.acquire(3, hard_limit=3)
    assert one.warm.acquire(3, most=9, hard_limit=3)
    assert one.warm.acquire(3, most=9, hard_limit=3)
    assert not one.warm.acquire(3, most=9, hard_limit=3)
    assert one.connections(3) == 1


def test_a_client_is_given_a_place_that_they_take_up_and_asks_for_room(segment_fd: int) -> None:
    one, other = SharedState(segment_fd, 0), SharedState(segment_fd, 1)
    assert one.warm.acquire(3, most=9, hard_limit=1)
    assert not one.warm.is_crowded(3, hard_limit=1)
    asked = one.warm.times_asked()
    assert other.acquire(3, hard_limit=1)
    assert one.warm.is_crowded(3, hard_limit=1)
    assert not one.warm.is_crowded(3, hard_limit=0)
    other.warm.ask_for_room()
    assert one.warm.times_asked() != asked
    one.warm.release(3)
    assert not one.warm.is_crowded(3, hard_limit=1)


def test_those_of_a_dead_worker_are_gone(segment_fd: int) -> None:
    control, one, other = SharedState(segment_fd), SharedState(segment_fd, 0), SharedState(segment_fd, 1)
    for view in (one, other):
        assert view.warm.acquire(3, most=2, hard_limit=0)
    control.clear_worker(0)
    assert control.warm.count(3) == 1
