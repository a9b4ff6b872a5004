"""The fault link on real sockets; in virtual time, where it is about time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from testkit.faults.exchange import Outcome, Serve, echo, exchange, serving
from testkit.faults.link import FaultLink
from testkit.faults.listeners import refusing_port, reset_on_close
from testkit.faults.vocabulary import (
    DOWN,
    UP,
    AcceptThenHang,
    Bandwidth,
    Blackhole,
    Corruption,
    Fault,
    HalfClose,
    Latency,
    LimitBytes,
    Loss,
    Partition,
    Pause,
    Refuse,
    Reset,
    Slicing,
    SlowClose,
    UnavailableError,
)
from testkit.virtual_time import virtual_time
from testkit.wait import wait_until_async

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def linked(serve: Serve = echo, seed: int = 1) -> AsyncIterator[FaultLink]:
    async with serving(serve) as port, FaultLink("127.0.0.1", port, seed=seed) as link:
        yield link


@asynccontextmanager
async def connected(link: FaultLink) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(link.host, link.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def ask(streams: Streams, question: bytes = b"hello") -> bytes:
    streams[1].write(question)
    return await streams[0].readexactly(len(question))


async def outcome(link: FaultLink, patience_s: float = 5.0) -> Outcome:
    return await exchange(lambda: asyncio.open_connection(link.host, link.port), patience_s=patience_s)


async def write_until_full(writer: asyncio.StreamWriter) -> int:
    """Write until there is no room for a while, long before 64 MiB; how many bytes that were."""
    for pieces in range(1, 65):
        writer.write(bytes(1 << 20))
        try:
            await asyncio.wait_for(writer.drain(), 0.1)
        except TimeoutError:
            return pieces << 20
    raise AssertionError("nobody kept us from writing 64 MiB")


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_without_faults_it_is_not_noticed() -> None:
    async with linked() as link:
        assert await outcome(link) is Outcome.ANSWERED
        await wait_until_async(lambda: link.connections == 0, reason="the connection to be over")


async def test_much_data_goes_through_whole_when_the_receiver_is_slow_to_read() -> None:
    sent = bytes(range(256)) * 16384
    async with linked() as link, connected(link) as (reader, writer):
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == sent


async def test_a_receiver_that_does_not_read_is_felt_by_the_sender_and_gets_all_in_the_end() -> None:
    may_read = asyncio.Event()
    received = asyncio.Queue[int]()

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_read.wait()
        received.put_nowait(len(await reader.read(-1)))
        writer.close()

    async with linked(read_late) as link, connected(link) as (_, writer):
        sent = await write_until_full(writer)
        may_read.set()
        writer.write_eof()
        assert await received.get() == sent


async def test_the_end_of_a_half_goes_through_as_one() -> None:
    async def answer_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read(-1)
        writer.write(said[::-1])
        writer.close()

    async with linked(answer_after_the_end) as link, connected(link) as (reader, writer):
        writer.write(b"abc")
        writer.write_eof()
        assert await reader.read(-1) == b"cba"


async def test_a_reset_goes_through_as_one_either_way() -> None:
    seen: asyncio.Queue[type[BaseException] | None] = asyncio.Queue()

    async def reset_or_watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"R":
            reset_on_close(writer.get_extra_info("socket"))
            writer.transport.abort()
            return
        try:
            await reader.read(1)
        except ConnectionError as error:
            await seen.put(type(error))
        else:
            await seen.put(None)
        writer.close()

    async with linked(reset_or_watch) as link:
        async with connected(link) as (reader, writer):
            writer.write(b"R")
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        async with connected(link) as (reader, writer):
            writer.write(b"W")
            await wait_until_async(lambda: link.connections == 1, reason="the connection to be relayed")
            reset_on_close(writer.get_extra_info("socket"))
            writer.transport.abort()
            assert await seen.get() is ConnectionResetError


async def test_where_nobody_listens_who_connects_is_reset() -> None:
    with refusing_port() as port:
        async with FaultLink("127.0.0.1", port) as link:
            assert await outcome(link) is Outcome.TURNED_AWAY


@virtual_time
async def test_latency_is_felt_both_ways_or_one() -> None:
    async with linked() as link, connected(link) as streams:
        number = await link.inject(Latency(2.0))
        began_s = now_s()
        await ask(streams)
        assert 4.0 <= now_s() - began_s < 5.0
        await link.recover(number)
        await link.inject(Latency(1.0, direction=DOWN))
        began_s = now_s()
        await ask(streams)
        assert 1.0 <= now_s() - began_s < 2.0


@virtual_time
async def test_bandwidth_spreads_what_is_sent_over_time() -> None:
    async with linked() as link, connected(link) as (reader, writer):
        await link.inject(Bandwidth(40_000, direction=UP))
        began_s = now_s()
        writer.write(bytes(20_000))
        await reader.readexactly(20_000)
        assert 0.4 <= now_s() - began_s <= 1.0


@virtual_time
async def test_slices_arrive_one_by_one() -> None:
    async with linked() as link, connected(link) as (reader, writer):
        await link.inject(Slicing(2, pause_s=1.0, direction=DOWN))
        writer.write(b"abcde")
        assert [await reader.read(100) for _ in range(3)] == [b"ab", b"cd", b"e"]


@virtual_time
async def test_a_slow_close_is_waited_for() -> None:
    async with linked() as link, connected(link) as (reader, writer):
        await link.inject(SlowClose(30.0, direction=DOWN))
        writer.write(b"bye")
        writer.write_eof()
        assert await reader.read(100) == b"bye"
        began_s = now_s()
        assert await reader.read(100) == b""
        assert 29 < now_s() - began_s < 40


async def test_a_half_closed_sender_is_not_heard_and_still_hears() -> None:
    heard = asyncio.Event()

    async def tell_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(100) == b"before"
        heard.set()
        assert await reader.read(100) == b""
        writer.write(b"I go on")
        writer.close()

    async with linked(tell_after_the_end) as link, connected(link) as (reader, writer):
        writer.write(b"before")
        await heard.wait()
        await link.inject(HalfClose(direction=UP))
        assert await reader.read(100) == b"I go on"


async def test_corruption_is_told_from_an_answer() -> None:
    async with linked() as link:
        await link.inject(Corruption(direction=DOWN))
        assert await outcome(link) is Outcome.ALTERED


async def test_the_limit_cuts_the_answer_short() -> None:
    async with linked() as link:
        await link.inject(LimitBytes(10, direction=DOWN))
        assert await outcome(link) is Outcome.CUT_SHORT


async def test_a_reset_strikes_open_connections_and_new_ones_until_it_is_over() -> None:
    async with linked() as link, connected(link) as (reader, writer):
        assert await ask((reader, writer)) == b"hello"
        number = await link.inject(Reset())
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        assert await outcome(link) is Outcome.TURNED_AWAY
        await link.recover(number)
        assert await outcome(link) is Outcome.ANSWERED


async def test_a_reset_of_one_way_ends_in_order_for_the_other_side() -> None:
    async with linked() as link, connected(link) as (reader, writer):
        assert await ask((reader, writer)) == b"hello"
        await link.inject(Reset(direction=UP))
        assert await reader.read(1) == b""


@virtual_time
async def test_what_a_blackhole_swallowed_never_arrives() -> None:
    async with linked() as link, connected(link) as streams:
        number = await link.inject(Blackhole(direction=UP))
        streams[1].write(b"lost")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(streams[0].read(1), 60)
        await link.recover(number)
        assert await ask(streams, b"later") == b"later"


@virtual_time
async def test_what_a_partition_held_arrives_when_it_heals() -> None:
    async with linked() as link, connected(link) as (reader, writer):
        number = await link.inject(Partition())
        writer.write(b"held")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 60)
        await link.recover(number)
        assert await reader.readexactly(4) == b"held"


async def test_nobody_can_connect_through_a_partition() -> None:
    async with linked() as link:
        number = await link.inject(Partition(direction=DOWN))
        again = await link.inject(Partition(direction=UP))
        assert await outcome(link, patience_s=0.1) is Outcome.SILENT
        await link.recover(number)
        assert await outcome(link, patience_s=0.1) is Outcome.SILENT
        await link.recover(again)
        assert await outcome(link) is Outcome.ANSWERED


async def test_refusal_is_one_and_open_connections_stay() -> None:
    async with linked() as link, connected(link) as streams:
        assert await ask(streams) == b"hello"
        number = await link.inject(Refuse())
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(link.host, link.port)
        # Nobody else is given the port, and a partition that comes then takes over.
        assert await ask(streams) == b"hello"
        await link.recover(number)
        assert await outcome(link) is Outcome.ANSWERED


async def test_a_partition_after_a_refusal_is_silent() -> None:
    async with linked() as link:
        refusal = await link.inject(Refuse())
        await link.inject(Partition())
        await link.recover(refusal)
        assert await outcome(link, patience_s=0.1) is Outcome.SILENT


async def test_who_was_accepted_and_left_hanging_is_served_afterwards() -> None:
    async with linked() as link:
        number = await link.inject(AcceptThenHang())
        async with connected(link) as (reader, writer):
            writer.write(b"hello")
            await wait_until_async(lambda: link.connections == 1, reason="the connection to be accepted")
            assert link.connections == 1
            await link.recover(number)
            assert await reader.readexactly(5) == b"hello"


async def test_who_hangs_still_is_closed_with_the_link() -> None:
    async with linked() as link:
        await link.inject(AcceptThenHang())
        with socket.create_connection((link.host, link.port)) as sock:
            await wait_until_async(lambda: link.connections == 1, reason="the connection to be accepted")
            await link.__aexit__(None, None, None)
            sock.settimeout(10)
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


async def test_probability_strikes_some_connections_as_the_seed_says() -> None:
    async def struck(seed: int) -> list[Outcome]:
        async with linked(seed=seed) as link:
            await link.inject(Reset(probability=0.5))
            return [await outcome(link) for _ in range(12)]

    first = await struck(7)
    assert {Outcome.ANSWERED, Outcome.TURNED_AWAY} == set(first)
    assert await struck(7) == first


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Loss(0.3), "the kernel sends again"),
        (Pause(), "about a node"),
        (Partition(probability=0.5), "cannot choose"),
        (Refuse(probability=0.5), "cannot choose"),
    ],
)
async def test_what_it_cannot_do_it_says(fault: Fault, why: str) -> None:
    async with linked() as link:
        with pytest.raises(UnavailableError, match=why):
            await link.inject(fault)
        assert link.journal.entries == []


async def test_the_journal_tells_what_was_done() -> None:
    async with linked() as link:
        await link.recover(await link.inject(Latency(0.1)))
        assert [(entry.what, entry.on) for entry in link.journal.entries] == [
            ("inject", "link"),
            ("recover", "link"),
        ]
        assert str(link.journal).startswith("seed 1\n")
        assert "Latency(" in str(link.journal)
