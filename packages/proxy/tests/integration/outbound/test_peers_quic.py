"""Connections between nodes over real QUIC; what is refused of whom, and that nothing is stuck or lost."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from random import Random

import pytest

from edgeproxy.config import Address
from edgeproxy.core.replication.handshake import Refused
from edgeproxy.core.replication.send_queue import QUEUE_BYTES, WINDOW_BYTES
from edgeproxy.core.wire.peer_frames import MAX_FRAME_BYTES, Frame, encode
from edgeproxy.outbound import peer_session
from edgeproxy.outbound.peer_session import CREDIT, FIRST_MESSAGE_KIND, Session
from edgeproxy.outbound.quic_endpoint import Link
from packages.proxy.tests.integration.outbound.quic_nodes import (
    KEY,
    OTHER_KEY,
    Node,
    running,
    until,
    want_all,
)

pytestmark = pytest.mark.feature("replication.peers")

KIND = FIRST_MESSAGE_KIND


def session_of(node: Node, peer: str) -> Session:
    return node.peers._sessions[peer]


async def test_messages_go_both_ways_over_one_connection() -> None:
    a, b, c = Node("a"), Node("b"), Node("c")
    async with running(a, b, c):
        await until(lambda: all(len(set(n.peers.connected())) == 2 for n in (a, b, c)), "all are connected")
        a.peers.send(("b", "c"), Frame(KIND, b"to both"))
        c.peers.send(["a"], Frame(KIND, b"to a"))
        await until(lambda: a.messages and b.messages and c.messages, "messages arrive")
        assert b.messages == c.messages == [("a", Frame(KIND, b"to both"))]
        assert a.messages == [("c", Frame(KIND, b"to a"))]
        assert [status.node for status in b.peers.status()] == ["a", "c"]
        assert [status.dialled for status in b.peers.status()] == [False, True]
        assert a.peers.counts["sent", str(KIND)] == 2
        assert a.peers.counts["received", str(KIND)] == 1


async def test_a_ring_without_keys_is_enough_on_one_machine() -> None:
    a, b = Node("a", keys=()), Node("b", keys=())
    async with running(a, b):
        await until(lambda: b.connected, "connected")


async def test_keys_can_be_exchanged_one_node_after_the_other() -> None:
    a, b = Node("a", keys=(OTHER_KEY, KEY)), Node("b", keys=(KEY, OTHER_KEY))
    async with running(a, b):
        await until(lambda: a.connected and b.connected, "connected")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (lambda: Node("b", keys=(OTHER_KEY,)), Refused.WRONG_KEY),
        (lambda: Node("b", keys=()), Refused.WRONG_KEY),
        (lambda: Node("b", cluster="other"), Refused.WRONG_CLUSTER),
        (lambda: Node("b", oldest=7, newest=8), Refused.VERSION),
    ],
)
async def test_strangers_are_refused_by_reason_and_told(other: Callable[[], Node], reason: Refused) -> None:
    a, b = Node("a"), other()
    async with running(a, b):
        await until(lambda: a.refused(reason) + b.refused(reason) > 1, "refused, and again")
        await until(lambda: {"a peer is refused", "a peer refuses us"} <= events(a, b), "both ends say so")
        assert not a.connected + b.connected
        told = [fields for event, fields in a.lines + b.lines if event == "a peer is refused"]
        assert {fields["reason"] for fields in told} == {reason}
        assert len(told) <= 2, "the same is told again only after a minute"


def events(*nodes: Node) -> set[str]:
    return {event for node in nodes for event, _ in node.lines}


async def test_versions_next_to_each_other_understand_each_other() -> None:
    a, b = Node("a", oldest=1, newest=1), Node("b", oldest=1, newest=2)
    async with running(a, b):
        await until(lambda: a.connected and b.connected, "connected")
        assert [status.version for node in (a, b) for status in node.peers.status()] == [1, 1]


async def test_a_node_that_goes_by_our_name_is_refused() -> None:
    a, impostor = Node("a"), Node("a", run="another")
    async with running(a, impostor, wanted=False):
        impostor.peers.want({"b": a.address})
        await until(lambda: a.refused(Refused.SAME_NODE), "refused")


async def test_another_node_than_the_expected_one_is_refused() -> None:
    a, b = Node("a"), Node("b")
    async with running(a, b, wanted=False):
        a.peers.want({"c": b.address})
        await until(lambda: a.refused(Refused.OTHER_NODE), "refused")


async def test_who_is_in_between_with_a_certificate_of_his_own_is_refused() -> None:
    a, b = Node("a"), Node("b")
    # He knows everything but a key: that both ends show him their proofs must not help him.
    middle = Node("middle", keys=())
    links: dict[bool, Link] = {}
    early: dict[bool, list[bytes]] = {True: [], False: []}

    class Relay:
        def __init__(self, link: Link) -> None:
            self.link = link
            links[link.dialled] = link

        def encrypted(self) -> None:
            if self.link.dialled:
                assert self.link.open_stream(one_way=False) == 0
            for data in early[not self.link.dialled]:
                self.link.send(0, data)

        def received(self, stream: int, data: bytes, *, is_end: bool) -> None:
            other = links.get(not self.link.dialled)
            if other is None or (other.dialled and not other.quic._handshake_complete):
                early[self.link.dialled].append(data)
            else:
                other.send(stream, data, is_end=is_end)

        def ended(self, why: str) -> None:
            if (other := links.get(not self.link.dialled)) is not None:
                other.close(why)

    endpoint = middle.peers._endpoint
    endpoint._accept = Relay
    async with running(a, b, middle, wanted=False):
        await endpoint.dial(*b.address, Relay)
        a.peers.want({"b": middle.address})
        await until(lambda: a.refused(Refused.WRONG_KEY), "the dialler refuses")
        assert not a.connected + b.connected


async def test_a_restarted_peer_replaces_its_former_self_at_once() -> None:
    a, b = Node("a"), Node("b", run="first")
    async with running(a, b):
        await until(lambda: a.connected and b.connected, "connected")
        again = Node("b", run="second")
        async with running(again, wanted=False):
            # The former one was killed, so nobody tells a; the new one dials.
            again.peers.want({"a": a.address})
            await until(lambda: len(a.connected) >= 2, "connected again")
            a.peers.send(["b"], Frame(KIND, b"hello"))
            await until(lambda: again.messages, "the new one hears")
            assert a.peers.connected() == {"b"}


async def test_when_both_dial_at_once_one_connection_stays() -> None:
    a, b = Node("a"), Node("b")
    async with running(a, b, wanted=False):
        want_all(a, b)
        b.peers._dialling._wanted["a"].due_s = 0.0
        b.peers._wake.set()
        await until(lambda: len(a.connected) >= 1 and len(b.connected) >= 1, "connected")
        await until(
            lambda: (
                [s.dialled for s in a.peers.status()] == [True]
                and [s.dialled for s in b.peers.status()] == [False]
                and not a.peers._unproven | b.peers._unproven
            ),
            "that of the smaller name is the only one",
        )
        a.peers.send(["b"], Frame(KIND, b"hello"))
        await until(lambda: b.messages, "and it works")


async def test_a_peer_that_ends_in_order_is_dialled_again() -> None:
    a, b = Node("a"), Node("b")
    async with running(a):
        async with running(b, wanted=False):
            want_all(a, b)
            await until(lambda: a.connected, "connected")
        await until(lambda: a.lost == ["b"], "lost, long before the idle timeout")
        assert any(fields.get("why") == "it leaves" for _, fields in a.lines)


async def test_a_large_message_does_not_hold_up_a_small_one() -> None:
    a, b = Node("a"), Node("b")
    large = Random(7).randbytes(4 << 20)
    async with running(a, b):
        await until(lambda: a.connected, "connected")
        a.peers.send(["b"], Frame(KIND, large))
        await asyncio.sleep(0)
        a.peers.send(["b"], Frame(KIND, b"small"))
        await until(lambda: len(b.messages) == 2, "both arrive")
        assert b.bodies() == [b"small", large]


async def test_a_peer_that_works_nothing_off_costs_a_bounded_amount_of_memory() -> None:
    a, b = Node("a"), Node("b")
    b.works_off = False
    body = os.urandom(1 << 20)
    async with running(a, b):
        await until(lambda: a.connected, "connected")
        for _ in range(30):
            a.peers.send(["b"], Frame(KIND, body))
        (status,) = a.peers.status()
        assert status.unacknowledged_bytes <= WINDOW_BYTES + MAX_FRAME_BYTES
        assert status.waiting_bytes <= QUEUE_BYTES
        assert status.dropped == a.peers.counts["dropped", str(KIND)] > 0
        await until(lambda: len(b.messages) == WINDOW_BYTES // len(body), "what may come has come")

        def work_off() -> bool:
            for done in b.waiting:
                done()
            b.waiting.clear()
            return len(b.messages) == 30 - status.dropped

        await until(work_off, "all that was taken arrives")
        await until(lambda: a.peers.status()[0].waiting_bytes == 0, "what waited has left")
        assert a.connected == ["b"]


async def test_a_message_beyond_all_bounds_is_not_sent() -> None:
    a, b = Node("a"), Node("b")
    async with running(a, b):
        await until(lambda: a.connected, "connected")
        a.peers.send(["b"], Frame(KIND, bytes(MAX_FRAME_BYTES)))
        assert a.peers.counts["dropped", str(KIND)] == 1


GARBAGE: dict[str, Callable[[Session], None]] = {
    "a frame that is too long": lambda s: s.link.send(0, b"\xff" * 5),
    "an empty frame": lambda s: s.link.send(0, bytes(4)),
    "a wrongly compressed body": lambda s: s.link.send(0, b"\0\0\0\4\x90abc"),
    "a bomb": lambda s: s.link.send(0, _bomb()),
    "a frame of the handshake": lambda s: s.link.send(0, encode(Frame(1, b"x"))),
    "a credit that is no number": lambda s: s.link.send(0, encode(Frame(CREDIT, b"\xc1"))),
    "a credit beyond what was sent": lambda s: s.link.send(0, encode(Frame(CREDIT, b"\x7f"))),
    "a stream that ends in the middle": lambda s: s.link.send(
        s.link.open_stream(one_way=True), b"\0\0\0\x09abc", is_end=True
    ),
    "an end of the first stream": lambda s: s.link.send(0, b"", is_end=True),
    "another stream both ways": lambda s: s.link.send(s.link.open_stream(one_way=False), b"x"),
}


def _bomb() -> bytes:
    import zstandard

    body = zstandard.ZstdCompressor().compress(bytes(MAX_FRAME_BYTES + 1))
    return (1 + len(body)).to_bytes(4, "big") + bytes((0x80 | KIND,)) + body


@pytest.mark.parametrize("what", GARBAGE)
async def test_a_peer_that_sends_garbage_is_cut_off_and_may_come_again(what: str) -> None:
    a, b = Node("a"), Node("b")
    async with running(a, b):
        await until(lambda: a.connected and b.connected, "connected")
        GARBAGE[what](session_of(a, "b"))
        await until(lambda: b.refused(Refused.MALFORMED) == 1, "refused")
        # Both may dial at once, and then there are two, of which one stays.
        await until(lambda: len(b.connected) >= 2, "connected again")


async def test_what_makes_no_sense_to_the_replica_ends_the_connection_too() -> None:
    a, b = Node("a"), Node("b")
    async with running(a, b):
        await until(lambda: a.connected and b.connected, "connected")
        b.peers.refuse_message("a", "no such kind of message")
        b.peers.refuse_message("nobody", "is not even connected")
        assert b.refused(Refused.MALFORMED) == 1
        await until(lambda: len(a.connected) >= 2, "connected again")


async def test_who_sends_beyond_what_was_worked_off_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_session, "_ACCEPTED_BYTES", 1_000)
    a, b = Node("a"), Node("b")
    async with running(a, b):
        await until(lambda: a.connected and b.connected, "connected")
        a.peers.send(["b"], Frame(KIND, bytes(2_000)))
        await until(lambda: b.refused(Refused.FLOOD) == 1, "refused")


async def test_who_leaves_too_much_under_way_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_session, "_ACCEPTED_BYTES", 1_000)
    a, b = Node("a"), Node("b")
    async with running(a, b):
        await until(lambda: a.connected and b.connected, "connected")
        link = session_of(a, "b").link
        link.send(link.open_stream(one_way=True), b"\0\1\0\0" + bytes(2_000))
        await until(lambda: b.refused(Refused.FLOOD) == 1, "refused")


async def test_who_does_not_prove_himself_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_session, "HANDSHAKE_TIMEOUT_S", 0.05)
    a = Node("a")
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    with silent:
        async with running(a, wanted=False):
            a.peers.want({"b": Address(*silent.getsockname())})
            await until(lambda: a.refused(Refused.SILENT) >= 2, "refused, and dialled again")


async def test_only_so_many_may_prove_themselves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.outbound.peers_quic.MAX_UNPROVEN", 0)
    a, b = Node("a"), Node("b")
    async with running(a, b):
        await until(lambda: b.refused(Refused.TOO_MANY), "refused")


STRANGE = b"\xc0\x1a\x2a\x3a\x4a\x08" + bytes(8) + b"\x08" + bytes(1_300)
"""Begins a connection of a version of QUIC that does not exist."""


async def test_without_keys_other_machines_are_not_even_answered() -> None:
    a = Node("a", keys=())
    async with running(a, wanted=False):
        a.peers._endpoint.datagram_received(STRANGE, ("192.0.2.1", 4002))
        assert a.refused(Refused.UNPROTECTED) == 1
        a.peers._endpoint.datagram_received(STRANGE, ("::ffff:127.0.0.1", 4002))
        assert a.refused(Refused.UNPROTECTED) == 1


async def test_datagrams_that_are_no_quic_are_ignored() -> None:
    a, b = Node("a"), Node("b")
    rng = Random(11)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        async with running(a, b, wanted=False):
            for length in (0, 1, 20, 1_200, 1_452):
                for first in (0x00, 0x40, 0xC0, 0xFF):
                    stranger.sendto(bytes((first,))[:length] + rng.randbytes(max(0, length - 1)), a.address)
            # A version that nobody speaks is answered with those that we speak.
            stranger.settimeout(10.0)
            stranger.sendto(STRANGE, a.address)
            answer = await asyncio.to_thread(stranger.recv, 2_000)
            assert answer[1:5] == bytes(4)
            want_all(a, b)
            await until(lambda: a.connected, "still works")


async def test_a_socket_of_ipv6_reaches_peers_of_ipv4_too() -> None:
    a, b = Node("a"), Node("b")
    a.socket.close()
    a.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    a.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    a.socket.bind(("::", 0))
    a.address = Address("127.0.0.1", a.socket.getsockname()[1])
    async with running(a, b):
        await until(lambda: a.connected and b.connected, "connected")
        assert a.peers.status()[0].dialled


async def test_a_name_is_resolved() -> None:
    a, b = Node("a"), Node("b")
    async with running(a, b, wanted=False):
        a.peers.want({"b": Address("localhost", b.address.port)})
        await until(lambda: a.connected, "connected")


async def test_datagrams_that_were_changed_on_their_way_cost_nothing_but_themselves() -> None:
    a, b = Node("a"), Node("b")
    rng = Random(17)
    take = b.peers._endpoint.datagram_received

    def spoil(data: bytes, address: tuple[object, ...]) -> None:
        if rng.random() < 0.5:
            place = rng.randrange(len(data))
            take(data[:place] + bytes((data[place] ^ (1 << rng.randrange(8)),)) + data[place + 1 :], address)
            take(data[:place], address)
        take(data, address)

    b.peers._endpoint.datagram_received = spoil  # type: ignore[method-assign]
    async with running(a, b):
        await until(lambda: a.connected and b.connected, "connected")
        for number in range(200):
            a.peers.send(["b"], Frame(KIND, number.to_bytes(2, "big")))
        await until(lambda: len(b.messages) == 200, "all messages")
        assert b.bodies() == [number.to_bytes(2, "big") for number in range(200)]


async def test_a_name_that_does_not_resolve_is_said_once_and_tried_again() -> None:
    a = Node("a")
    async with running(a, wanted=False):
        a.peers.want({"b": Address("no-such-host.invalid", 1)})
        await until(lambda: "a peer cannot be reached" in events(a), "said")
        a.peers.hurry("b")
        a.peers.hurry("nobody")
        await until(lambda: a.peers._dialling._wanted["b"].failures, "tried again")
