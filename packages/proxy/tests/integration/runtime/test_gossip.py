"""Members on real sockets of the loopback interface: keys, names, addresses, and what is refused.

That they find each other, and whoever fails or leaves, is in test_gossip_contract.
"""

from __future__ import annotations

import asyncio
import os
import socket
from random import Random
from typing import Any

import msgspec
import pytest

from edgeproxy.config import Address
from edgeproxy.core.replication.members import Endpoint, State
from edgeproxy.core.replication.membership import Send
from edgeproxy.core.wire.gossip_datagrams import MAX_DATAGRAM_BYTES, Refusal
from edgeproxy.core.wire.sealing import NONCE_BYTES, Keyring
from packages.proxy.tests.integration.runtime.gossip_nodes import (
    KEY,
    OTHER_KEY,
    Node,
    make,
    running,
    until,
    until_all_see_all,
)

pytestmark = pytest.mark.feature("replication.membership")


@pytest.mark.feature("replication.keys")
async def test_a_key_is_exchanged_while_all_stay_members() -> None:
    """Each step at one node after the other; between the steps of two nodes, too, all hear each other."""
    old_new = [(KEY,), (KEY, OTHER_KEY), (OTHER_KEY, KEY), (OTHER_KEY,)]
    nodes = make(2, keys=old_new[0])
    async with running(*nodes):
        await until_all_see_all(*nodes)
        for keys in old_new[1:]:
            for place in (1, 0):
                former, other = nodes[place], nodes[1 - place]
                await former.stop()
                renewed = Node(
                    former.name, other.address, keys=keys, port=former.address.port,
                    incarnation=former.membership.me.incarnation + 1,
                )  # fmt: skip
                nodes[place] = renewed
                await renewed.start()
                await until_all_see_all(*nodes)
        assert not any(node.refused(Refusal.WRONG_KEY) for node in nodes)
        for node in nodes:
            await node.stop()


@pytest.mark.feature("replication.keys")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"keys": (OTHER_KEY,)}, Refusal.WRONG_KEY),
        ({"keys": ()}, Refusal.UNPROTECTED),
        ({"cluster": "other"}, Refusal.WRONG_CLUSTER),
    ],
)
async def test_who_does_not_belong_is_refused_counted_and_named(
    options: dict[str, Any], reason: Refusal
) -> None:
    node = Node("n0")
    stranger = Node("n1", node.address, **options)
    async with running(node, stranger):
        await until(lambda: node.refused(reason) >= 2, "it tries again")
    assert not node.membership.members.all()
    lines = [fields for event, fields in node.lines if event == "a datagram is refused"]
    assert [(fields["reason"], fields["address"]) for fields in lines] == [(reason, str(stranger.address))]
    assert not any(key.hex() in str(lines) or str(key) in str(lines) for key in (KEY, OTHER_KEY))


async def test_what_is_forged_cut_or_too_long_changes_nothing_and_a_flood_is_survived() -> None:
    nodes = make(2)
    rng = Random(7)
    whole = Keyring("test", (KEY,)).seal(rng.randbytes(300), os.urandom(NONCE_BYTES))
    async with running(*nodes):
        await until_all_see_all(*nodes)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for number in range(3_000):
                data = (
                    rng.randbytes(rng.randrange(1, 200)),
                    whole[: rng.randrange(len(whole))],
                    whole[:50] + rng.randbytes(250),
                    bytes(MAX_DATAGRAM_BYTES + 1),
                    whole,
                )[number % 5]
                stranger.sendto(data, tuple(nodes[0].address))
                if number % 100 == 0:
                    await asyncio.sleep(0)
        await until(
            lambda: all(
                nodes[0].refused(reason)
                for reason in (Refusal.MALFORMED, Refusal.WRONG_KEY, Refusal.OVERSIZED)
            ),
            "it is counted",
        )
        await until_all_see_all(*nodes)
    assert len([event for event, _ in nodes[0].lines if event == "a datagram is refused"]) <= 4


async def test_ipv6_and_ipv4_meet_on_one_socket_and_names_are_resolved() -> None:
    first = Node("n0", host="::", advertised="::1")
    second = Node("n1", Address("::1", first.address.port), host="::1")
    third = Node("n2", Address("localhost", first.address.port))
    async with running(first, second, third):
        await until(lambda: first.sees(State.ALIVE) == {"n1", "n2"}, "both are members")
        assert first.membership.members.get("n2").claim.gossip.host == "127.0.0.1"  # type: ignore[union-attr]


async def test_a_seed_without_an_address_is_named_once_and_tried_again() -> None:
    node = Node("n0", Address("no-such-host.invalid", 4001), Address("::1", 4001))
    async with running(node):
        await until(lambda: len(node.lines) == 2, "both are named")
    assert {fields["peer"] for _, fields in node.lines} == {"no-such-host.invalid:4001", "[::1]:4001"}


async def test_another_node_of_the_same_name_is_an_error_at_both() -> None:
    first = Node("n0")
    twins = [Node("twin", first.address), Node("twin", first.address)]
    twins[1].membership.me = msgspec.structs.replace(twins[1].membership.me, run=5)
    async with running(first, *twins):
        await until(lambda: all(_named(twin) for twin in twins), "both are told")
        for twin, other in (twins, reversed(twins)):
            assert _named(twin) == [{"node": "twin", "address": str(other.address)}]


async def test_without_a_key_only_this_machine_is_listened_to() -> None:
    node, other = Node("n0", keys=()), Node("n1", keys=())
    async with running(node, other):
        (send,) = other.membership.seeds_found([Endpoint(*node.address)])
        assert isinstance(send, Send)
        datagram = Keyring("test", ()).seal(send.payload, b"")
        node.gossip.datagram_received(datagram, ("192.0.2.1", 4001))
        assert (node.refused(Refusal.UNPROTECTED), node.sees(*State)) == (1, set())
        node.gossip.datagram_received(datagram, ("::ffff:127.0.0.1", 4001))
        assert node.sees(State.ALIVE) == {"n1"}


async def test_what_the_network_does_not_take_is_not_kept() -> None:
    nodes = make(2)
    async with running(*nodes):
        await until_all_see_all(*nodes)
        nodes[1].gossip.pause_writing()
        await until(lambda: nodes[0].sees(State.DEAD) == {"n1"}, "it is not heard")
        nodes[1].gossip.resume_writing()
        await until_all_see_all(*nodes)


async def test_nothing_is_sent_before_the_socket_is_there_nor_after_it_is_closed() -> None:
    node = Node("n0", Address("127.0.0.1", 9))
    await node.gossip.leave()
    async with running(node):
        await node.gossip.leave()
    node.gossip.close()
    assert node.membership.is_gone


def _named(node: Node) -> list[dict[str, Any]]:
    return [fields for event, fields in node.lines if "has our name" in event]
