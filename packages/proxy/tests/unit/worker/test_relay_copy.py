"""The copying relay on scripted sockets: what is rare on real ones, and how much it keeps."""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from typing import cast

import pytest

from edgeproxy.worker import relay_copy
from edgeproxy.worker.loop import Loop, Resumable
from edgeproxy.worker.relay_copy import CopyRelay, Side

RESET = ConnectionResetError(errno.ECONNRESET, "reset")
PIPE = BrokenPipeError(errno.EPIPE, "pipe")
LARGE = relay_copy._LARGE_READ_BYTES
SMALL = relay_copy._SMALL_READ_BYTES


class FakeSocket:
    """Gives what ``incoming`` holds, takes as much as ``room`` allows; errors in place of either."""

    def __init__(self) -> None:
        self.incoming: deque[bytes | OSError] = deque()
        self.room: int | OSError = 1 << 40
        self.taken = 0
        self.sizes: list[int] = []
        self.announced: list[bool] = []
        """Of each send, whether more was said to follow at once."""

    def recv_into(self, buffer: memoryview, size: int, flags: int) -> int:
        self.sizes.append(size)
        if not self.incoming:
            raise BlockingIOError
        item = self.incoming.popleft()
        if isinstance(item, OSError):
            raise item
        piece, rest = item[:size], item[size:]
        if rest:
            self.incoming.appendleft(rest)
        buffer[: len(piece)] = piece
        return len(piece)

    def send(self, data: memoryview, flags: int) -> int:
        self.announced.append(bool(flags & socket.MSG_MORE))
        if isinstance(self.room, OSError):
            raise self.room
        if not self.room:
            raise BlockingIOError
        size = min(len(data), self.room)
        self.room -= size
        self.taken += size
        return size


class FakeLoop:
    def __init__(self) -> None:
        self.waiting: list[Resumable] = []

    def again(self, item: Resumable) -> None:
        self.waiting.append(item)


class Pair:
    """Two sides of one connection; ``story`` is what their owner was told."""

    def __init__(self, relay: CopyRelay) -> None:
        self.relay = relay
        self.story: list[str] = []
        self.one_sock, self.other_sock = FakeSocket(), FakeSocket()
        self.one = Side(cast(socket.socket, self.one_sock), self, relay)
        self.other = Side(cast(socket.socket, self.other_sock), self, relay)

    def begin(self) -> None:
        self.relay.begin(self.one, self.other)

    def _tell(self, what: str, side: Side) -> None:
        self.story.append(f"{'one' if side is self.one else 'other'} {what}")

    def ended(self, side: Side) -> None:
        self._tell("ended", side)

    def was_reset(self, side: Side) -> None:
        self._tell("was reset", side)
        for each in (self.one, self.other):
            self.relay.forget(each)
            each.detach()


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def relay(loop: FakeLoop) -> CopyRelay:
    return CopyRelay(cast(Loop, loop))


@pytest.fixture
def pair(relay: CopyRelay) -> Pair:
    pair = Pair(relay)
    pair.begin()
    return pair


# ---- reading -------------------------------------------------------------------------------------


def test_a_read_that_does_not_fill_the_buffer_is_the_last_one(pair: Pair) -> None:
    pair.one_sock.sizes.clear()
    pair.one_sock.incoming.extend([b"question", b"too early"])
    pair.one.ready(select.EPOLLIN)
    assert pair.one_sock.sizes == [LARGE]
    assert pair.other_sock.taken == 8


def test_a_short_read_before_nothing_but_the_end_has_come_up_to_it(pair: Pair) -> None:
    pair.one_sock.sizes.clear()
    pair.one_sock.incoming.append(b"answer")
    pair.one.ready(select.EPOLLIN | select.EPOLLRDHUP)
    assert pair.one_sock.sizes == [LARGE]
    assert pair.other_sock.taken == 6
    assert pair.story == ["one ended"]


def test_a_full_read_before_the_end_is_followed_by_another(pair: Pair) -> None:
    pair.one_sock.incoming.extend([bytes(LARGE), b"rest"])
    pair.one.ready(select.EPOLLIN | select.EPOLLRDHUP)
    assert pair.other_sock.taken == LARGE + 4
    assert pair.other_sock.announced == [False, True]
    assert pair.story == ["one ended"]


@pytest.mark.parametrize("behind", [0, select.EPOLLPRI | select.EPOLLRDHUP, select.EPOLLHUP])
def test_bytes_are_not_held_back_for_an_end_that_may_not_follow(pair: Pair, behind: int) -> None:
    pair.one_sock.incoming.append(b"answer")
    pair.one.ready(select.EPOLLIN | behind)
    assert pair.other_sock.announced == [False]
    assert pair.story == []


def test_the_last_bytes_of_a_side_that_was_reset_are_not_held_back(pair: Pair, loop: FakeLoop) -> None:
    pair.other_sock.room = PIPE
    pair.other_sock.incoming.append(bytes(17 * LARGE - 1))
    pair.one_sock.incoming.append(b"question")
    pair.one.ready(select.EPOLLIN)
    assert loop.waiting == [pair.other]
    pair.other.ready(select.EPOLLIN | select.EPOLLRDHUP)
    assert not any(pair.one_sock.announced)
    assert pair.story == ["other was reset"]


def test_an_end_behind_what_is_kept_waits_for_it(pair: Pair) -> None:
    pair.other_sock.room = 2
    pair.one_sock.incoming.extend([b"answer", b""])
    pair.one.ready(select.EPOLLIN | select.EPOLLRDHUP)
    assert pair.story == []
    pair.other_sock.room = 100
    pair.other.ready(select.EPOLLOUT)
    assert pair.story == ["one ended"]


def test_a_side_that_is_not_readable_is_not_read_before_an_event(relay: CopyRelay) -> None:
    pair = Pair(relay)
    pair.one.readable = pair.other.readable = False
    pair.begin()
    assert pair.one_sock.sizes == pair.other_sock.sizes == []


def test_what_an_early_event_told_is_read_when_the_relay_begins(relay: CopyRelay) -> None:
    pair = Pair(relay)
    pair.one.readable = pair.other.readable = False
    pair.one_sock.incoming.extend([b"question", b"later"])
    pair.one.ready(select.EPOLLIN)
    assert pair.one_sock.sizes == []
    pair.begin()
    assert pair.one_sock.sizes == [LARGE], "its short read has emptied the socket"
    assert pair.other_sock.taken == 8


@pytest.mark.parametrize("event", [select.EPOLLRDHUP | select.EPOLLHUP, select.EPOLLHUP, select.EPOLLPRI])
def test_reading_goes_on_where_something_stands_behind_the_bytes(pair: Pair, event: int) -> None:
    pair.one_sock.incoming.extend([b"question", b"more"])
    pair.one.ready(select.EPOLLIN | event)
    assert pair.other_sock.taken == 12


def test_an_end_that_came_before_the_relay_began_is_found(relay: CopyRelay) -> None:
    pair = Pair(relay)
    pair.one_sock.incoming.extend([b"question", b""])
    pair.other_sock.incoming.extend([b"greeting", b""])
    pair.one.ready(select.EPOLLIN | select.EPOLLRDHUP)
    assert pair.story == []
    pair.begin()
    assert pair.story == ["one ended", "other ended"]
    assert (pair.other.sent_bytes, pair.one.sent_bytes) == (8, 8)


def test_a_reset_before_the_relay_begins_is_told(relay: CopyRelay) -> None:
    pair = Pair(relay)
    pair.one.ready(select.EPOLLERR | select.EPOLLHUP)
    assert pair.story == ["one was reset"]


def test_a_reset_found_as_the_relay_begins_ends_it(relay: CopyRelay) -> None:
    pair = Pair(relay)
    pair.one_sock.incoming.append(RESET)
    pair.begin()
    assert pair.story == ["one was reset"]
    assert pair.other_sock.sizes == []


def test_a_side_that_ended_is_not_read_again(pair: Pair) -> None:
    pair.one_sock.incoming.append(b"")
    pair.one.ready(select.EPOLLIN | select.EPOLLRDHUP)
    pair.one.ready(select.EPOLLIN | select.EPOLLRDHUP)
    assert pair.story == ["one ended"]


def test_after_so_many_full_reads_others_get_their_turn(pair: Pair, loop: FakeLoop) -> None:
    pair.one_sock.sizes.clear()
    pair.one_sock.incoming.append(bytes(20 * LARGE))
    pair.one.ready(select.EPOLLIN)
    assert pair.other_sock.taken == relay_copy._READS_PER_TURN * LARGE
    assert loop.waiting == [pair.one]
    pair.one.resume()
    assert pair.other_sock.taken == 20 * LARGE
    assert loop.waiting == [pair.one]


def test_who_is_closed_before_its_turn_comes_does_nothing(pair: Pair) -> None:
    pair.one_sock.incoming.append(bytes(20 * LARGE))
    pair.one.ready(select.EPOLLIN)
    pair.was_reset(pair.one)
    pair.one.resume()
    assert pair.other_sock.taken == relay_copy._READS_PER_TURN * LARGE


# ---- back-pressure -------------------------------------------------------------------------------


def test_what_is_not_taken_is_kept_and_sent_before_anything_else_is_read(pair: Pair) -> None:
    pair.other_sock.room = 3
    pair.one_sock.incoming.append(b"question")
    pair.one.ready(select.EPOLLIN)
    pair.one_sock.incoming.append(b"more")
    pair.one.ready(select.EPOLLIN)
    assert pair.other.sent_bytes == 3
    pair.other_sock.room = 2
    pair.other.ready(select.EPOLLOUT)
    assert pair.other.sent_bytes == 5
    pair.other.ready(select.EPOLLOUT)
    pair.other_sock.room = 100
    pair.other.ready(select.EPOLLOUT)
    assert pair.other.sent_bytes == 12


def test_an_end_waits_for_the_bytes_before_it(pair: Pair) -> None:
    pair.other_sock.room = 0
    pair.one_sock.incoming.extend([b"question", b""])
    pair.one.ready(select.EPOLLIN | select.EPOLLRDHUP)
    assert pair.story == []
    pair.other_sock.room = 100
    pair.other.ready(select.EPOLLOUT)
    assert pair.story == ["one ended"]


def test_a_side_that_ended_meanwhile_is_not_read_when_its_peer_takes_bytes(pair: Pair) -> None:
    pair.other_sock.room = 0
    pair.one_sock.incoming.append(b"question")
    pair.one.ready(select.EPOLLIN)
    pair.other_sock.incoming.append(b"")
    pair.other.ready(select.EPOLLIN | select.EPOLLRDHUP)
    pair.other_sock.room = 100
    pair.other.ready(select.EPOLLOUT | select.EPOLLIN)
    assert pair.story == ["other ended"]


def test_reads_are_small_while_much_is_kept_and_large_again_after(relay: CopyRelay) -> None:
    stuck = [Pair(relay) for _ in range(relay_copy._KEPT_ASIDE_LIMIT_BYTES // LARGE)]
    for each in stuck:
        each.begin()
        each.other_sock.room = 0
        each.one_sock.incoming.append(bytes(LARGE))
        each.one.ready(select.EPOLLIN)
    pair = Pair(relay)
    pair.begin()
    pair.other_sock.room = 0
    pair.one_sock.sizes.clear()
    pair.one_sock.incoming.append(bytes(LARGE))
    pair.one.ready(select.EPOLLIN)
    assert pair.one_sock.sizes == [SMALL]
    # A remainder of one byte still holds all of its memory.
    stuck[0].other_sock.room = LARGE - 1
    stuck[0].other.ready(select.EPOLLOUT)
    stuck[1].other_sock.room = LARGE
    stuck[1].other.ready(select.EPOLLOUT)
    stuck[2].was_reset(stuck[2].one)
    assert relay._kept_bytes == (len(stuck) - 2) * LARGE + SMALL
    pair.other_sock.room = 1 << 40
    pair.other.ready(select.EPOLLOUT)
    assert pair.one_sock.sizes[1] == LARGE


def test_nothing_is_counted_as_kept_when_all_is_over(relay: CopyRelay) -> None:
    for ending in range(3):
        pair = Pair(relay)
        pair.begin()
        pair.other_sock.room = 5
        pair.one_sock.incoming.append(bytes(LARGE))
        pair.one.ready(select.EPOLLIN)
        if ending == 0:
            pair.other_sock.room = 1 << 40
            pair.other.ready(select.EPOLLOUT)
        elif ending == 1:
            pair.other_sock.room = PIPE
            pair.other.ready(select.EPOLLOUT)
        else:
            pair.other.ready(select.EPOLLERR)
    assert relay._kept_bytes == 0


# ---- resets --------------------------------------------------------------------------------------


def test_what_a_side_sent_before_its_reset_is_handed_on(pair: Pair) -> None:
    pair.other_sock.incoming.extend([b"too large", RESET])
    pair.other.ready(select.EPOLLIN | select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP)
    assert pair.one.sent_bytes == 9
    assert pair.story == ["other was reset"]


@pytest.mark.parametrize("last_words", [b"", RESET, None], ids=["end", "error", "nothing"])
def test_a_side_that_cannot_be_sent_to_is_reset_however_it_ends(
    pair: Pair, last_words: bytes | OSError | None
) -> None:
    pair.other_sock.room = PIPE
    pair.other_sock.incoming.append(b"answer")
    if last_words is not None:
        pair.other_sock.incoming.append(last_words)
    pair.one_sock.incoming.append(b"question")
    pair.one.ready(select.EPOLLIN)
    assert pair.one.sent_bytes == 6
    assert pair.story == ["other was reset"]


def test_a_side_that_ended_and_cannot_be_sent_to_is_reset(pair: Pair) -> None:
    pair.other_sock.incoming.append(b"")
    pair.other.ready(select.EPOLLIN | select.EPOLLRDHUP)
    pair.other_sock.room = PIPE
    pair.one_sock.incoming.append(b"question")
    pair.one.ready(select.EPOLLIN)
    assert pair.story == ["other ended", "other was reset"]


def test_an_end_does_not_hide_the_reset_behind_it(pair: Pair) -> None:
    """Both are found at once when the peer takes bytes again; the error's edge is long used up."""
    pair.other_sock.room = 0
    pair.one_sock.incoming.extend([b"question", b"rest", b""])
    pair.one.ready(select.EPOLLIN)
    pair.one.ready(select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLERR | select.EPOLLHUP)
    assert pair.story == []
    pair.other_sock.room = 100
    pair.other.ready(select.EPOLLOUT)
    assert pair.other.sent_bytes == 12
    assert pair.story == ["one was reset"]


def test_a_peer_that_is_stuck_is_read_on_when_the_other_is_reset(pair: Pair) -> None:
    pair.one_sock.room = pair.other_sock.room = 0
    pair.one_sock.incoming.append(b"question")
    pair.one.ready(select.EPOLLIN)
    pair.other_sock.incoming.extend([b"answer", b"further", b"answers"])
    pair.other.ready(select.EPOLLIN | select.EPOLLPRI)
    assert len(pair.other_sock.incoming) == 2
    pair.one.ready(select.EPOLLERR | select.EPOLLHUP | select.EPOLLOUT | select.EPOLLIN)
    assert not pair.other_sock.incoming
    assert pair.one.sent_bytes == 0
    assert pair.story == []
    pair.other_sock.room = 100
    pair.other.ready(select.EPOLLOUT)
    assert pair.other.sent_bytes == 8
    assert pair.story == ["one was reset"]


def test_what_a_reset_peer_took_nothing_of_is_for_the_next_one(pair: Pair, relay: CopyRelay) -> None:
    pair.other_sock.room = RESET
    pair.other_sock.incoming.append(RESET)
    pair.one_sock.incoming.append(b"question")
    pair.one.ready(select.EPOLLIN)
    assert pair.story == ["other was reset"]
    assert pair.one.unsent == b"question"
    assert relay._kept_bytes == 0


def test_what_waits_for_a_peer_that_is_reset_is_for_the_next_one(pair: Pair, relay: CopyRelay) -> None:
    pair.other_sock.room = 0
    pair.one_sock.incoming.append(b"question")
    pair.one.ready(select.EPOLLIN)
    pair.other_sock.incoming.append(RESET)
    pair.other.ready(select.EPOLLERR | select.EPOLLHUP)
    assert pair.one.unsent == b"question"
    assert relay._kept_bytes == 0


@pytest.mark.parametrize("room", [100, 3, 0])
def test_what_was_not_handed_on_comes_first(relay: CopyRelay, room: int) -> None:
    pair = Pair(relay)
    pair.one.unsent = b"question"
    pair.one_sock.incoming.append(b" and more")
    pair.other_sock.room = room
    pair.begin()
    assert pair.one.unsent == b""
    assert pair.other.sent_bytes == min(room, len(b"question and more"))
    pair.other_sock.room = 100
    pair.other.ready(select.EPOLLOUT)
    assert pair.other.sent_bytes == len(b"question and more")


def test_a_next_peer_that_is_reset_as_well_leaves_it_for_another(relay: CopyRelay) -> None:
    pair = Pair(relay)
    pair.one.unsent = b"question"
    pair.other_sock.room = RESET
    pair.other_sock.incoming.append(RESET)
    pair.begin()
    assert pair.story == ["other was reset"]
    assert pair.one.unsent == b"question"


def test_a_peer_that_took_some_leaves_nothing_for_another(pair: Pair) -> None:
    pair.other_sock.room = 3
    pair.one_sock.incoming.append(b"question")
    pair.one.ready(select.EPOLLIN)
    pair.other_sock.incoming.append(RESET)
    pair.other.ready(select.EPOLLERR | select.EPOLLHUP)
    assert pair.one.unsent == b""


@pytest.mark.parametrize("room", [100, 12, 8, 3, 0])
def test_a_header_comes_first_and_is_not_counted(relay: CopyRelay, room: int) -> None:
    pair = Pair(relay)
    pair.one.unsent = b"question"
    pair.one_sock.incoming.append(b" and more")
    pair.other_sock.room = room
    relay.begin(pair.one, pair.other, b"header: ")
    assert pair.other.sent_bytes == min(room, len(b"header: question and more")) - len(b"header: ")
    pair.other_sock.room = 100
    pair.other.ready(select.EPOLLOUT)
    assert pair.other.sent_bytes == len(b"question and more")


@pytest.mark.parametrize("room", [0, 3, 8])
def test_a_reset_peer_s_header_is_not_for_the_next_one(relay: CopyRelay, room: int) -> None:
    pair = Pair(relay)
    pair.one.unsent = b"question"
    pair.other_sock.room = room
    relay.begin(pair.one, pair.other, b"header: ")
    pair.other_sock.incoming.append(RESET)
    pair.other.ready(select.EPOLLERR | select.EPOLLHUP)
    assert pair.story == ["other was reset"]
    assert pair.one.unsent == b"question"


def test_two_sides_that_cannot_be_sent_to_end_once(pair: Pair) -> None:
    pair.one_sock.room = pair.other_sock.room = PIPE
    pair.one_sock.incoming.extend([b"question"] * 3)
    pair.other_sock.incoming.extend([b"answer"] * 3)
    pair.one.ready(select.EPOLLIN)
    assert len(pair.story) == 1


def test_a_broken_side_with_much_to_read_lets_others_have_their_turn(pair: Pair, loop: FakeLoop) -> None:
    pair.other_sock.room = PIPE
    pair.other_sock.incoming.append(bytes(20 * LARGE))
    pair.one_sock.incoming.append(b"question")
    pair.one.ready(select.EPOLLIN)
    assert pair.story == []
    assert pair.other in loop.waiting
    pair.one_sock.incoming.append(b"dropped")
    pair.one.ready(select.EPOLLIN)
    pair.other.resume()
    assert pair.one.sent_bytes == 20 * LARGE
    assert pair.other.sent_bytes == 0
    assert pair.story == ["other was reset"]


def test_a_flush_that_finds_a_reset_reads_the_peer_on(pair: Pair) -> None:
    pair.one_sock.room = pair.other_sock.room = 0
    pair.other_sock.incoming.append(b"answer")
    pair.other.ready(select.EPOLLIN)
    pair.one_sock.incoming.extend([b"question", b"more"])
    pair.one.ready(select.EPOLLIN | select.EPOLLPRI)
    pair.other_sock.room = PIPE
    pair.other.ready(select.EPOLLOUT)
    assert not pair.one_sock.incoming
    assert pair.story == []
    pair.one_sock.room = 100
    pair.one.ready(select.EPOLLOUT)
    assert pair.story == ["other was reset"]
