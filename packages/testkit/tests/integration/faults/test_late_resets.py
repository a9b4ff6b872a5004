"""Sockets that have ended are reset, or not, and whoever watches them is told of the resets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from testkit.contracts.socket_ends import connected, listening
from testkit.faults.late_resets import LateResets
from testkit.faults.listeners import reset_on_close
from testkit.wait import wait_until_async

Pair = tuple[socket.socket, socket.socket]


class Told:
    """Watches ends, and counts for each how often it was told."""

    def __init__(self) -> None:
        self.resets = LateResets()
        self.times: dict[socket.socket, int] = {}

    def watch(self, sock: socket.socket) -> None:
        self.times[sock] = 0

        def count() -> None:
            self.times[sock] += 1

        self.resets.watch(sock, count)


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Three connections, of each of which the far end has ended its half."""
    with listening() as listener:
        made: list[Pair] = []
        for _ in range(3):
            near = connected(listener.getsockname())
            far = listener.accept()[0]
            far.setblocking(True)
            far.shutdown(socket.SHUT_WR)
            made.append((near, far))
        yield made
        for pair in made:
            for sock in pair:
                sock.close()


def reset(sock: socket.socket) -> None:
    reset_on_close(sock)
    sock.close()


async def test_reset_behind_an_end_is_told_once_and_no_other(pairs: list[Pair]) -> None:
    told = Told()
    for near, _ in pairs:
        told.watch(near)
    (first, _), (second, far), (third, _) = pairs
    reset(far)
    await wait_until_async(lambda: told.times[second], reason="the reset to be told")
    # What has been told of is not told of again, though the socket is what it was.
    reset(pairs[0][1])
    await wait_until_async(lambda: told.times[first], reason="the next reset to be told")
    assert told.times == {first: 1, second: 1, third: 0}
    for near, _ in pairs:
        told.resets.forget(near)


async def test_end_of_both_halves_is_no_reset(pairs: list[Pair]) -> None:
    told = Told()
    (ended, _), (other, far), _ = pairs
    for near in (ended, other):
        told.watch(near)
    ended.shutdown(socket.SHUT_WR)
    reset(far)
    await wait_until_async(lambda: told.times[other], reason="the reset to be told")
    assert told.times[ended] == 0
    for near in (ended, other):
        told.resets.forget(near)


async def test_what_is_forgotten_is_not_told_of_and_may_be_watched_again(pairs: list[Pair]) -> None:
    told = Told()
    (forgotten, far), (other, other_far), _ = pairs
    for near in (forgotten, other):
        told.watch(near)
    told.resets.forget(forgotten)
    told.resets.forget(forgotten)
    reset(far)
    reset(other_far)
    await wait_until_async(lambda: told.times[other], reason="the reset to be told")
    assert told.times[forgotten] == 0
    told.resets.forget(other)
    # Nothing is watched now; it begins anew, and what was reset meanwhile is told at once.
    told.watch(forgotten)
    await wait_until_async(lambda: told.times[forgotten], reason="the old reset to be told")
    told.resets.forget(forgotten)
