"""The last bytes of a stream and its end, as segments on the wire."""

from __future__ import annotations

import socket
import struct

import pytest

from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    read_exactly,
    read_to_end,
    row,
)

_SEGS_IN_AT = 140
"""``tcpi_segs_in`` in ``struct tcp_info`` of ``linux/tcp.h``."""


def segments_received(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    (segments,) = struct.unpack_from("I", info, _SEGS_IN_AT)
    assert isinstance(segments, int)
    return segments


@pytest.mark.feature("relay.copy")
@pytest.mark.parametrize("is_answer", [True, False], ids=["answer", "question"])
def test_the_last_bytes_and_the_end_travel_in_one_segment(
    start_plane: StartPlane, backend: Backends, is_answer: bool
) -> None:
    plane = start_plane(row("a", backend.port))
    with plane.connect() as client, backend.accept() as served:
        sender, receiver = (served, client) if is_answer else (client, served)
        # What is on its way besides, such as an acknowledgement, has come when this has.
        receiver.sendall(b"go")
        read_exactly(sender, 2)
        sender.sendall(b"on")
        read_exactly(receiver, 2)
        before = segments_received(receiver)
        # As one segment, or the proxy may see the bytes before there is an end.
        sender.send(b"last", socket.MSG_MORE)
        sender.shutdown(socket.SHUT_WR)
        assert read_to_end(receiver) == b"last"
        assert segments_received(receiver) - before == 1
