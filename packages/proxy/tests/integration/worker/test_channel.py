"""The worker's end of the channel, led from the other end."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from edgeproxy.core.wire.frames import (
    Drain,
    FrameError,
    FrameReader,
    FromWorker,
    GeoDatabaseChanged,
    HostAddresses,
    Notice,
    Ready,
    TableApplied,
    ToWorker,
    encode,
)
from edgeproxy.worker import channel as channel_module
from edgeproxy.worker.channel import Channel
from edgeproxy.worker.loop import Loop
from packages.proxy.tests.integration.worker.workers import in_background


class Line:
    """A channel whose loop is not run: events are reported by hand."""

    def __init__(self, control: socket.socket) -> None:
        self.control, self._ours = control, None
        self.loop = Loop()
        self.heard: list[ToWorker] = []
        self.lost = 0

    def open(self, ours: socket.socket) -> Channel:
        return Channel(ours, self.loop, self.heard.append, self._on_lost)

    def _on_lost(self) -> None:
        self.lost += 1


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    control, ours = socket.socketpair()
    control.settimeout(10)
    with control, ours:
        yield control, ours


@pytest.fixture
def line(ends: tuple[socket.socket, socket.socket]) -> Iterator[tuple[Line, Channel]]:
    control, ours = ends
    line = Line(control)
    with closing(line.loop._epoll):
        yield line, line.open(ours)


def received(control: socket.socket, count: int) -> list[FromWorker]:
    reader: FrameReader[FromWorker] = FrameReader(FromWorker)
    frames: list[FromWorker] = []
    while len(frames) < count:
        frames += reader.feed(control.recv(1 << 16))
    return frames


def fill(channel: Channel) -> int:
    """Send until the kernel takes no more; return how many frames that were."""
    sent = 0
    while not channel._unsent:
        channel.send(Notice("info", "x" * 1_000, {}))
        sent += 1
    return sent


def test_frames_are_heard_in_order(line: tuple[Line, Channel]) -> None:
    told, channel = line
    frames: list[ToWorker] = [GeoDatabaseChanged(), HostAddresses("a", ("192.0.2.1",)), Drain()]
    told.control.sendall(b"".join(map(encode, frames)))
    channel.ready(select.EPOLLIN)
    assert told.heard == frames


def test_clients_have_their_turn_while_much_is_heard(line: tuple[Line, Channel]) -> None:
    told, channel = line
    names = [f"{number}.{'x' * 1_000}" for number in range(40)]
    told.control.sendall(b"".join(encode(HostAddresses(name, ())) for name in names))
    channel.ready(select.EPOLLIN)
    turns, heard = 1, 0
    while told.loop._again:
        assert 0 < len(told.heard) - heard < len(names) / 2
        heard = len(told.heard)
        told.loop._again.clear()
        channel.resume()
        turns += 1
    assert turns > 2
    assert [frame.host for frame in told.heard if isinstance(frame, HostAddresses)] == names


def test_frames_are_sent_at_once(line: tuple[Line, Channel]) -> None:
    told, channel = line
    channel.send(Ready(1))
    channel.send(TableApplied(2))
    assert received(told.control, 2) == [Ready(1), TableApplied(2)]


def test_what_the_control_process_does_not_take_waits_and_is_sent_later(
    line: tuple[Line, Channel],
) -> None:
    told, channel = line
    sent = fill(channel)
    channel.ready(select.EPOLLOUT)
    channel.send(Ready(7))
    frames: list[FromWorker] = []
    with in_background(lambda: frames.extend(received(told.control, sent + 1))):
        poll = select.poll()
        poll.register(channel._sock, select.POLLOUT)
        while channel._unsent:
            poll.poll()
            channel.ready(select.EPOLLOUT)
    assert frames[-1] == Ready(7)


def test_the_channel_is_congested_when_much_is_unsent(line: tuple[Line, Channel]) -> None:
    _, channel = line
    fill(channel)
    assert not channel.is_congested()
    while len(channel._unsent) <= channel_module._MAX_UNSENT_BYTES:
        channel.send(Notice("info", "x" * 10_000, {}))
    assert channel.is_congested()


def test_last_words_are_waited_for(line: tuple[Line, Channel]) -> None:
    told, channel = line
    sent = fill(channel)
    frames: list[FromWorker] = []
    with in_background(lambda: frames.extend(received(told.control, sent))):
        channel.finish()
    assert len(frames) == sent


def lose_by_read(told: Line, channel: Channel) -> None:
    told.control.close()
    channel.ready(select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP)


def lose_by_reset(told: Line, channel: Channel) -> None:
    channel.send(Ready(1))
    told.control.close()  # with something unread, which makes the other end's next read fail
    channel.ready(select.EPOLLIN | select.EPOLLERR)


def lose_by_write(told: Line, channel: Channel) -> None:
    told.control.close()
    channel.send(Ready(1))


def lose_while_reading(told: Line, channel: Channel) -> None:
    told.control.sendall(encode(Drain()))
    told.control.close()
    channel._on_frame = lambda _: channel.send(Ready(1))
    channel.ready(select.EPOLLIN)


def lose_while_flushing(told: Line, channel: Channel) -> None:
    fill(channel)
    told.control.close()
    channel.ready(select.EPOLLOUT | select.EPOLLIN | select.EPOLLHUP)


@pytest.mark.parametrize(
    "lose", [lose_by_read, lose_by_reset, lose_by_write, lose_while_reading, lose_while_flushing]
)
def test_the_loss_of_the_control_process_is_told_once(
    lose: Callable[[Line, Channel], None], line: tuple[Line, Channel]
) -> None:
    told, channel = line
    lose(told, channel)
    assert told.lost == 1
    channel.send(Ready(2))
    channel.ready(select.EPOLLIN | select.EPOLLOUT | select.EPOLLHUP)
    channel.finish()
    assert told.lost == 1
    assert not channel.is_congested()


def test_last_words_to_nobody_are_no_error(line: tuple[Line, Channel]) -> None:
    told, channel = line
    fill(channel)
    told.control.close()
    channel.finish()


def test_frames_before_the_loss_are_heard(line: tuple[Line, Channel]) -> None:
    told, channel = line
    told.control.sendall(encode(Drain()))
    told.control.close()
    channel.ready(select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP)
    assert told.heard == [Drain()]
    assert told.lost == 1


def test_what_is_no_frame_is_an_error(line: tuple[Line, Channel]) -> None:
    told, channel = line
    told.control.sendall(b"\x00\x00\x00\x01\xc1")
    with pytest.raises(FrameError):
        channel.ready(select.EPOLLIN)
