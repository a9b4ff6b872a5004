"""Sockets as the ends of a byte stream, to hold a real relay to :mod:`testkit.contracts.byte_stream`.

::

    with SocketStreams(lambda small: connected(relay.address, small), listener) as harness:
        ...

where ``listener`` is what the relay connects to. Without a relay, with the listener's own address, it is the
loopback interface that is held to the contract.

Sockets block, in threads of the harness: so that anything that behaves like a socket will do, such as one
that speaks TLS.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

TIMEOUT_S = 15.0
"""Of any single call."""
_QUIET_MS = 200
SMALL_BYTES = 16 << 10
"""Of a receive buffer that is small."""
_THREADS = 48
"""No test has so many calls under way that wait for each other."""

T = TypeVar("T")


def held_by_the_kernel_bytes() -> int:
    """What the kernel may hold in one direction of two connections, one behind the other."""
    largest = (Path(f"/proc/sys/net/ipv4/tcp_{each}mem").read_text().split()[2] for each in "rw")
    return 2 * sum(map(int, largest))


def connected(address: tuple[str, int], *, small: bool = False) -> socket.socket:
    """A socket that is connected to ``address``; with ``small`` its receive buffer is."""
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if small:
        # Before it connects: a sender that has seen a larger window waits for half of that one to open.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
    sock.settimeout(TIMEOUT_S)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def listening(host: str = "127.0.0.1") -> socket.socket:
    """A socket that listens on a port of its own."""
    sock = socket.socket()
    sock.bind((host, 0))
    sock.listen(128)
    sock.settimeout(TIMEOUT_S)
    return sock


class SocketEnd:
    """One end; see :class:`testkit.contracts.byte_stream.End`."""

    def __init__(self, sock: socket.socket, threads: ThreadPoolExecutor) -> None:
        self.sock = sock
        self._threads = threads

    async def send(self, data: bytes) -> None:
        await self._do(lambda: self.sock.sendall(data))

    async def offer(self, data: bytes) -> int:
        return await self._do(lambda: self._offer(data))

    async def receive(self, size: int = 1 << 16) -> bytes:
        return await self._do(lambda: self.sock.recv(size))

    async def hears_reset(self) -> None:
        events = await self._do(lambda: _poll(self.sock, 0, int(TIMEOUT_S * 1000)))
        if not events & select.POLLERR:
            raise TimeoutError(f"no reset after {TIMEOUT_S:g} s, but events {events}")

    async def end(self) -> None:
        await self._do(lambda: self.sock.shutdown(socket.SHUT_WR))

    async def close(self) -> None:
        await self._do(self.sock.close)

    async def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.close()

    def _offer(self, data: bytes) -> int:
        while _poll(self.sock, select.POLLOUT, _QUIET_MS) & select.POLLOUT:
            with suppress(BlockingIOError):
                return self.sock.send(data)
        return 0

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


class SocketStreams:
    """The harness, for one test."""

    much_bytes = 4 << 20

    def __init__(
        self,
        connect: Callable[[bool], socket.socket],
        listener: socket.socket,
        *,
        serve: Callable[[socket.socket], socket.socket] = lambda sock: sock,
        held_bytes: int = 0,
    ) -> None:
        """``connect`` takes whether the receive buffer is to be small, and ``serve`` makes of an accepted
        socket what the far end is. ``held_bytes`` is what is held beside the kernel."""
        self.held_bytes = held_by_the_kernel_bytes() + held_bytes
        self._connect = connect
        self._listener = listener
        self._serve = serve
        self._threads = ThreadPoolExecutor(_THREADS, "socket-end")
        self._ends: list[SocketEnd] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self._ends:
            end.sock.close()
        self._threads.shutdown()

    async def connect(self, *, small: bool = False) -> SocketEnd:
        return await self._do(lambda: self._connect(small))

    async def accept(self) -> SocketEnd:
        return await self._do(self._accept)

    def _accept(self) -> socket.socket:
        sock, _ = self._listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(TIMEOUT_S)
        return self._serve(sock)

    async def _do(self, make: Callable[[], socket.socket]) -> SocketEnd:
        sock = await asyncio.get_running_loop().run_in_executor(self._threads, make)
        self._ends.append(SocketEnd(sock, self._threads))
        return self._ends[-1]


def _poll(sock: socket.socket, events: int, timeout_ms: int) -> int:
    poll = select.poll()
    poll.register(sock, events)
    found = poll.poll(timeout_ms)
    return found[0][1] if found else 0
