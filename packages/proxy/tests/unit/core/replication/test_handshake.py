"""Two ends that know a key find each other; nobody else gets anywhere, whatever he overheard."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from edgeproxy.core.replication.handshake import (
    HELLO,
    NONCE_BYTES,
    PROOF,
    VERSION,
    WELCOME,
    Acceptor,
    Dialler,
    HandshakeError,
    Hello,
    Peer,
    Refused,
    Terms,
    Welcome,
)
from edgeproxy.core.wire.peer_frames import Frame

pytestmark = pytest.mark.feature("replication.peers")

KEY, NEW_KEY = b"k" * 32, b"n" * 32
SHOWN = b"f" * 32
NONCE = b"1" * NONCE_BYTES


def terms(
    node: str, *, cluster: str = "c", keys: Sequence[bytes] = (KEY,), versions: tuple[int, int] = (1, 1)
) -> Terms:
    return Terms(cluster, node, f"run of {node}", keys, *versions)


def meet(
    dialler_terms: Terms,
    acceptor_terms: Terms,
    *,
    shown: bytes = SHOWN,
    has: bytes = SHOWN,
    expected: str | None = None,
) -> tuple[Dialler, Acceptor]:
    """Let two ends talk until nothing is left to say."""
    dialler = Dialler(dialler_terms, b"d" * NONCE_BYTES, shown, expected)
    acceptor = Acceptor(acceptor_terms, b"a" * NONCE_BYTES, has)
    for frame in dialler.begin():
        for answer in acceptor.receive(frame):
            for proof in dialler.receive(answer):
                assert acceptor.receive(proof) == []
    return dialler, acceptor


def refusal(*args: Terms, shown: bytes = SHOWN, has: bytes = SHOWN, expected: str | None = None) -> Refused:
    with pytest.raises(HandshakeError) as refused:
        meet(*args, shown=shown, has=has, expected=expected)
    return refused.value.reason


def test_two_ends_with_one_key_know_each_other() -> None:
    dialler, acceptor = meet(terms("a"), terms("b"), expected="b")
    assert dialler.peer == Peer("b", "run of b", 1)
    assert acceptor.peer == Peer("a", "run of a", 1)


@pytest.mark.parametrize(
    ("of_a", "of_b"),
    [
        ((KEY,), (KEY, NEW_KEY)),
        ((KEY, NEW_KEY), (NEW_KEY, KEY)),
        ((NEW_KEY, KEY), (NEW_KEY,)),
        ((), ()),
    ],
)
def test_every_step_of_an_exchange_of_keys_works(of_a: Sequence[bytes], of_b: Sequence[bytes]) -> None:
    for first, second in ((of_a, of_b), (of_b, of_a)):
        assert meet(terms("a", keys=first), terms("b", keys=second))[1].peer is not None


@pytest.mark.parametrize("keys", [(NEW_KEY,), ()])
def test_a_dialler_refuses_who_does_not_know_the_key(keys: Sequence[bytes]) -> None:
    assert refusal(terms("a"), terms("b", keys=keys)) is Refused.WRONG_KEY


@pytest.mark.parametrize("frame", [Frame(PROOF, b""), Frame(PROOF, bytes(32))])
def test_an_acceptor_refuses_who_does_not_know_the_key(frame: Frame) -> None:
    acceptor = Acceptor(terms("b"), NONCE, SHOWN)
    acceptor.receive(*Dialler(terms("a"), NONCE, SHOWN).begin())
    with pytest.raises(HandshakeError, match="does not know a key") as refused:
        acceptor.receive(frame)
    assert refused.value.reason is Refused.WRONG_KEY
    assert acceptor.peer is None


def test_another_certificate_than_the_acceptor_has_is_refused() -> None:
    assert refusal(terms("a"), terms("b"), shown=b"of somebody in between") is Refused.WRONG_KEY


def test_a_proof_of_the_acceptor_is_none_of_the_dialler() -> None:
    dialler, acceptor = Dialler(terms("a"), NONCE, SHOWN), Acceptor(terms("b"), NONCE, SHOWN)
    _, proof = acceptor.receive(*dialler.begin())
    with pytest.raises(HandshakeError) as refused:
        acceptor.receive(proof)
    assert refused.value.reason is Refused.WRONG_KEY


def test_a_proof_is_good_for_one_connection_only() -> None:
    """Of another connection, all that differs is what the other end drew."""
    dialler, acceptor = Dialler(terms("a"), NONCE, SHOWN), Acceptor(terms("b"), NONCE, SHOWN)
    welcome, proof = acceptor.receive(*dialler.begin())
    dialler.receive(welcome)
    (mine,) = dialler.receive(proof)
    again = Acceptor(terms("b"), b"2" * NONCE_BYTES, SHOWN)
    again.receive(*dialler.begin())
    with pytest.raises(HandshakeError) as refused:
        again.receive(mine)
    assert refused.value.reason is Refused.WRONG_KEY


def test_what_was_altered_on_the_way_is_refused() -> None:
    dialler, acceptor = Dialler(terms("a"), NONCE, SHOWN), Acceptor(terms("b"), NONCE, SHOWN)
    hello = msgspec.msgpack.decode(dialler.begin()[0].body, type=Hello)
    altered = msgspec.structs.replace(hello, node="x")
    welcome, proof = acceptor.receive(Frame(HELLO, msgspec.msgpack.encode(altered)))
    dialler.receive(welcome)
    with pytest.raises(HandshakeError) as refused:
        dialler.receive(proof)
    assert refused.value.reason is Refused.WRONG_KEY


def test_another_cluster_is_refused_though_the_key_is_right() -> None:
    assert refusal(terms("a"), terms("b", cluster="other")) is Refused.WRONG_CLUSTER


def test_ones_own_name_is_refused() -> None:
    assert refusal(terms("a"), terms("a")) is Refused.SAME_NODE


def test_another_than_the_expected_node_is_refused() -> None:
    assert refusal(terms("a"), terms("b"), expected="c") is Refused.OTHER_NODE


@pytest.mark.parametrize(
    ("of_a", "of_b", "spoken"),
    [((1, 1), (1, 2), 1), ((1, 2), (1, 1), 1), ((1, 2), (2, 3), 2), ((2, 3), (2, 3), 3)],
)
def test_the_newest_version_that_both_speak_is_spoken(
    of_a: tuple[int, int], of_b: tuple[int, int], spoken: int
) -> None:
    for end in meet(terms("a", versions=of_a), terms("b", versions=of_b)):
        assert end.peer is not None
        assert end.peer.version == spoken


@pytest.mark.parametrize(("of_a", "of_b"), [((1, 2), (3, 4)), ((3, 4), (1, 2))])
def test_versions_too_far_apart_are_refused(of_a: tuple[int, int], of_b: tuple[int, int]) -> None:
    assert refusal(terms("a", versions=of_a), terms("b", versions=of_b)) is Refused.VERSION


def test_a_version_that_was_not_offered_is_refused() -> None:
    dialler = Dialler(terms("a"), NONCE, SHOWN)
    with pytest.raises(HandshakeError) as refused:
        dialler.receive(Frame(WELCOME, msgspec.msgpack.encode(Welcome(9, "c", "b", "r", NONCE))))
    assert refused.value.reason is Refused.VERSION


def test_this_version_speaks_with_the_one_before() -> None:
    mine = Terms("c", "a", "r", (KEY,))
    assert (mine.oldest, mine.newest) == (max(1, VERSION - 1), VERSION)


class NextHello(Hello, frozen=True, array_like=True):
    """As a version to come may extend it."""

    capabilities: tuple[str, ...] = ("compact",)


def test_what_a_later_version_adds_to_a_message_is_no_obstacle() -> None:
    hello = NextHello(1, 2, "c", "a", "run of a", NONCE)
    acceptor = Acceptor(terms("b"), NONCE, SHOWN)
    welcome, _ = acceptor.receive(Frame(HELLO, msgspec.msgpack.encode(hello)))
    assert msgspec.msgpack.decode(welcome.body, type=Welcome).version == 1


@pytest.mark.parametrize(
    "frame",
    [
        Frame(WELCOME, b""),
        Frame(PROOF, bytes(32)),
        Frame(HELLO, b""),
        Frame(HELLO, b"\x91" * 100_000),
        Frame(HELLO, msgspec.msgpack.encode(["one", 1, "c", "a", "r", NONCE])),
        Frame(HELLO, msgspec.msgpack.encode(Hello(1, 1, "c", "a", "r", b"short"))),
        Frame(HELLO, msgspec.msgpack.encode(Hello(1, 1, "c", "", "r", NONCE))),
        Frame(HELLO, msgspec.msgpack.encode(Hello(1, 1, "c", "x" * 256, "r", NONCE))),
    ],
)
def test_what_is_not_due_or_no_message_is_refused(frame: Frame) -> None:
    with pytest.raises(HandshakeError) as refused:
        Acceptor(terms("b"), NONCE, SHOWN).receive(frame)
    assert refused.value.reason is Refused.MALFORMED


def test_a_message_in_place_of_a_proof_is_refused() -> None:
    acceptor = Acceptor(terms("b"), NONCE, SHOWN)
    acceptor.receive(*Dialler(terms("a"), NONCE, SHOWN).begin())
    with pytest.raises(HandshakeError, match="in place of a proof") as refused:
        acceptor.receive(Frame(77, b""))
    assert refused.value.reason is Refused.MALFORMED
