from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import cast

import pytest

from testkit.faults.link_udp import DatagramFaultLink
from testkit.faults.vocabulary import (
    DOWN,
    AcceptThenHang,
    Fault,
    Kill,
    Latency,
    Loss,
    Partition,
    Reset,
    UnavailableError,
)
from testkit.virtual_time import virtual_time
from testkit.wait import wait_until_async


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Which the selector loop's is, but does not say so.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(data, address)


class Client(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, _: object) -> None:
        self.received.put_nowait(data)


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[DatagramFaultLink, asyncio.DatagramTransport, Client]]:
    loop = asyncio.get_running_loop()
    echo, _ = await loop.create_datagram_endpoint(_Echo, local_addr=("127.0.0.1", 0))
    port = echo.get_extra_info("sockname")[1]
    with closing(echo):
        async with DatagramFaultLink("127.0.0.1", port, seed=3) as link:
            transport, client = await loop.create_datagram_endpoint(
                Client, remote_addr=(link.host, link.port)
            )
            with closing(transport):
                yield link, transport, client


async def test_datagrams_go_there_and_back() -> None:
    async with linked() as (_, transport, client):
        for number in range(3):
            transport.sendto(bytes([number]))
            assert await client.received.get() == bytes([number])


@virtual_time
async def test_latency_of_one_way() -> None:
    async with linked() as (link, transport, client):
        await link.inject(Latency(3.0, direction=DOWN))
        began_s = asyncio.get_running_loop().time()
        transport.sendto(b"x")
        await client.received.get()
        assert 3 <= asyncio.get_running_loop().time() - began_s < 4


async def test_what_is_lost_is_counted_and_the_rest_arrives() -> None:
    async with linked() as (link, transport, client):
        number = await link.inject(Loss(0.5))
        for _ in range(40):
            transport.sendto(b"lost or not")
        await wait_until_async(lambda: link.up.sent == 40, reason="all to have come to the link")
        await link.recover(number)
        while True:
            transport.sendto(b"last")
            if await client.received.get() == b"last":
                break
        assert 0 < link.up.lost < 40


async def test_a_partition_loses_and_does_not_hold() -> None:
    async with linked() as (link, transport, client):
        transport.sendto(b"before")
        assert await client.received.get() == b"before"
        number = await link.inject(Partition(direction=DOWN))
        transport.sendto(b"lost")
        await wait_until_async(lambda: link.down.lost, reason="the answer to be lost")
        await link.recover(number)
        transport.sendto(b"after")
        assert await client.received.get() == b"after"


async def test_probability_is_that_of_a_datagram() -> None:
    async with linked() as (link, _, _client):
        await link.inject(Partition(probability=0.5))
        planned = [link.up.push(b"x", 0) for _ in range(200)]
        assert 60 < planned.count(None) < 140


@pytest.mark.parametrize(
    ("fault", "why"),
    [(Reset(), "no connection"), (AcceptThenHang(), "no connection"), (Kill(), "about a node")],
)
async def test_what_it_cannot_do_it_says(fault: Fault, why: str) -> None:
    async with linked() as (link, _, _client):
        with pytest.raises(UnavailableError, match=why):
            await link.inject(fault)


async def test_the_journal_tells_what_was_done() -> None:
    async with linked() as (link, _, _client):
        await link.recover(await link.inject(Loss(1.0)))
        assert [entry.what for entry in link.journal.entries] == ["inject", "recover"]
        with pytest.raises(KeyError):
            await link.recover(99)
