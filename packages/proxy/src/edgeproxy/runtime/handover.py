"""What a control process hands to its successor, and how the two talk about it.

The predecessor starts the successor with every descriptor inherited and one variable in its environment,
``HANDOVER_FD``: the number of a Unix socket. On it waits one message, :class:`Estate`; the successor
answers with one, :class:`TakenOver` or :class:`Refused`, and the end of the connection tells each that
the other has ended. The variable has no ``EDGEPROXY_`` in front, since that would make it a setting.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping

import msgspec

from edgeproxy.errors import EdgeproxyError
from edgeproxy.ports import HANDOVER_VARIABLE

_FORMAT = 1
_LENGTH_BYTES = 4


class Bequest(msgspec.Struct, frozen=True, array_like=True):
    """Sockets that listen on one address."""

    purpose: str
    """``listener``, ``dns``, ``api``, ``metrics``, ``admin``, ``gossip`` or ``transport``."""
    address: str
    """As the settings have it, so a port of 0 stays 0."""
    descriptors: tuple[int, ...]


class Estate(msgspec.Struct, frozen=True, tag=True):
    """Everything that is handed over. ``slots`` are the cells of the segment by backend id."""

    pid: int
    version: str
    segment_fd: int
    slots: dict[str, int]
    bequests: tuple[Bequest, ...]
    format: int = _FORMAT


class TakenOver(msgspec.Struct, frozen=True, tag=True):
    """The successor serves: let go of everything and drain."""

    version: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The successor cannot start, and ends."""

    why: str


class Inheritance:
    """The sockets that came with an estate, each given to whoever asks for its address first."""

    def __init__(self, bequests: tuple[Bequest, ...] = ()) -> None:
        self._sockets: dict[tuple[str, str], list[list[socket.socket]]] = {}
        for each in bequests:
            sockets = [socket.socket(fileno=fd) for fd in each.descriptors]
            for sock in sockets:
                sock.set_inheritable(False)
            self._sockets.setdefault((each.purpose, each.address), []).append(sockets)

    def take(self, purpose: str, address: str) -> list[socket.socket]:
        """The sockets of ``address``, in the order in which they were handed over; none if it is new."""
        waiting = self._sockets.get((purpose, address))
        return waiting.pop(0) if waiting else []

    def close(self) -> None:
        """Close what nobody took: addresses that the new settings have not."""
        for waiting in self._sockets.values():
            for sockets in waiting:
                for sock in sockets:
                    sock.close()
        self._sockets.clear()


class Predecessor:
    """The control process that this one succeeds, which serves on until :meth:`relieve`."""

    def __init__(self, sock: socket.socket, estate: Estate) -> None:
        self._sock = sock
        self.estate = estate

    def relieve(self, version: str) -> None:
        """Tell it that everything is served here. One that has died needs not know."""
        self._answer(TakenOver(version))

    def refuse(self, why: str) -> None:
        """Tell it that this process cannot start, so that it goes on."""
        self._answer(Refused(why))
        self._sock.close()

    async def gone(self) -> None:
        """Return when it has ended, whichever way."""
        import asyncio  # who awaits has it; at a start that is slow

        loop = asyncio.get_running_loop()
        self._sock.setblocking(False)
        with self._sock, contextlib.suppress(ConnectionError):
            await loop.sock_recv(self._sock, 1)

    def _answer(self, message: TakenOver | Refused) -> None:
        with contextlib.suppress(OSError):
            self._sock.sendall(msgspec.msgpack.encode(message))


def receive(environ: MutableMapping[str, str]) -> Predecessor | None:
    """Who started this process to be succeeded by it; ``None`` when nobody did.

    The variable is removed: it is for this process alone.

    Raises:
        EdgeproxyError: it was set by something else, or by a version that this one cannot succeed.
    """
    number = environ.pop(HANDOVER_VARIABLE, None)
    if number is None:
        return None
    try:
        sock = socket.socket(fileno=int(number))
        sock.set_inheritable(False)
        with sock.makefile("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "big")
            estate = msgspec.msgpack.decode(stream.read(length), type=Estate)
    except (OSError, ValueError) as error:  # msgspec's errors are among the latter
        raise EdgeproxyError(
            f"{HANDOVER_VARIABLE}={number} names no handover ({error}); it is set by a proxy that is being "
            "upgraded alone: unset it"
        ) from error
    predecessor = Predecessor(sock, estate)
    if estate.format != _FORMAT:
        why = f"version {estate.version} hands over in a way this version does not know; restart the proxy"
        predecessor.refuse(why)
        raise EdgeproxyError(why)
    return predecessor


def written(estate: Estate) -> bytes:
    """The estate as :func:`receive` reads it, its length first."""
    body = msgspec.msgpack.encode(estate)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def read_answer(message: bytes) -> TakenOver | Refused:
    """What the successor answered; an end without an answer is a refusal without a reason."""
    try:
        return msgspec.msgpack.decode(message, type=TakenOver | Refused)
    except msgspec.DecodeError:
        return Refused("it ended before it was ready; what it wrote to the log says why")


def environment(channel_fd: int) -> dict[str, str]:
    """The environment for a successor that finds its handover at ``channel_fd``."""
    return {**os.environ, HANDOVER_VARIABLE: str(channel_fd)}
