"""The kernel's relay on a kernel that does as it is told: moments that are hard to meet with a real one."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import cast

import pytest

from edgeproxy.core.dataplane.promotion import MESSAGE_COST_BYTES
from edgeproxy.core.wire.frames import KernelCounts
from edgeproxy.worker.kernel_maps import NEVER, KernelMaps
from edgeproxy.worker.kernel_program import Word
from edgeproxy.worker.loop import EDGE, Loop, Resumable
from edgeproxy.worker.relay_copy import Side
from edgeproxy.worker.relay_kernel import KernelRelay

pytestmark = pytest.mark.feature("relay.kernel")

TURNS = 4
_NUMBERS = count(3)
ROOM = 100_000


class FakeSocket:
    """A socket whose kernel side is :class:`FakeKernel`."""

    def __init__(self) -> None:
        self._fileno = next(_NUMBERS)
        self.incoming: deque[bytes] = deque()
        """For the worker to read; an empty one is the end of the stream."""
        self.backlog: list[bytes] = []
        """Handed on by the kernel, and not taken yet."""
        self.taken = b""
        self.is_open_for_sending = True

    def fileno(self) -> int:
        return self._fileno

    def recv_into(self, buffer: memoryview, size: int, _flags: int) -> int:
        if not self.incoming:
            raise BlockingIOError
        piece = self.incoming.popleft()
        buffer[: len(piece)] = piece
        return len(piece)

    def send(self, data: memoryview, _flags: int) -> int:
        assert not self.backlog, "the worker's bytes would overtake the kernel's"
        self.taken += bytes(data)
        return len(data)

    def shutdown(self, _how: int) -> None:
        assert not self.backlog, "the end would cut off the kernel's bytes"
        self.is_open_for_sending = False


class FakeKernel:
    """Maps and program; bytes that arrive are judged as the program judges them."""

    def __init__(self, pairs: int = 2) -> None:
        self.free = list(range(0, 2 * pairs, 2))
        self.sockets: dict[int, FakeSocket] = {}
        self.removed: list[int] = []
        self._words = memoryview(bytearray(pairs * 2 * 64)).cast("Q")
        self._notices: list[int] = []
        self.refused: set[FakeSocket] = set()
        self.room = ROOM
        self.is_acknowledged = False
        """What was sent, bit by bit, all the time."""
        self.delivers = True
        """At once; else when told to."""
        self.on_settle: Callable[[], None] = lambda: None
        """Something that happens while the worker looks."""

    def take_pair(self) -> int | None:
        return self.free.pop() if self.free else None

    def give_back(self, pair: int) -> None:
        self.free.append(pair)

    def words(self, slot: int) -> memoryview:
        return self._words[slot * 8 : slot * 8 + 8]

    def insert(self, slot: int, sock: FakeSocket) -> int:
        if sock in self.refused:
            raise OSError("it has ended")
        words = self.words(slot)
        for word in Word:
            words[word] = 0
        words[Word.NOTICE_AT] = NEVER
        self.sockets[slot] = sock
        return 1_000 + slot

    def remove(self, cookie: int) -> None:
        self.removed.append(cookie)

    def settle(self, _sock: FakeSocket) -> None:
        happening, self.on_settle = self.on_settle, lambda: None
        happening()

    def written_bytes(self, sock: FakeSocket) -> int:
        return 77 + len(sock.taken)

    def exactly_written_bytes(self, sock: FakeSocket) -> int | None:
        return None if self.is_acknowledged else self.written_bytes(sock)

    def room_bytes(self, _sock: FakeSocket) -> int:
        return self.room

    def notices(self) -> Iterator[int]:
        notices, self._notices = self._notices, []
        yield from notices

    @property
    def has_noticed(self) -> bool:
        return bool(self._notices)

    def arrive(self, sock: FakeSocket, data: bytes) -> None:
        slot = next(slot for slot, each in self.sockets.items() if each is sock)
        words = self.words(slot)
        before = words[Word.CHARGED]
        words[Word.CHARGED] = after = before + len(data) + MESSAGE_COST_BYTES
        if before <= words[Word.NOTICE_AT] < after:
            self._notices.append(slot)
        if after <= words[Word.LIMIT] and words[Word.PASSED] == words[Word.CONSUMED]:
            words[Word.REDIRECTED] += len(data)
            peer = self.sockets[slot ^ 1]
            peer.backlog.append(data)
            if self.delivers:
                self.deliver(peer)
        else:
            words[Word.PASSED] += len(data)
            sock.incoming.append(data)

    @staticmethod
    def deliver(sock: FakeSocket) -> None:
        sock.taken += b"".join(sock.backlog)
        sock.backlog.clear()


class FakeDeadlines:
    def __init__(self, due: Callable[[Side], None]) -> None:
        self.due = due
        self.items: dict[Side, None] = {}

    def add(self, item: Side, _now_s: float) -> None:
        self.items[item] = None

    def discard(self, item: Side) -> None:
        self.items.pop(item, None)

    def expire(self) -> None:
        items, self.items = self.items, {}
        for item in items:
            self.due(item)


class FakeLoop:
    now_s = 0.0

    def __init__(self) -> None:
        self.waiting: list[Resumable] = []
        self.watched: dict[object, int] = {}
        self.classes: list[FakeDeadlines] = []

    def register(self, _sock: object, _handler: object, _events: int) -> None: ...

    def watch(self, sock: object, events: int) -> None:
        self.watched[sock] = events

    def again(self, item: Resumable) -> None:
        self.waiting.append(item)

    def deadlines(self, _duration_s: float, due: Callable[[Side], None]) -> FakeDeadlines:
        self.classes.append(FakeDeadlines(due))
        return self.classes[-1]

    def turn(self) -> None:
        waiting, self.waiting = self.waiting, []
        for item in waiting:
            item.resume()

    def looking(self) -> list[int]:
        """How many are looked at, by class."""
        return [len(each.items) for each in self.classes]

    def look(self) -> None:
        for each in reversed(self.classes):  # what is added while others are looked at is not due yet
            each.expire()


class Rig:
    """One connection between ``one`` and ``other``; ``story`` is what their owner was told."""

    def __init__(self, kernel: FakeKernel, loop: FakeLoop, relay: KernelRelay) -> None:
        self.kernel, self.loop, self.relay = kernel, loop, relay
        self.story: list[str] = []
        self.one_sock, self.other_sock = FakeSocket(), FakeSocket()
        self.one = Side(cast(socket.socket, self.one_sock), self, relay)
        self.other = Side(cast(socket.socket, self.other_sock), self, relay)
        relay.begin(self.one, self.other)

    def ended(self, side: Side) -> None:
        self.story.append(f"{self.name(side)} ended")
        assert side.peer is not None
        side.peer.end()

    def was_reset(self, side: Side) -> None:
        self.story.append(f"{self.name(side)} was reset")
        self.close()

    def name(self, side: Side) -> str:
        return "one" if side is self.one else "other"

    def close(self) -> None:
        for side in (self.one, self.other):
            self.relay.forget(side)
            side.detach()

    def hear(self, side: Side, data: bytes) -> None:
        """``data`` comes from ``side`` while the worker relays."""
        cast(FakeSocket, side.sock).incoming.append(data)
        side.ready(select.EPOLLIN)

    def talk(self, turns: int = TURNS) -> None:
        for turn in range(turns):
            self.hear((self.one, self.other)[turn % 2], b"hello")

    def arrive(self, data: bytes, side: Side | None = None) -> None:
        """``data`` comes from ``side``, at first ``one``, to a socket that is the kernel's."""
        self.kernel.arrive(cast(FakeSocket, (side or self.one).sock), data)

    def word(self, word: Word, side: Side | None = None) -> int:
        flow = (side or self.one).flow
        assert flow is not None
        return int(flow.words[word])

    def is_in_kernel(self, side: Side | None = None) -> bool:
        return self.word(Word.LIMIT, side) > 0


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def relay(kernel: FakeKernel, loop: FakeLoop) -> KernelRelay:
    return KernelRelay(cast(Loop, loop), 256 << 10, 16 << 10, cast(KernelMaps, kernel), TURNS)


@pytest.fixture
def rig(kernel: FakeKernel, loop: FakeLoop, relay: KernelRelay) -> Rig:
    return Rig(kernel, loop, relay)


# ---- promotion -----------------------------------------------------------------------------------


def test_after_enough_turns_both_directions_are_the_kernels(rig: Rig) -> None:
    rig.talk(TURNS - 1)
    assert rig.one.flow is None
    rig.hear(rig.other, b"hello")
    assert rig.is_in_kernel(rig.one)
    assert rig.is_in_kernel(rig.other)
    assert rig.relay.kernel_counts() == KernelCounts(1, 1)
    assert rig.loop.watched[rig.one_sock] & select.EPOLLIN == 0


def test_a_long_turn_begins_the_count_anew(rig: Rig) -> None:
    rig.talk(TURNS - 1)
    rig.hear(rig.other, bytes(17 << 10))
    rig.talk(TURNS - 1)
    assert rig.one.flow is None
    rig.hear(rig.other, b"hello")
    assert rig.one.flow is not None


def test_bytes_that_come_meanwhile_are_handed_on_first(rig: Rig) -> None:
    rig.talk(TURNS - 1)
    rig.one_sock.incoming.append(b"a moment before")
    rig.hear(rig.other, b"hello")
    assert rig.other_sock.taken.endswith(b"a moment before")
    assert rig.is_in_kernel(rig.one)


def test_who_has_said_nothing_yet_is_not_promoted(rig: Rig) -> None:
    for _ in range(2 * TURNS):
        rig.hear(rig.one, b"is anybody there")
    assert rig.one.flow is None


def test_a_slow_reader_is_not_promoted(rig: Rig) -> None:
    rig.talk(TURNS - 1)
    rig.one.kept = b"rest"
    rig.hear(rig.one, b"hello")
    assert rig.one.flow is None


def test_an_end_that_comes_meanwhile_prevents_it(rig: Rig) -> None:
    rig.talk(TURNS - 1)
    rig.one_sock.incoming.append(b"")
    rig.hear(rig.other, b"hello")
    assert rig.one.flow is None
    assert rig.story == ["one ended"]


def test_while_nobody_can_say_what_the_receiver_has_taken_the_worker_goes_on(
    rig: Rig, kernel: FakeKernel
) -> None:
    kernel.is_acknowledged = True
    rig.talk()
    assert not rig.is_in_kernel(rig.one)
    assert not rig.is_in_kernel(rig.other)
    kernel.is_acknowledged = False
    rig.arrive(b"hello")
    rig.one.ready(select.EPOLLIN)
    assert rig.is_in_kernel(rig.one)
    assert rig.other_sock.taken == b"hello" * 3


def test_when_all_places_are_taken_the_worker_goes_on(rig: Rig) -> None:
    rig.kernel.free.clear()
    rig.talk(3 * TURNS)
    assert rig.one.flow is None
    assert len(rig.other_sock.taken) == 3 * TURNS // 2 * 5


def test_when_no_socket_can_be_joined_the_place_is_free_again(rig: Rig) -> None:
    rig.kernel.refused = {rig.one_sock, rig.other_sock}
    rig.talk(TURNS)
    assert rig.one.flow is None
    assert rig.other.flow is None
    assert len(rig.kernel.free) == 2
    rig.talk(3 * TURNS)
    assert rig.relay.kernel_counts() == KernelCounts(0, 0)


def test_when_one_socket_cannot_be_joined_the_worker_goes_on_for_both(rig: Rig) -> None:
    rig.kernel.refused = {rig.one_sock}  # the other one is first, being the last that spoke
    rig.talk(TURNS)
    rig.arrive(b"to the worker", rig.other)
    rig.other.ready(select.EPOLLIN)
    assert rig.one_sock.taken.endswith(b"to the worker")
    assert not rig.is_in_kernel(rig.other)
    rig.hear(rig.one, bytes(17 << 10))
    rig.talk(2 * TURNS)
    assert not rig.is_in_kernel(rig.other)
    rig.close()
    rig.loop.turn()
    assert len(rig.kernel.free) == 2


def test_places_are_free_when_the_sockets_are_closed(rig: Rig) -> None:
    rig.talk()
    rig.close()
    assert len(rig.kernel.free) == 1
    assert sorted(rig.kernel.removed) == [1_002, 1_003]
    rig.loop.turn()
    assert len(rig.kernel.free) == 2
    assert rig.relay.kernel_counts() == KernelCounts(0, 1)


def test_a_byte_that_slips_by_while_credit_is_given_brings_the_worker_back(rig: Rig) -> None:
    """The program may have read the old limit before the new one was written."""
    rig.talk(TURNS - 1)
    rig.kernel.room = 0
    rig.hear(rig.other, b"hello")
    assert rig.one.flow is not None
    assert not rig.is_in_kernel()
    rig.kernel.room = ROOM
    words = rig.one.flow.words

    def slip_by() -> None:
        words[Word.PASSED] += 4
        rig.one_sock.incoming.append(b"slip")

    rig.kernel.on_settle = slip_by
    rig.arrive(b"next")
    rig.one.ready(select.EPOLLIN)
    rig.loop.turn()
    assert rig.other_sock.taken.endswith(b"nextslip")
    assert not rig.is_in_kernel()


# ---- credit --------------------------------------------------------------------------------------


def notice(rig: Rig) -> None:
    """Say things until the worker is to be told, and tell it."""
    while not rig.kernel.has_noticed:
        rig.arrive(b"more and more")
    rig.relay.ready(select.EPOLLIN)


def test_credit_is_renewed_when_all_has_arrived(rig: Rig) -> None:
    rig.talk()
    limit = rig.word(Word.LIMIT)
    notice(rig)
    assert rig.word(Word.LIMIT) > limit
    assert rig.word(Word.PASSED) == 0


def test_while_some_is_under_way_the_old_credit_is_all_there_is(rig: Rig) -> None:
    rig.talk()
    limit, notice_at = rig.word(Word.LIMIT), rig.word(Word.NOTICE_AT)
    rig.kernel.delivers = False
    notice(rig)
    assert rig.word(Word.LIMIT) == limit
    assert notice_at < rig.word(Word.NOTICE_AT) < limit


def test_credit_that_runs_out_brings_the_worker_back_when_the_rest_has_arrived(rig: Rig) -> None:
    rig.talk()
    rig.kernel.delivers = False
    before = rig.other_sock.taken
    said = b""
    while rig.is_in_kernel():
        message = b"%6d" % len(said)
        said += message
        rig.arrive(message)
        if rig.kernel.has_noticed:
            rig.relay.ready(select.EPOLLIN)
    rig.arrive(b"behind")
    assert rig.loop.watched[rig.one_sock] == EDGE
    rig.loop.look()
    assert rig.other_sock.taken == before
    rig.kernel.deliver(rig.other_sock)
    rig.loop.look()
    assert rig.other_sock.taken == before + said + b"behind"
    assert rig.loop.looking() == [0, 0, 0]


def test_a_receiver_that_takes_again_is_looked_at_at_once(rig: Rig) -> None:
    rig.talk()
    rig.kernel.delivers = False
    rig.arrive(b"under way")
    rig.one_sock.incoming.append(b"")
    rig.one.ready(select.EPOLLRDHUP)
    rig.kernel.deliver(rig.other_sock)
    rig.other.ready(select.EPOLLOUT)
    assert rig.story == ["one ended"]
    assert rig.other_sock.taken.endswith(b"under way")


def test_looks_become_rarer(rig: Rig) -> None:
    rig.talk()
    rig.kernel.delivers = False
    rig.arrive(b"under way")
    rig.one.ready(select.EPOLLRDHUP)
    seen = []
    for _ in range(40):
        seen.append(rig.loop.looking())
        rig.loop.look()
    assert seen == [[1, 0, 0]] * 16 + [[0, 1, 0]] * 16 + [[0, 0, 1]] * 8


def test_who_is_taken_back_proves_chatty_again(rig: Rig) -> None:
    rig.talk()
    rig.kernel.room = 0
    notice(rig)
    assert not rig.is_in_kernel()
    rig.kernel.room = ROOM
    for turn in range(1, TURNS // 2 + 2):
        assert not rig.is_in_kernel()
        rig.arrive(b"answer", rig.other)  # which the kernel hands on; the worker sees it by the count
        rig.arrive(b"%d" % turn)
        rig.one.ready(select.EPOLLIN)
    assert rig.is_in_kernel()
    rig.arrive(b"by the kernel")
    assert rig.other_sock.taken.endswith(b"123by the kernel")


def test_bytes_that_the_kernel_has_not_got_ready_keep_the_direction_with_the_worker(rig: Rig) -> None:
    rig.talk()
    rig.kernel.room = 0
    notice(rig)
    rig.kernel.room = ROOM
    flow = rig.one.flow
    assert flow is not None
    flow.words[Word.PASSED] += 4
    for turn in range(2 * TURNS):
        rig.arrive(b"answer", rig.other)
        rig.arrive(b"%d" % turn)
        rig.one.ready(select.EPOLLIN)
    assert not rig.is_in_kernel()
    rig.one_sock.incoming.append(b"late")
    rig.one.ready(select.EPOLLIN)
    assert rig.is_in_kernel()


def test_a_reader_that_was_slow_in_between_is_waited_for(rig: Rig) -> None:
    rig.talk()
    rig.kernel.room = 0
    notice(rig)
    rig.kernel.room = ROOM
    rig.other.kept = b""
    rig.relay._hand_to_kernel(rig.one, rig.other)
    assert not rig.is_in_kernel()


def test_a_notice_of_one_that_was_taken_back_or_is_gone_is_nothing(rig: Rig) -> None:
    rig.talk()
    while not rig.kernel.has_noticed:
        rig.arrive(b"more")
    rig.kernel._notices *= 2
    rig.kernel.room = 0
    rig.relay.ready(select.EPOLLIN)
    assert not rig.is_in_kernel()
    rig.kernel._notices = [rig.one.flow.slot] if rig.one.flow is not None else []
    rig.close()
    rig.relay.ready(select.EPOLLIN)


# ---- ends and counts -----------------------------------------------------------------------------


def test_an_end_waits_until_all_has_arrived(rig: Rig) -> None:
    rig.talk()
    rig.kernel.delivers = False
    rig.arrive(b"last words")
    rig.one_sock.incoming.append(b"")
    rig.one.ready(select.EPOLLRDHUP | select.EPOLLIN)
    assert rig.story == []
    rig.kernel.deliver(rig.other_sock)
    rig.loop.look()
    assert rig.story == ["one ended"]
    assert not rig.other_sock.is_open_for_sending
    assert rig.other.sent_bytes == len(rig.other_sock.taken)


def test_an_end_that_the_kernel_tells_before_the_last_bytes_is_none_yet(rig: Rig) -> None:
    rig.talk()
    flow = rig.one.flow
    assert flow is not None
    flow.words[Word.PASSED] += 4
    rig.one_sock.incoming.append(b"")
    rig.one.ready(select.EPOLLRDHUP)
    assert rig.story == []
    rig.one_sock.incoming.extend([b"last", b""])
    rig.one.ready(select.EPOLLIN | select.EPOLLRDHUP)
    assert rig.story == ["one ended"]
    assert rig.other_sock.taken.endswith(b"last")


def test_a_reset_hands_on_what_the_kernel_has_first(rig: Rig) -> None:
    rig.talk()
    rig.kernel.delivers = False
    rig.arrive(b"before the reset")
    rig.one.ready(select.EPOLLERR | select.EPOLLHUP)
    assert rig.story == []
    rig.kernel.deliver(rig.other_sock)
    rig.loop.look()
    assert rig.story == ["one was reset"]


def test_what_is_under_way_to_who_was_reset_is_not_waited_for(rig: Rig) -> None:
    rig.talk()
    rig.kernel.delivers = False
    rig.arrive(b"in vain")
    rig.one_sock.incoming.append(b"")
    rig.one.ready(select.EPOLLRDHUP)
    rig.other.ready(select.EPOLLERR)
    assert rig.story == ["other was reset"]
    assert rig.loop.looking() == [0, 0, 0]


def test_counts_are_those_of_the_receiving_socket(rig: Rig) -> None:
    rig.talk()
    rig.arrive(b"12345678")
    rig.kernel.delivers = False
    rig.arrive(b"not yet taken")
    rig.relay.settle(rig.other)
    assert rig.other.sent_bytes == len(rig.other_sock.taken) == 5 * TURNS // 2 + 8
    assert rig.one.sent_bytes == len(rig.one_sock.taken)
