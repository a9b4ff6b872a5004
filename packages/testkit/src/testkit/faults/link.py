"""A fault link: stands in front of a TCP port and does to connections what its faults say.

::

    async with FaultLink("127.0.0.1", server.port, seed=seed) as link:
        client = await asyncio.open_connection(link.host, link.port)
        slow = await link.inject(Latency(0.2, jitter_s=0.05, direction=DOWN))
        ...
        await link.recover(slow)

RST goes through as RST, behind the end of a half, too, and the end of a half as the end of a half. For tests
without an event loop there is `testkit.faults.blocking`. The link tells nothing apart that a relay in
userspace cannot: it accepts before it knows whether anybody listens behind it, and connecting takes no time,
whatever the latency.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from types import TracebackType
from typing import Self, Unpack

from testkit.faults.lanes import Signal, StreamLane
from testkit.faults.late_resets import LateResets
from testkit.faults.listeners import plug, port_of, reset_on_close
from testkit.faults.port_link import LinkOptions, PortLink
from testkit.faults.pump import Pump
from testkit.faults.vocabulary import (
    DOWN,
    UP,
    AcceptThenHang,
    Direction,
    Fault,
    LinkFault,
    Loss,
    Partition,
    Refuse,
)

_BACKLOG = 128


class FaultLink(PortLink):
    """Listens on a port of its own and relays to ``upstream``; see the module."""

    def __init__(self, upstream_host: str, upstream_port: int, **options: Unpack[LinkOptions]) -> None:
        super().__init__(upstream_host, upstream_port, **options)
        self._holder: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._plug: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._connections: dict[int, Connection] = {}
        self._changed = asyncio.Event()
        self._last = 0
        self.late_resets = LateResets()
        """Watches what has ended."""

    @staticmethod
    def unavailable(fault: Fault) -> str | None:
        """Why there is no such fault here; None when there is."""
        if not isinstance(fault, LinkFault):
            return "it is about a node, and this is a link"
        if isinstance(fault, Loss):
            return "what is relayed is a stream, of which the kernel sends again what gets lost"
        if isinstance(fault, Refuse | Partition) and fault.probability != 1:
            return "who listens cannot choose whom it answers"
        return None

    @property
    def connections(self) -> int:
        """How many are open, those that wait for the link to let them through included."""
        return len(self._connections) + len(self._serving)

    async def __aenter__(self) -> Self:
        # As testkit.ports does: the number stays ours while the link refuses.
        self._holder = _bound(self.host, 0)
        self.port = port_of(self._holder)
        self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close_listener()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        for connection in list(self._connections.values()):
            connection.sever(Signal.CUT, connection.client)
        if self._holder is not None:
            self._holder.close()
        # Transports close at the next turn of the loop.
        await asyncio.sleep(0)

    async def apply(self) -> None:
        """See :meth:`FaultyLink.apply`."""
        faults = list(self.in_force)
        if any(isinstance(fault, Refuse) for fault in faults):
            await self._close_listener()
        elif any(isinstance(fault, Partition) for fault in faults):
            await self._plug_listener()
        else:
            await self._open_listener()
        self._changed.set()
        self._changed = asyncio.Event()
        for connection in list(self._connections.values()):
            connection.look()

    # ---- the listener --------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._listener = _bound(self.host, self.port)
        self._listener.listen(_BACKLOG)
        self._accepting = asyncio.create_task(self._accept(self._listener))

    async def _close_listener(self) -> None:
        await self._stop_accepting()
        for sock in (self._plug, self._listener):
            if sock is not None:
                sock.close()
        self._plug = self._listener = None

    async def _plug_listener(self) -> None:
        if self._plug is not None:
            return
        if self._listener is None:
            self._listen()
        await self._stop_accepting()
        assert self._listener is not None
        self._plug = plug(self._listener)

    async def _open_listener(self) -> None:
        if self._listener is None:
            self._listen()
        elif self._plug is not None:
            # Before it closes: who is accepted is told apart by the address.
            name = self._plug.getsockname()
            self._plug.close()
            self._plug = None
            self._listener.listen(_BACKLOG)
            self._accepting = asyncio.create_task(self._accept(self._listener, ignoring=name))

    async def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None

    async def _accept(self, listener: socket.socket, ignoring: object = None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, peer = await loop.sock_accept(listener)
            if peer == ignoring:
                sock.close()
                # Only once: the next from that address is a client.
                ignoring = None
                continue
            self._last += 1
            task = asyncio.create_task(self._serve(sock, self._last))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, sock: socket.socket, number: int) -> None:
        """Take a new client to whom it leads to, as soon as the faults allow."""
        loop = asyncio.get_running_loop()
        try:
            while self.in_force.find(AcceptThenHang, number) is not None:
                await self._changed.wait()
            upstream = await _connected(self.upstream)
        except BaseException:
            # Nobody listens there: the nearest to a refusal that is left.
            reset_on_close(sock)
            sock.close()
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            return
        connection = Connection(self, number)
        self._connections[number] = connection
        transport, _ = await loop.connect_accepted_socket(lambda: connection.client, sock)
        # Nothing is read before both ends are there. In connection_made() that would be said too early:
        # behind it, interpreters before 3.11.4 begin to read all the same.
        transport.pause_reading()
        await loop.create_connection(lambda: connection.server, sock=upstream)
        connection.start()

    def forget(self, number: int) -> None:
        """A connection is over."""
        self._connections.pop(number, None)


class _End(asyncio.Protocol):
    """One of the two sockets of a connection, as a receiver of one lane and the sender of the other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.transport: asyncio.Transport | None = None
        self.is_full = False
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._connection.received(self, data)

    def eof_received(self) -> bool:
        self._connection.ended(self)
        # The loop reads no more of it, and would not hear of a reset.
        if not self.is_lost:
            self._connection.link.late_resets.watch(self._socket(), self._was_reset)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._connection.link.late_resets.forget(self._socket())
        self._connection.lost(self, error)

    def _was_reset(self) -> None:
        self._connection.lost(self, ConnectionResetError("behind its end"))

    def _socket(self) -> socket.socket:
        assert self.transport is not None
        sock: socket.socket = self.transport.get_extra_info("socket")
        return sock

    def pause_writing(self) -> None:
        self.is_full = True
        self._connection.regulate()

    def resume_writing(self) -> None:
        self.is_full = False
        self._connection.regulate()

    # ---- as the end of a lane ------------------------------------------------------------------------

    def deliver(self, data: bytes) -> None:
        if self.transport is not None and not self.is_lost:
            self.transport.write(data)
            # There is room in the lane again.
            self._connection.regulate()

    def deliver_end(self) -> None:
        if self.transport is not None and not self.is_lost:
            with suppress(OSError):
                self.transport.write_eof()
        self._connection.end_delivered()

    def sever(self, signal: Signal) -> None:
        self._connection.sever(signal, self)

    def close(self, *, reset: bool) -> None:
        if self.transport is None or self.is_lost:
            return
        if reset:
            reset_on_close(self._socket())
            self.transport.abort()
        else:
            self.transport.close()


class Connection:
    """Both ends of a relayed connection, and a lane each way."""

    def __init__(self, link: FaultLink, number: int) -> None:
        self.link = link
        self._number = number
        self.client = _End(self)
        self.server = _End(self)
        self._up = self._pump(UP, self.server)
        self._down = self._pump(DOWN, self.client)
        self._ends = 0
        self._is_started = False

    def _pump(self, way: Direction, receiver: _End) -> Pump:
        faults = self.link.in_force
        return Pump(StreamLane(faults.view(self._number, way), faults.draws(self._number, way)), receiver)

    def start(self) -> None:
        self._is_started = True
        self.look()
        self.regulate()

    def look(self) -> None:
        """Faults have changed."""
        self._up.look()
        self._down.look()
        self.regulate()

    def received(self, end: _End, data: bytes) -> None:
        self._from(end).push(data)
        self.regulate()

    def ended(self, end: _End) -> None:
        self._from(end).end()

    def lost(self, end: _End, error: Exception | None) -> None:
        """One end is gone: by our own doing, or by a reset, which is handed on as one."""
        if error is not None:
            self._from(end).abort()
        elif self.client.is_lost and self.server.is_lost:
            self._finish()

    def end_delivered(self) -> None:
        self._ends += 1
        if self._ends == len((self._up, self._down)):
            self.sever(Signal.CUT, self.client)

    def sever(self, signal: Signal, receiver: _End) -> None:
        """End the connection, as ``signal`` says that arrived at ``receiver``."""
        for end in (self.client, self.server):
            end.close(reset=signal is Signal.RESET or (signal is Signal.RESET_RECEIVER and end is receiver))
        self._finish()

    def regulate(self) -> None:
        """Let each end be read as long as there is room for what it says."""
        if not self._is_started:
            return
        for end, pump, other in (
            (self.client, self._up, self.server),
            (self.server, self._down, self.client),
        ):
            if end.transport is None or end.is_lost or end.transport.is_closing():
                continue
            if pump.is_full or other.is_full:
                end.transport.pause_reading()
            else:
                end.transport.resume_reading()

    def _from(self, end: _End) -> Pump:
        return self._up if end is self.client else self._down

    def _finish(self) -> None:
        self._up.stop()
        self._down.stop()
        self.link.forget(self._number)


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setblocking(False)
    sock.bind((host, port))
    return sock


async def _connected(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
