"""What the kernel says of a socket at two moments, taken for one count."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable
from itertools import count
from typing import cast

import pytest

from edgeproxy.worker.kernel_maps import KernelMaps

pytestmark = pytest.mark.feature("relay.kernel")

TAKEN = 1_000


class Receiver:
    """A socket that has taken :data:`TAKEN` bytes; how many of them are acknowledged at each look."""

    def __init__(self, acknowledged: Iterable[int]) -> None:
        self.acknowledged = iter(acknowledged)

    def getsockopt(self, *_: int) -> bytes:
        return bytes(120) + struct.pack("=Q", next(self.acknowledged))


@pytest.fixture(autouse=True)
def _outgoing_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    def ioctl(sock: Receiver, _request: int, _space: bytes) -> bytes:
        return struct.pack("i", TAKEN - next(sock.acknowledged))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)


def receiver(*acknowledged: int) -> socket.socket:
    return cast(socket.socket, Receiver(acknowledged))


def test_what_is_acknowledged_between_two_looks_is_missed() -> None:
    assert KernelMaps.written_bytes(receiver(7, 10)) == TAKEN - 3


@pytest.mark.parametrize(
    "acknowledged", [(7, 7, 7), (7, 10, 10, 10, 10), (7, 7, 10, 10, 10), (7, 8, 9, 9, 9)]
)
def test_an_exact_count_is_of_looks_between_which_nothing_was(acknowledged: tuple[int, ...]) -> None:
    assert KernelMaps.exactly_written_bytes(receiver(*acknowledged)) == TAKEN


def test_nobody_looks_for_ever() -> None:
    busy = Receiver(count())
    assert KernelMaps.exactly_written_bytes(cast(socket.socket, busy)) is None
    assert next(busy.acknowledged) < 20
