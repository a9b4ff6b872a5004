"""The clients' buckets in real shared memory: isolated, bounded, exact over processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edgeproxy.core.dataplane.rate_limit import TokenBucket
from edgeproxy.worker.shared_state import SharedState, create_segment

TERMS = TokenBucket(burst=10, per_s=1)
FIRST, OTHER = 7, 8


@pytest.fixture
def segment() -> Iterator[int]:
    """A segment of two sets of eight clients: tags that are odd share one, those that are even the other."""
    fd = create_segment(1, 8, clients_capacity=16)
    yield fd
    os.close(fd)


@pytest.fixture
def state(segment: int) -> SharedState:
    return SharedState(segment)


def take_all(state: SharedState, tag: int, now_s: float) -> int:
    taken = 0
    while state.clients.take(TERMS, tag, now_s):
        taken += 1
    return taken


def test_capacity_is_rounded_up_to_whole_sets() -> None:
    fd = create_segment(1, 8, clients_capacity=17)
    assert SharedState(fd).clients.buckets == 3
    os.close(fd)


def test_without_a_limit_there_is_no_table() -> None:
    fd = create_segment(1, 8)
    assert SharedState(fd).clients.buckets == 0
    os.close(fd)


def test_clients_do_not_touch_each_others_buckets(state: SharedState) -> None:
    assert take_all(state, FIRST, 100.0) == 10
    assert take_all(state, OTHER, 100.0) == 10
    assert take_all(state, FIRST + 2, 100.0) == 10


def test_a_bucket_is_one_for_all_processes(segment: int) -> None:
    views = [SharedState(segment), SharedState(segment)]
    assert sum(views[number % 2].clients.take(TERMS, FIRST, 100.0) for number in range(50)) == 10


def test_a_cost_takes_so_many_tokens(state: SharedState) -> None:
    assert state.clients.take(TERMS, FIRST, 100.0, cost=8)
    assert not state.clients.take(TERMS, FIRST, 100.0, cost=3)
    assert state.clients.take(TERMS, FIRST, 100.0, cost=2)


def test_remaining_tells_the_level_and_changes_nothing(state: SharedState) -> None:
    assert state.clients.remaining(TERMS, FIRST, 100.0) == 10
    state.clients.take(TERMS, FIRST, 100.0, cost=9.5)
    assert [state.clients.remaining(TERMS, FIRST, now_s) for now_s in (100.0, 100.0, 101.0)] == [
        0.5,
        0.5,
        1.5,
    ]


def test_one_client_is_cleared_and_the_others_are_not(state: SharedState) -> None:
    take_all(state, FIRST, 100.0)
    take_all(state, OTHER, 100.0)
    state.clients.clear(FIRST)
    state.clients.clear(99)
    assert take_all(state, FIRST, 100.0) == 10
    assert take_all(state, OTHER, 100.0) == 0


def test_all_clients_are_cleared(state: SharedState) -> None:
    for tag in range(1, 6):
        take_all(state, tag, 100.0)
    assert state.clients.clear_all() == 5
    assert state.clients.clear_all() == 0
    assert take_all(state, FIRST, 100.0) == 10


def test_sweeping_forgets_those_that_are_full_again(state: SharedState) -> None:
    take_all(state, FIRST, 100.0)
    state.clients.take(TERMS, OTHER, 105.0)
    now_s = 100.0 + TERMS.fill_s + 1
    assert state.clients.sweep(now_s - TERMS.fill_s, 0, 1) == 0, "the set of even tags"
    assert state.clients.sweep(now_s - TERMS.fill_s, 1, 100) == 1
    assert state.clients.remaining(TERMS, OTHER, 105.0) == 9


def test_where_there_is_no_room_the_one_unchanged_for_longest_goes(state: SharedState) -> None:
    for number in range(8):
        take_all(state, 1 + 2 * number, 100.0 + number)
    state.clients.take(TERMS, 1, 109.0)
    take_all(state, 101, 109.0)
    levels = {tag: state.clients.remaining(TERMS, tag, 109.0) for tag in (1, 3, 5, 101)}
    assert levels[3] == 10, "forgotten"
    assert levels[1] == 8
    assert levels[101] == 0
    assert levels[5] == 7


def test_a_worker_whose_turn_began_earlier_finds_what_a_later_one_left(state: SharedState) -> None:
    assert state.clients.take(TERMS, FIRST, 105.0, cost=5)
    assert take_all(state, FIRST, 100.0) == 5
    assert state.clients.remaining(TERMS, FIRST, 106.0) == 1


TAKER = """
import sys
from edgeproxy.core.dataplane.rate_limit import TokenBucket
from edgeproxy.worker.shared_state import SharedState

clients = SharedState(int(sys.argv[1])).clients
terms = TokenBucket(burst=5_000, per_s=1e-6)
print("ready", flush=True)
input()
print(sum(clients.take(terms, 7, 100.0) for _ in range(3_000)))
"""


def test_a_burst_is_exact_when_processes_contend_for_it(segment: int) -> None:
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, str(segment)],
            pass_fds=[segment],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for taker in takers:
        assert taker.stdout is not None
        assert taker.stdout.readline() == "ready\n"
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("\n")
        taker.stdin.flush()
    assert sum(int(taker.communicate()[0]) for taker in takers) == 5_000
