"""The server on real sockets of the loopback interface; what it says is in the unit tests."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from edgeproxy.core.controlplane.candidates import Candidates
from edgeproxy.core.controlplane.names import Zone
from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.model import Backend, Client
from edgeproxy.inbound.dns import DnsServer
from edgeproxy.inbound.dns_messages import MAX_QUERY_BYTES, Lifetimes, Responder
from edgeproxy.inbound.dns_port import DnsPort
from edgeproxy.inbound.dns_streams import StreamEndpoint
from testkit.wait import wait_until_async

TIMEOUT_S = 10.0


class Rows:
    """One backend, and 60 of another app; no connections."""

    version = 1

    def snapshot(self) -> list[PlacedBackend]:
        hosts = [("shop", "192.0.2.1"), *(("many", f"10.0.0.{number}") for number in range(60))]
        return [
            PlacedBackend(slot, Backend(f"b{slot}", app, "eu", "DE", host, 9000, True, 1, 100, 0))
            for slot, (app, host) in enumerate(hosts)
        ]

    def changed_slots(self) -> list[int]:
        return []

    def connections(self, slot: int) -> int:
        return 0


def make_responder() -> Responder:
    rows = Rows()
    return Responder(
        Zone((b"internal",), "eu", frozenset({"eu"}), {}),
        Candidates("eu", rows, rows, dict),
        lambda: rows.version,
        lambda address: Client(address, "", ""),
        Lifetimes(30, 5),
        [],
    )


@asynccontextmanager
async def running(host: str = "127.0.0.1", rate_limit: int = 0) -> AsyncIterator[tuple[DnsServer, int]]:
    """A server and its port."""
    with closing(DnsPort(host, 0)) as port:
        server = DnsServer(port, make_responder(), rate_limit)
        await server.start()
        try:
            yield server, port.port
        finally:
            await server.stop()


async def ask_udp(port: int, name: str = "shop.internal.", to: str = "127.0.0.1") -> dns.message.Message:
    return await dns.asyncquery.udp(dns.message.make_query(name, "A"), to, TIMEOUT_S, port)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


async def read_reply(reader: asyncio.StreamReader) -> dns.message.Message:
    length = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), TIMEOUT_S), "big")
    return dns.message.from_wire(await asyncio.wait_for(reader.readexactly(length), TIMEOUT_S))


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), TIMEOUT_S) == b""
    except ConnectionError:
        return True


def addresses(reply: dns.message.Message) -> list[str]:
    return [rdata.to_text() for rrset in reply.answer for rdata in rrset]


async def test_both_transports_answer() -> None:
    async with running() as (_, port):
        assert addresses(await ask_udp(port)) == ["192.0.2.1"]
        query = dns.message.make_query("shop.internal.", "A")
        assert addresses(await dns.asyncquery.tcp(query, "127.0.0.1", TIMEOUT_S, port)) == ["192.0.2.1"]


async def test_ipv6_and_ipv4_clients_are_answered_on_one_socket() -> None:
    async with running("::") as (_, port):
        assert addresses(await ask_udp(port, to="::1")) == ["192.0.2.1"]
        assert addresses(await ask_udp(port, to="127.0.0.1")) == ["192.0.2.1"]
        assert addresses(await ask_udp(port, to="127.3.3.3")) == ["192.0.2.1"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_reply_comes_from_the_address_that_was_asked(host: str) -> None:
    async with running(host) as (_, port):
        # dnspython refuses a reply from elsewhere, as resolvers do.
        assert addresses(await ask_udp(port, to="127.9.8.7")) == ["192.0.2.1"]


async def test_queries_that_came_before_the_start_are_answered() -> None:
    with closing(DnsPort("127.0.0.1", 0)) as port:
        asked = asyncio.create_task(ask_udp(port.port))
        # One turn sends the query, the reader of the reply waits in the next.
        for _ in range(5):
            await asyncio.sleep(0)
        server = DnsServer(port, make_responder(), 0)
        await server.start()
        assert addresses(await asked) == ["192.0.2.1"]
        await server.stop()


async def test_who_has_stopped_reads_no_further_query() -> None:
    with closing(DnsPort("127.0.0.1", 0)) as port:
        server = DnsServer(port, make_responder(), 0)
        await server.start()
        await server.stop()
        assert not asyncio.get_running_loop().remove_reader(port.datagrams)


async def test_a_truncated_answer_is_whole_over_tcp() -> None:
    async with running() as (_, port):
        query = dns.message.make_query("_many._tcp.internal.", "SRV")
        reply, used_tcp = await dns.asyncquery.udp_with_fallback(query, "127.0.0.1", TIMEOUT_S, port)
        assert used_tcp
        assert len(reply.answer[0]) == 32


async def test_garbage_is_survived() -> None:
    async with running() as (server, port):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for packet in (b"", b"x", bytes(12), b"\xff" * 512, bytes(9000)):
                client.sendto(packet, ("127.0.0.1", port))
        assert addresses(await ask_udp(port)) == ["192.0.2.1"]
        assert server.stats()["queries"] == {"udp": 6, "tcp": 0}


async def test_stats_tell_what_came_and_went() -> None:
    async with running() as (server, port):
        await ask_udp(port)
        await ask_udp(port, "nope.internal.")
        await ask_udp(port, "shop.example.")
        await dns.asyncquery.tcp(dns.message.make_query("nope.internal.", "A"), "127.0.0.1", TIMEOUT_S, port)
        assert server.stats() == {
            "address": f"127.0.0.1:{port}",
            "queries": {"udp": 3, "tcp": 1},
            "replies": {"NOERROR": 1, "NXDOMAIN": 2, "REFUSED": 1},
            "over_limit": {"truncated": 0, "dropped": 0, "delayed": 0},
            "unsent": 0,
        }


@pytest.mark.feature("dns.bounded")
async def test_a_client_above_its_limit_is_sent_to_tcp_or_not_answered_and_others_are_not_harmed() -> None:
    async with running(rate_limit=1) as (server, port):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.66.0.1", 0))
            client.setblocking(False)
            for _ in range(11):
                client.sendto(dns.message.make_query("shop.internal.", "A").to_wire(), ("127.0.0.1", port))
            await wait_until_async(
                lambda: server.stats()["queries"]["udp"] == 11, reason="all queries to be looked at"
            )
            replies = [dns.message.from_wire(client.recv(4096)) for _ in range(6)]
            with pytest.raises(BlockingIOError):
                client.recv(4096)
        truncated = [bool(reply.flags & dns.flags.TC) for reply in replies]
        assert truncated == [False] + [True] * 5
        assert server.stats()["over_limit"] == {"truncated": 5, "dropped": 5, "delayed": 0}
        assert addresses(await ask_udp(port)) == ["192.0.2.1"]


async def test_over_tcp_a_client_above_its_limit_waits() -> None:
    async with running(rate_limit=20) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        started_s = asyncio.get_running_loop().time()
        query = framed(dns.message.make_query("shop.internal.", "A").to_wire())
        writer.write(query * 25)
        for _ in range(25):
            assert addresses(await read_reply(reader)) == ["192.0.2.1"]
        assert asyncio.get_running_loop().time() - started_s >= 0.2
        assert server.stats()["over_limit"]["delayed"] >= 1
        writer.close()


async def test_many_queries_on_one_connection_are_answered_in_their_order() -> None:
    async with running() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        names = ["shop.internal.", "nope.internal.", "many.internal.", "shop.example."] * 5
        queries = [dns.message.make_query(name, "A") for name in names]
        wire = b"".join(framed(query.to_wire()) for query in queries)
        # Cut anywhere: a length, and a message, may come in pieces.
        for start in range(0, len(wire), 7):
            writer.write(wire[start : start + 7])
            await writer.drain()
        assert [(await read_reply(reader)).id for _ in queries] == [query.id for query in queries]
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(framed(b""), id="no message"),
        pytest.param(framed(bytes([0, 0, 0x80, *bytes(9)])), id="a reply"),
        pytest.param((MAX_QUERY_BYTES + 1).to_bytes(2, "big"), id="a length beyond reason"),
    ],
)
async def test_a_connection_on_which_comes_no_query_is_closed(sent: bytes) -> None:
    async with running() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        assert await is_closed(reader)
        writer.close()


Answer = Callable[[bytes, str], Awaitable[bytes | None]]


async def echo(query: bytes, _peer: str) -> bytes:
    return query


@asynccontextmanager
async def streaming(
    answer: Answer = echo, max_clients: int = 128, idle_s: float = 60.0
) -> AsyncIterator[tuple[StreamEndpoint, int]]:
    with closing(DnsPort("127.0.0.1", 0)) as port:
        endpoint = StreamEndpoint(port.streams, answer, max_clients, idle_s)
        await endpoint.start()
        try:
            yield endpoint, port.port
        finally:
            await endpoint.stop()


@pytest.mark.parametrize(
    "sent", [b"", b"\0", framed(b"query")[:-1]], ids=["nothing", "half a length", "half"]
)
async def test_who_does_not_finish_a_query_in_time_is_disconnected(sent: bytes) -> None:
    async with streaming(idle_s=0.05) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        assert await is_closed(reader)
        writer.close()


async def test_who_does_not_take_its_replies_is_disconnected() -> None:
    async def much(_query: bytes, _peer: str) -> bytes:
        return bytes(65_535)

    async with streaming(much, idle_s=0.2) as (endpoint, port):
        with socket.create_connection(("127.0.0.1", port)) as client:
            # More replies than the buffers of both sides hold.
            client.sendall(framed(b"query") * 1_000)
            await wait_until_async(lambda: len(endpoint._clients) == 1, reason="the client to be known")
            await wait_until_async(lambda: not endpoint._clients, reason="the client to be told to go")


async def test_a_client_that_resets_its_connection_leaves_nothing_behind() -> None:
    async with streaming() as (endpoint, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await wait_until_async(lambda: len(endpoint._clients) == 1, reason="the client to be known")
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        await wait_until_async(lambda: not endpoint._clients, reason="the client to be forgotten")


async def test_one_client_too_many_ends_the_one_that_was_silent_for_longest() -> None:
    async with streaming(max_clients=2) as (_, port), AsyncExitStack() as clients:

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            clients.callback(writer.close)
            writer.write(framed(b"query"))
            assert await asyncio.wait_for(reader.readexactly(7), TIMEOUT_S) == framed(b"query")
            return reader, writer

        first_reader, first_writer = await connect()
        second_reader, _ = await connect()
        first_writer.write(framed(b"again"))
        await asyncio.wait_for(first_reader.readexactly(7), TIMEOUT_S)
        await connect()
        assert await is_closed(second_reader)
        first_writer.write(framed(b"still"))
        assert await asyncio.wait_for(first_reader.readexactly(7), TIMEOUT_S) == framed(b"still")


async def test_stopping_ends_connections_and_gives_the_port_back() -> None:
    async with running() as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await server.stop()
        assert await is_closed(reader)
        writer.close()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
    with closing(DnsPort("127.0.0.1", port)):
        pass


async def test_an_endpoint_that_never_started_can_be_stopped() -> None:
    with closing(DnsPort("127.0.0.1", 0)) as port:
        await StreamEndpoint(port.streams, echo).stop()
