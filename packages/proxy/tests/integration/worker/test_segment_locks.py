"""What changes in the shared segment under a lock, and under which: between them, nobody else's step fits."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from edgeproxy.core.dataplane.affinity import Binding
from edgeproxy.core.dataplane.rate_limit import TokenBucket
from edgeproxy.worker.shared_state import MAX_SLOTS, SharedState, create_segment

SLOT, TAG = 3, 7
TERMS = TokenBucket(burst=10, per_s=1)


@dataclass(slots=True)
class Step:
    """Something that a process does in one step for all others, and where its effect is seen."""

    do: Callable[[SharedState], object]
    see: Callable[[SharedState], object]


def bind(state: SharedState, tag: int = TAG) -> None:
    state.lock(tag)
    state.put(tag, Binding(5, 0, 1.0))
    state.unlock(tag)


STEPS = {
    "a place on a backend": Step(lambda state: state.acquire(SLOT, 9), lambda state: state.connections(SLOT)),
    "a place of a trial": Step(
        lambda state: state.acquire_trial(SLOT, 9), lambda state: state.connections(SLOT)
    ),
    "a trial": Step(lambda state: state.grant_trial(SLOT, 5), lambda state: state._trials[SLOT]),
    "a warm connection": Step(
        lambda state: state.warm.acquire(SLOT, most=9, hard_limit=9), lambda state: state.warm.count(SLOT)
    ),
    "a place of all": Step(lambda state: state.places.enter(9), lambda state: state.places.connections),
    "a place of a client": Step(
        lambda state: state.places.enter_client(TAG, 9), lambda state: state.places.connections_of(TAG)
    ),
    "a place in the queue": Step(lambda state: state.queue.join(9), lambda state: state.queue.waiting),
    "a client's token": Step(
        lambda state: state.clients.take(TERMS, TAG, 100.0), lambda state: state.clients._find(TAG)
    ),
    "a binding": Step(bind, lambda state: state.get(TAG)),
    "a row": Step(lambda state: state.reclaim_rows(), lambda state: tuple(state._in_use[:3])),
}
REFUSED = {
    "a place on a backend": lambda state: state.acquire(SLOT, 1),
    "a place of a trial": lambda state: state.acquire_trial(SLOT, 1),
    "a warm connection": lambda state: state.warm.acquire(SLOT, most=0, hard_limit=9),
    "a place of all": lambda state: state.places.enter(0),
    "a place of a client": lambda state: (
        state.places.enter_client(TAG, 0) or state.places.enter_client(TAG, 1)
    ),
    "a place in the queue": lambda state: state.queue.join(0),
    "a client's token": lambda state: state.clients.take(TERMS, TAG, 100.0, cost=11.0),
}


@dataclass(slots=True)
class Locks:
    """Takes and frees the locks, and notes what was to be seen at each."""

    see: Callable[[], object]
    events: list[tuple[int, int, int, object]] = field(default_factory=list)
    real: Callable[..., None] = fcntl.lockf

    def __call__(self, fd: int, operation: int, length: int, start: int) -> None:
        self.events.append((operation, length, start, self.see()))
        self.real(fd, operation, length, start)


@pytest.fixture
def state() -> Iterator[SharedState]:
    """A worker's view; row 2 is abandoned."""
    fd = create_segment(workers=3, affinity_capacity=64, clients_capacity=64)
    view = SharedState(fd, 0)
    view.grant_trial(SLOT, 3)
    view._in_use[2] = 1
    yield view
    os.close(fd)


def locks_of(
    state: SharedState, do: Callable[[SharedState], object], see: Callable[[SharedState], object]
) -> list[tuple[int, int, int, object]]:
    with pytest.MonkeyPatch.context() as patch:
        locks = Locks(lambda: see(state))
        patch.setattr(fcntl, "lockf", locks)
        do(state)
        return locks.events


@pytest.mark.parametrize("name", STEPS)
def test_it_changes_between_taking_and_freeing_one_lock(state: SharedState, name: str) -> None:
    step = STEPS[name]
    before = step.see(state)
    # The last pair: who looks for abandoned rows first tries whether their locks are free.
    taken, freed = locks_of(state, step.do, step.see)[-2:]
    after = step.see(state)
    assert before != after
    assert taken == (fcntl.LOCK_EX, 1, taken[2], before)
    assert freed == (fcntl.LOCK_UN, 1, taken[2], after)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_frees_the_lock_and_changes_nothing(state: SharedState, name: str) -> None:
    step = STEPS[name]
    if name in ("a place on a backend", "a place of a trial", "a place of a client"):
        step.do(state)
    before = step.see(state)
    taken, freed = locks_of(state, REFUSED[name], step.see)[-2:]
    assert taken == (fcntl.LOCK_EX, 1, taken[2], before)
    assert freed == (fcntl.LOCK_UN, 1, taken[2], before)


def test_what_has_nothing_to_do_with_each_other_has_locks_of_its_own(state: SharedState) -> None:
    steps = {
        **STEPS,
        "another backend": Step(lambda state: state.acquire(SLOT + 1, 9), lambda _: None),
        "the last backend": Step(lambda state: state.acquire(65_535, 9), lambda _: None),
        "another client's token": Step(lambda state: state.clients.take(TERMS, TAG + 1, 1.0), lambda _: None),
        "another client's place": Step(lambda state: state.places.enter_client(TAG + 1, 9), lambda _: None),
        "another binding": Step(lambda state: bind(state, TAG + 1), lambda _: None),
    }
    taken = {name: locks_of(state, step.do, step.see)[-1][2] for name, step in steps.items()}
    # What counts connections to one backend must be one step with what else does.
    of_one_backend = {taken.pop(name) for name in ("a place of a trial", "a trial", "a warm connection")}
    assert of_one_backend == {taken["a place on a backend"]}
    assert len(set(taken.values())) == len(taken)


@pytest.mark.parametrize(
    "do",
    [
        lambda state: state.clients.remaining(TERMS, TAG, 100.0),
        lambda state: state.clients.clear(TAG),
        lambda state: state.clients.sweep(200.0, 0, state.clients.buckets),
    ],
    ids=["look", "clear", "sweep"],
)
def test_a_clients_bucket_is_looked_at_and_cleared_under_the_lock_of_its_tokens(
    state: SharedState, do: Callable[[SharedState], object]
) -> None:
    step = STEPS["a client's token"]
    lock = locks_of(state, step.do, step.see)[0][2]
    events = [event[:3] for event in locks_of(state, do, lambda _: None)]
    assert events == [(fcntl.LOCK_EX, 1, lock), (fcntl.LOCK_UN, 1, lock)]


def test_a_reclaimed_row_leaves_no_connection_behind(state: SharedState) -> None:
    state._counts[2 * MAX_SLOTS + SLOT] = 5
    state._look_at_rows()
    assert state.connections(SLOT) == 5
    # Its own, too: to the process that holds a lock it looks free.
    assert state.reclaim_rows() == 2
    assert state._counts[2 * MAX_SLOTS + SLOT] == 0
    assert state.changed_slots() is None
    assert state.connections(SLOT) == 0
