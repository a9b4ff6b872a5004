"""The shared segment, real memory and real processes: exact at a limit, and whole after any death."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from edgeproxy.core.dataplane.affinity import Binding
from edgeproxy.errors import EdgeproxyError
from edgeproxy.worker import shared_state
from edgeproxy.worker.shared_state import MAX_SLOTS, SharedState, create_segment
from packages.proxy.tests.unit.core.dataplane.shared_contract import CHECKS, MakeViews

RING = shared_state._RING

MakeSegment = Callable[..., int]


@pytest.fixture
def make_segment() -> Iterator[MakeSegment]:
    """Make segments as `create_segment` does, closed when the test is over."""
    with ExitStack() as at_end:

        def make(workers: int = 1, affinity_capacity: int = 8, secret: int | None = None) -> int:
            fd = create_segment(workers, affinity_capacity, secret)
            at_end.callback(os.close, fd)
            return fd

        yield make


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_segment_keeps_the_contract(
    check: Callable[[MakeViews], None], make_segment: MakeSegment
) -> None:
    def make_views(workers: int) -> list[SharedState]:
        fd = make_segment(workers)
        return [SharedState(fd, worker) for worker in range(workers)]

    check(make_views)


class Child:
    """A process that runs ``script`` with the descriptors of ``fds`` as its first arguments."""

    def __init__(self, script: str, *fds: int, arguments: Sequence[object] = ()) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, (*fds, *arguments))],
            pass_fds=fds,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """The next line it prints."""
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().strip()

    def say(self, line: str) -> None:
        """Send it a line."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(f"{line}\n")
        self._popen.stdin.flush()

    def kill(self) -> None:
        self._popen.kill()
        self._popen.communicate()

    def finish(self) -> None:
        self._popen.communicate()
        assert self._popen.returncode == 0


StartChild = Callable[..., Child]


@pytest.fixture
def start_child() -> Iterator[StartChild]:
    """Start a `Child`; none outlives the test."""
    children: list[Child] = []

    def start(script: str, *fds: int, arguments: Sequence[object] = ()) -> Child:
        children.append(Child(script, *fds, arguments=arguments))
        return children[-1]

    yield start
    for child in children:
        child.kill()


# ---- connections ---------------------------------------------------------------------------------

# Each process reports the places it holds to a judge that the segment knows nothing of: a count in a file,
# guarded by a lock of another kind. The most that were ever held at once stands beside it.
CONTENDER = """
import fcntl, mmap, os, struct, sys
from edgeproxy.worker.shared_state import SharedState

segment_fd, judge_fd, worker, limit, rounds = map(int, sys.argv[1:])
state = SharedState(segment_fd, worker)
judge = mmap.mmap(judge_fd, 0)
lock = open(f"/proc/self/fd/{judge_fd}", "rb+")

def report(change):
    fcntl.flock(lock, fcntl.LOCK_EX)
    held, most = struct.unpack("qq", judge[:16])
    held += change
    judge[:16] = struct.pack("qq", held, max(most, held))
    fcntl.flock(lock, fcntl.LOCK_UN)

print("ready", flush=True)
input()
taken = 0
while taken < rounds:
    if state.acquire(7, limit):
        taken += 1
        report(1)
        os.sched_yield()
        report(-1)
        state.release(7)
print("done", flush=True)
"""


def test_a_limit_is_exact_when_processes_contend_for_it(
    make_segment: MakeSegment, start_child: StartChild, tmp_path: Path
) -> None:
    workers, limit, rounds = 4, 2, 100
    fd = make_segment(workers)
    judge_path = tmp_path / "judge"
    judge_path.write_bytes(bytes(mmap.PAGESIZE))
    with judge_path.open("rb+") as judge:
        children = [
            start_child(CONTENDER, fd, judge.fileno(), arguments=(worker, limit, rounds))
            for worker in range(workers)
        ]
        for child in children:
            assert child.line() == "ready"
        for child in children:
            child.say("go")
        for child in children:
            assert child.line() == "done"
            child.finish()
        held, most = struct.unpack("qq", judge_path.read_bytes()[:16])
    assert held == 0
    assert most == limit, "contention there was, and the limit held"
    assert SharedState(fd).connections(7) == 0


HOLDER = """
import sys
from edgeproxy.worker.shared_state import SharedState

class Stuck(SharedState):
    def connections(self, slot):
        print("holding", flush=True)
        return input()

kind, fd = sys.argv[2], int(sys.argv[1])
if kind == "place":
    Stuck(fd, 0).acquire(7, 1)
else:
    state = SharedState(fd, 0)
    state.lock(7)
    print("holding", flush=True)
    input()
"""


def is_locked(fd: int, start: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
    except OSError:
        return True
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, start)
    return False


TRY_LOCKS = """
import fcntl, sys
fd, first, count = map(int, sys.argv[1:])
for place in range(first, first + count):
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except BlockingIOError:
        print(place - first)
print("done")
"""


def test_no_call_leaves_a_slot_locked(make_segment: MakeSegment, start_child: StartChild) -> None:
    fd = make_segment()
    state = SharedState(fd, 0)
    state.grant_trial(3, 1)
    assert state.acquire_trial(3, 0)
    assert not state.acquire_trial(3, 0)
    assert state.acquire(4, 1)
    assert not state.acquire(4, 1)
    state.release(4)
    # Every call locks and unlocks, so that one of them would make good what another left on its slot.
    state.grant_trial(5, 1)
    assert start_child(TRY_LOCKS, fd, arguments=[shared_state._LOCKS, 8]).line() == "done"


def test_the_parts_of_the_segment_lie_apart(make_segment: MakeSegment) -> None:
    state = SharedState(make_segment(2), 0)
    parts = [state._header, state._in_use, state._counts, *state._rings, state._table, state._trials]
    starts = [ctypes.addressof(ctypes.c_char.from_buffer(part)) for part in parts]
    extents = sorted(zip(starts, (part.nbytes for part in parts), strict=True))
    for (start, size_bytes), (following, _) in pairwise(extents):
        assert start + size_bytes <= following


def test_a_process_killed_while_it_takes_a_place_holds_up_nobody(
    make_segment: MakeSegment, start_child: StartChild
) -> None:
    fd = make_segment(2)
    child = start_child(HOLDER, fd, arguments=("place",))
    assert child.line() == "holding"
    assert is_locked(fd, shared_state._LOCKS + 7)
    child.kill()
    state = SharedState(fd, 1)
    assert state.acquire(7, 1)
    assert state.connections(7) == 1


def test_a_process_killed_while_it_holds_a_binding_holds_up_nobody(
    make_segment: MakeSegment, start_child: StartChild
) -> None:
    fd = make_segment(2, affinity_capacity=80)
    child = start_child(HOLDER, fd, arguments=("binding",))
    assert child.line() == "holding"
    assert is_locked(fd, 7)
    assert not is_locked(fd, 6)
    child.kill()
    state = SharedState(fd, 1)
    state.lock(7)
    state.put(7, Binding(1, 1, 1.0))
    state.unlock(7)
    assert not is_locked(fd, 7)


def test_a_dead_workers_places_are_given_back(make_segment: MakeSegment) -> None:
    fd = make_segment(3)
    dead, other, control = SharedState(fd, 0), SharedState(fd, 1), SharedState(fd)
    for slot in (0, 5, MAX_SLOTS - 1):
        dead.acquire(slot, 0)
        dead.acquire(slot, 0)
        other.acquire(slot, 0)
    other.changed_slots()
    control.clear_worker(0)
    assert [control.connections(slot) for slot in (0, 5, MAX_SLOTS - 1)] == [1, 1, 1]
    assert other.changed_slots() is None, "any slot may have changed"
    assert other.changed_slots() == set()


OWNER = """
import signal
import sys
from edgeproxy.worker.shared_state import SharedState
control = SharedState(int(sys.argv[1]))
row = control.claim_rows(1)[0]
print(row, flush=True)
signal.pause()
"""

USER = """
import signal
import sys
from edgeproxy.worker.shared_state import SharedState
state = SharedState(int(sys.argv[1]), int(sys.argv[2]))
state.acquire(4, 0)
print("counted", flush=True)
signal.pause()
"""


def test_a_row_is_free_again_when_its_owner_and_its_worker_are_dead(
    make_segment: MakeSegment, start_child: StartChild
) -> None:
    fd = make_segment(1)
    control = SharedState(fd)
    assert control.claim_rows(2) == [0, 1]
    owner = start_child(OWNER, fd)
    assert owner.line() == "2"
    user = start_child(USER, fd, arguments=("2",))
    assert user.line() == "counted"
    assert control.connections(4) == 1

    owner.kill()
    assert control.reclaim_rows() == 0
    assert control.connections(4) == 1
    user.kill()
    assert control.reclaim_rows() == 1
    assert control.connections(4) == 0
    assert control.claim_rows(1) == [2], "and one's own rows are never reclaimed"


def test_no_more_rows_are_claimed_than_there_are(make_segment: MakeSegment) -> None:
    fd = make_segment(1)
    SharedState(fd).claim_rows(60)
    with pytest.raises(EdgeproxyError, match="room for 64 workers and 4 of that is free: for EDGEPROXY_WORK"):
        SharedState(fd).claim_rows(5)


def test_rows_that_appear_later_count(make_segment: MakeSegment) -> None:
    fd = make_segment(2)
    one = SharedState(fd, 0)
    other = SharedState(fd, 7)
    other.acquire(3, 0)
    assert one.changed_slots() == {3}
    assert one.connections(3) == 1
    assert not one.acquire(3, 1)


def test_a_worker_that_falls_behind_a_whole_ring_looks_at_everything(make_segment: MakeSegment) -> None:
    fd = make_segment(2)
    one, other = SharedState(fd, 0), SharedState(fd, 1)
    for slot in range(RING - 1):
        one.acquire(slot, 0)
    assert other.changed_slots() == set(range(RING - 1))
    for _ in range(RING):
        one.acquire(3, 0)
    assert other.changed_slots() is None
    one.release(9)
    assert other.changed_slots() == {9}


def test_changes_that_overtake_the_reader_are_not_lost(make_segment: MakeSegment) -> None:
    """While the reader goes through the ring, the writer overwrites what it has not read yet."""
    fd = make_segment(2)
    one, other = SharedState(fd, 0), SharedState(fd, 1)
    (worker, ring), *_ = other._others

    class OvertakenRing:
        def __getitem__(self, index: int) -> int:
            if index == 1 + RING - 2:
                for _ in range(3):
                    one.acquire(8, 0)
            word: int = ring[index]
            return word

    for slot in range(RING - 1):
        one.acquire(slot, 0)
    other._others = [(worker, OvertakenRing())]  # type: ignore[list-item]
    assert other.changed_slots() is None


def test_one_worker_out_of_reach_makes_all_of_them_so(make_segment: MakeSegment) -> None:
    fd = make_segment(3)
    one, other, reader = (SharedState(fd, worker) for worker in range(3))
    for _ in range(RING):
        one.acquire(3, 0)
    other.acquire(4, 0)
    assert reader.changed_slots() is None
    other.acquire(5, 0)
    assert reader.changed_slots() == {5}


# ---- affinity ------------------------------------------------------------------------------------


def put(state: SharedState, tag: int, binding: Binding) -> None:
    state.lock(tag)
    state.put(tag, binding)
    state.unlock(tag)


def test_bindings_of_one_bucket_push_out_the_least_recently_used_of_it_only(
    make_segment: MakeSegment,
) -> None:
    state = SharedState(make_segment(affinity_capacity=16))
    assert state.buckets == 2
    for number in range(1, 9):
        put(state, 2 * number, Binding(number, 0, 50.0 + number))
        put(state, 2 * number + 1, Binding(number, 0, 1.0))
    put(state, 2, Binding(1, 0, 99.0))
    put(state, 100, Binding(100, 0, 60.0))
    tags = {tag for tag, _ in state.bindings()}
    assert tags == {2, 100} | set(range(6, 17, 2)) | set(range(3, 18, 2))


def test_every_binding_is_listed(make_segment: MakeSegment) -> None:
    state = SharedState(make_segment(affinity_capacity=800))
    bound = {tag: Binding(tag ^ 1, 17_477, tag / 8) for tag in (1, 2, 99, 100, 199, 200, 2**64 - 1)}
    for tag, binding in bound.items():
        put(state, tag, binding)
    assert dict(state.bindings()) == bound


def test_a_listing_holds_no_lock_while_it_waits(make_segment: MakeSegment) -> None:
    fd = make_segment(1)
    state = SharedState(fd)
    put(state, 1, Binding(1, 1, 1.0))
    put(state, 2, Binding(2, 2, 2.0))
    listing = state.bindings()
    next(listing)
    check = f"import fcntl; fcntl.lockf({fd}, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)"
    subprocess.run([sys.executable, "-c", check], pass_fds=[fd], check=True)
    assert len(list(listing)) == 1


def test_a_sweep_clears_what_was_not_used_since(make_segment: MakeSegment) -> None:
    state = SharedState(make_segment(affinity_capacity=80))
    for tag in range(1, 30):
        put(state, tag, Binding(tag, 0, float(tag)))
    assert state.sweep(oldest_s=20.0, start=0, count=3) == 5
    assert {tag for tag, _ in state.bindings()} == set(range(1, 30)) - {1, 2, 10, 11, 12}
    assert state.sweep(oldest_s=20.0, start=3, count=1_000) == 14
    assert {tag for tag, _ in state.bindings()} == set(range(20, 30))
    assert state.sweep(oldest_s=30.0, start=0, count=1_000) == 10
    assert state.sweep(oldest_s=30.0, start=0, count=1_000) == 0


# The process ends itself, as hard as can be, before each single line of the method in turn.
DIES_AT_EVERY_LINE = """
import os, signal, sys
from edgeproxy.core.dataplane.affinity import Binding
from edgeproxy.worker.shared_state import SharedState

fd, method, tag, value = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
state = SharedState(fd)
before = dict(state.bindings())

def restore():
    for known, _ in list(state.bindings()):
        state.discard(known)
    for known, binding in before.items():
        state.put(known, binding)

def die_at(line):
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_name != method:
            return None
        if event == "line":
            lines += 1
            if lines == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    state.lock(tag)
    if method == "put":
        state.put(tag, Binding(value, value, float(value)))
    else:
        state.discard(tag)
    os._exit(0)

line = 0
while True:
    line += 1
    restore()
    child = os.fork()
    if not child:
        die_at(line)
    _, status = os.waitpid(child, 0)
    for known, binding in state.bindings():
        whole = (binding.backend_key, binding.country_code) == (int(binding.last_use_s),) * 2
        assert whole, (line, known, binding)
        assert binding == before.get(known) or (known == tag and binding.backend_key == value), (line, known)
    lost = before.keys() - dict(state.bindings()).keys() - {tag}
    assert len(lost) <= 1, (line, lost)
    if os.WIFEXITED(status):
        break
print(line, flush=True)
"""


@pytest.mark.parametrize(
    ("method", "known", "tag"),
    [("put", 3, 3), ("put", 3, 9), ("put", 8, 9), ("discard", 3, 2)],
    ids=["put over a known tag", "put into a free place", "put into a full bucket", "discard"],
)
def test_a_process_killed_at_any_line_leaves_no_binding_mixed(
    method: str, known: int, tag: int, make_segment: MakeSegment, start_child: StartChild
) -> None:
    fd = make_segment(1)
    state = SharedState(fd)
    for number in range(1, known + 1):
        state.put(number, Binding(number, number, float(number)))
    child = start_child(DIES_AT_EVERY_LINE, fd, arguments=(method, tag, 500))
    lines = child.line()
    child.finish()
    assert int(lines) >= {"put": 12, "discard": 4}[method]


# ---- the segment itself --------------------------------------------------------------------------


@pytest.mark.parametrize(("capacity", "buckets"), [(0, 1), (1, 1), (8, 1), (9, 2), (65_536, 8_192)])
def test_capacity_is_rounded_up_to_whole_buckets(
    capacity: int, buckets: int, make_segment: MakeSegment
) -> None:
    assert SharedState(make_segment(1, capacity)).buckets == buckets


def test_a_secret_is_kept_if_given_and_random_if_not(make_segment: MakeSegment) -> None:
    assert SharedState(make_segment(secret=123)).secret == 123
    random = {SharedState(make_segment()).secret for _ in range(3)}
    assert len(random) == 3
    assert all(0 <= secret < 2**63 for secret in random)


def test_a_segment_takes_memory_only_where_it_is_used(make_segment: MakeSegment) -> None:
    fd = make_segment(workers=64, affinity_capacity=1 << 20)
    SharedState(fd, 0).acquire(3, 1)
    status = os.fstat(fd)
    assert status.st_size > 32 << 20
    assert status.st_blocks * 512 < 1 << 20


def test_a_segment_of_another_layout_is_refused(make_segment: MakeSegment) -> None:
    fd = make_segment()
    os.pwrite(fd, struct.pack("Q", 99), 0)
    with pytest.raises(EdgeproxyError, match="the shared segment has layout 99 and this version needs 4"):
        SharedState(fd)
