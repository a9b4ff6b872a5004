"""Connections of clients in the shared segment: exact over processes, whole after a death."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from edgeproxy.worker import places
from edgeproxy.worker.shared_state import SharedState, create_segment
from packages.proxy.tests.integration.worker.test_shared_state import Child
from packages.proxy.tests.unit.core.dataplane.places_contract import CHECKS, MakePlaces


@pytest.fixture
def segment_fd() -> Iterator[int]:
    with ExitStack() as at_end:
        fd = create_segment(workers=4, affinity_capacity=8)
        at_end.callback(os.close, fd)
        yield fd


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_segment_keeps_the_contract(check: Callable[[MakePlaces], None], segment_fd: int) -> None:
    check(lambda workers: [SharedState(segment_fd, worker).places for worker in range(workers)])


def test_a_dead_workers_places_are_given_back_and_no_others(segment_fd: int) -> None:
    control, one, other = SharedState(segment_fd), SharedState(segment_fd, 0), SharedState(segment_fd, 1)
    for view in (one, other):
        assert view.places.enter(2)
        assert view.places.enter_client(7, 2) is not None
    assert control.places.connections == control.places.connections_of(7) == 2
    control.clear_worker(0)
    assert control.places.connections == control.places.connections_of(7) == 1
    assert other.places.enter(2)
    assert not other.places.enter(2)


def test_an_unknown_client_has_no_connections(segment_fd: int) -> None:
    assert SharedState(segment_fd).places.connections_of(7) == 0


def tags_of_one_set(count: int) -> list[int]:
    return [1 + number * places._SETS for number in range(count)]


def test_a_client_for_whom_there_is_no_room_is_turned_away_until_another_leaves(segment_fd: int) -> None:
    view = SharedState(segment_fd, 0).places
    tags = tags_of_one_set(places._WAYS + 2)
    entries = [view.enter_client(tag, 1) for tag in tags]
    assert entries[places._WAYS :] == [None, None]
    assert None not in entries[: places._WAYS]
    assert entries[5] is not None
    view.leave_client(entries[5])
    assert view.enter_client(tags[-1], 1) == entries[5]
    assert view.connections_of(tags[5]) == 0
    assert view.connections_of(tags[4]) == 1


def test_a_burst_is_exact_when_processes_contend_for_it(segment_fd: int) -> None:
    script = """
import sys
from edgeproxy.worker.shared_state import SharedState
state = SharedState(int(sys.argv[1]), int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
places = state.places
print(sum(places.enter(500) for _ in range(400)), flush=True)
print(sum(places.enter_client(7, 300) is not None for _ in range(400)), flush=True)
sys.stdin.readline()
"""
    children = [Child(script, segment_fd, arguments=(worker,)) for worker in range(2)]
    try:
        assert [child.line() for child in children] == ["ready"] * 2
        for child in children:
            child.say("go")
        taken = [(int(child.line()), int(child.line())) for child in children]
        assert sum(entered for entered, _ in taken) == 500
        assert sum(entered for _, entered in taken) == 300
    finally:
        for child in children:
            child.kill()
    control = SharedState(segment_fd)
    assert (control.places.connections, control.places.connections_of(7)) == (500, 300)
