"""A fault link for datagrams: stands in front of a UDP port. Each client has its own socket behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self, Unpack

from testkit.faults.lanes import STREAM_ONLY, DatagramLane
from testkit.faults.port_link import LinkOptions, PortLink
from testkit.faults.vocabulary import (
    DOWN,
    UP,
    AcceptThenHang,
    Fault,
    LinkFault,
    Refuse,
)

Address = tuple[str, int]


class DatagramFaultLink(PortLink):
    """Listens on a UDP port of its own and relays to ``upstream``; as `testkit.faults.link.FaultLink`."""

    def __init__(self, upstream_host: str, upstream_port: int, **options: Unpack[LinkOptions]) -> None:
        super().__init__(upstream_host, upstream_port, **options)
        self._transport: asyncio.DatagramTransport | None = None
        self._behind: dict[Address, asyncio.DatagramTransport] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._relaying: set[asyncio.Task[None]] = set()
        # A datagram is struck by its own draw, so what numbers it is its place among all of its way.
        self.up = DatagramLane(lambda number: self.in_force.striking(number, UP), self.in_force.draws(0, UP))
        self.down = DatagramLane(
            lambda number: self.in_force.striking(-number, DOWN), self.in_force.draws(0, DOWN)
        )

    @staticmethod
    def unavailable(fault: Fault) -> str | None:
        """Why there is no such fault here; None when there is."""
        if not isinstance(fault, LinkFault):
            return "it is about a node, and this is a link"
        if isinstance(fault, (*STREAM_ONLY, Refuse, AcceptThenHang)):
            return "datagrams have no connection"
        return None

    async def __aenter__(self) -> Self:
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Front(self), local_addr=(self.host, 0)
        )
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*self._relaying, return_exceptions=True)
        for transport in (self._transport, *self._behind.values()):
            if transport is not None:
                transport.close()
        await asyncio.sleep(0)

    async def apply(self) -> None:
        """Nothing: each datagram asks anew what strikes it."""

    def _relay(self, data: bytes, client: Address) -> None:
        task = asyncio.get_running_loop().create_task(self._relay_up(data, client))
        self._relaying.add(task)
        task.add_done_callback(self._relaying.discard)

    def _answer(self, data: bytes, client: Address) -> None:
        assert self._transport is not None
        self._transport.sendto(data, client)

    async def _relay_up(self, data: bytes, client: Address) -> None:
        behind = self._behind.get(client)
        if behind is None:
            behind, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Behind(self, client), remote_addr=self.upstream
            )
            self._behind[client] = behind
        behind.sendto(data)

    def received_up(self, data: bytes, client: Address) -> None:
        if (planned := self.up.push(data, asyncio.get_running_loop().time())) is not None:
            at_s, piece = planned
            self._at(at_s, lambda: self._relay(piece, client))

    def received_down(self, data: bytes, client: Address) -> None:
        if (planned := self.down.push(data, asyncio.get_running_loop().time())) is not None:
            at_s, piece = planned
            self._at(at_s, lambda: self._answer(piece, client))

    def _at(self, at_s: float, do: Callable[[], object]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            do()

        timer = asyncio.get_running_loop().call_at(at_s, run)
        self._timers.add(timer)


class _Front(asyncio.DatagramProtocol):
    def __init__(self, link: DatagramFaultLink) -> None:
        self._link = link

    def datagram_received(self, data: bytes, address: Address) -> None:
        self._link.received_up(data, address)


class _Behind(asyncio.DatagramProtocol):
    def __init__(self, link: DatagramFaultLink, client: Address) -> None:
        self._link = link
        self._client = client

    def datagram_received(self, data: bytes, _: Address) -> None:
        self._link.received_down(data, self._client)
