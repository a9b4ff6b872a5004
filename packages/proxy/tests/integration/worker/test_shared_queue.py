"""Who waits, in the shared segment: as the contract says, and after a worker's death."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from math import inf

import pytest

from edgeproxy.worker.shared_queue import MAX_LINES
from edgeproxy.worker.shared_state import SharedState, create_segment
from packages.proxy.tests.unit.core.dataplane.queues_contract import APP, CHECKS, MakeQueues


@pytest.fixture
def segment_fd() -> Iterator[int]:
    fd = create_segment(workers=4, affinity_capacity=8)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_segment_keeps_the_contract(check: Callable[[MakeQueues], None], segment_fd: int) -> None:
    check(lambda workers: [SharedState(segment_fd, worker).queue for worker in range(workers)])


def test_in_a_dead_worker_nobody_waits(segment_fd: int) -> None:
    control, one, other = SharedState(segment_fd), SharedState(segment_fd, 0), SharedState(segment_fd, 1)
    for view in (one, other):
        assert view.queue.join(2)
        view.queue.looked(1.0)
        view.queue.publish(APP, 1.0)
    assert control.queue.waiting == 2
    control.clear_worker(0)
    assert control.queue.waiting == 1
    assert other.queue.oldest_elsewhere(APP, 1.0) == inf
    assert other.queue.join(2)


def test_apps_beyond_those_there_is_room_for_are_not_told_of(segment_fd: int) -> None:
    one, other = SharedState(segment_fd, 0).queue, SharedState(segment_fd, 1).queue
    one.looked(1.0)
    for app_key in range(1, MAX_LINES + 2):
        one.publish(app_key, 1.0)
    assert other.oldest_elsewhere(MAX_LINES, 1.0) == 1.0
    assert other.oldest_elsewhere(MAX_LINES + 1, 1.0) == inf
    one.publish(MAX_LINES + 1, None)
    one.publish(5, None)
    one.publish(MAX_LINES + 1, 0.5)
    assert other.oldest_elsewhere(MAX_LINES + 1, 1.0) == 0.5
