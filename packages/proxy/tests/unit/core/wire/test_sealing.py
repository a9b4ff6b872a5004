"""Who has no key, or another one, or belongs elsewhere, gets nowhere; and keys can be exchanged."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from edgeproxy.core.wire.gossip_datagrams import MAX_DATAGRAM_BYTES, DatagramError, Refusal
from edgeproxy.core.wire.sealing import NONCE_BYTES, Keyring

pytestmark = pytest.mark.feature("replication.keys")

OLD, NEW = b"o" * 32, b"n" * 32
NONCE = bytes(range(NONCE_BYTES))
OPEN, SEALED = Keyring("c", ()), Keyring("c", (OLD,))


def refusal(ring: Keyring, datagram: bytes) -> Refusal:
    with pytest.raises(DatagramError) as refused:
        ring.open(datagram)
    return refused.value.reason


@pytest.mark.parametrize("ring", [OPEN, SEALED], ids=["open", "sealed"])
@pytest.mark.parametrize("size", [0, 1, 1_000])
def test_what_was_sealed_can_be_opened(ring: Keyring, size: int) -> None:
    payload = os.urandom(size)
    assert ring.open(ring.seal(payload, NONCE)) == payload


@pytest.mark.parametrize("keys", [(), (OLD,)])
def test_the_greatest_payload_fills_a_datagram(keys: Sequence[bytes]) -> None:
    ring = Keyring("cluster", keys)
    assert len(ring.seal(bytes(ring.payload_bytes), NONCE)) == MAX_DATAGRAM_BYTES


def test_nobody_reads_what_is_sealed() -> None:
    assert b"secret" not in SEALED.seal(b"secret", NONCE)


@pytest.mark.parametrize(
    ("of_a", "of_b"),
    [((OLD,), (OLD, NEW)), ((OLD, NEW), (NEW, OLD)), ((NEW, OLD), (NEW,)), ((NEW,), (NEW,))],
)
def test_every_step_of_an_exchange_of_keys_works(of_a: Sequence[bytes], of_b: Sequence[bytes]) -> None:
    for first, second in ((of_a, of_b), (of_b, of_a)):
        assert Keyring("c", second).open(Keyring("c", first).seal(b"x", NONCE)) == b"x"


def test_the_first_key_seals() -> None:
    datagram = Keyring("c", (NEW, OLD)).seal(b"x", NONCE)
    assert Keyring("c", (NEW,)).open(datagram) == b"x"
    assert refusal(SEALED, datagram) is Refusal.WRONG_KEY


def test_another_cluster_is_refused_with_the_same_key_too() -> None:
    for keys in ((), (OLD,)):
        assert refusal(SEALED, Keyring("other", keys).seal(b"x", NONCE)) is Refusal.WRONG_CLUSTER
    renamed = Keyring("d", (OLD,)).seal(b"x", NONCE).replace(b"d", b"c", 1)
    assert refusal(SEALED, renamed) is Refusal.WRONG_KEY, "the name is authenticated"


def test_who_has_no_key_and_who_has_one_do_not_hear_each_other() -> None:
    assert refusal(SEALED, OPEN.seal(b"x", NONCE)) is Refusal.UNPROTECTED
    assert refusal(OPEN, SEALED.seal(b"x", NONCE)) is Refusal.WRONG_KEY


def test_no_bit_can_be_changed() -> None:
    datagram = SEALED.seal(b"payload", NONCE)
    for bit in range(8 * len(datagram)):
        changed = bytearray(datagram)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DatagramError):
            SEALED.open(bytes(changed))


def test_a_datagram_that_was_cut_is_refused() -> None:
    datagram = SEALED.seal(b"", NONCE)
    found = [refusal(SEALED, datagram[:length]) for length in range(len(datagram))]
    assert set(found) <= {Refusal.MALFORMED, Refusal.WRONG_CLUSTER}
    assert found[-1] is Refusal.MALFORMED
    assert refusal(SEALED, b"eg\x01\x09abc") is Refusal.MALFORMED


@pytest.mark.parametrize("datagram", [b"", b"GET / HTTP/1.1\r\n\r\n", b"eg\x02\x01c", b"EG\x00\x01c"])
def test_what_is_none_of_ours_is_refused(datagram: bytes) -> None:
    assert refusal(OPEN, datagram) is Refusal.MALFORMED


def test_what_is_too_long_is_not_even_tried() -> None:
    assert refusal(OPEN, OPEN.seal(bytes(OPEN.payload_bytes + 1), NONCE)) is Refusal.OVERSIZED
