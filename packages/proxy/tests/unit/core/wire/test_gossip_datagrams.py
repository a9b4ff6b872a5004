"""Messages survive being written and read, those of the next version too; what is malformed is refused."""

from __future__ import annotations

import msgspec
import pytest

from edgeproxy.core.replication.members import Claim, Endpoint, State
from edgeproxy.core.wire.gossip_datagrams import (
    VERSION,
    Ack,
    DatagramError,
    Gossip,
    Message,
    Ping,
    PingRequest,
    Refusal,
    Sync,
    decode,
    encode,
    room_bytes,
)
from packages.proxy.tests.unit.core.replication.gossiping import claim

pytestmark = pytest.mark.feature("replication.membership")

ME, NEWS = claim("a", incarnation=2**40), (claim("b", State.DEAD), claim("c", State.SUSPECT, number=300))
MESSAGES: list[Message] = [
    Ping(ME, NEWS, 7, "b"),
    Ack(ME, (), 2**32 - 1, "b"),
    PingRequest(ME, NEWS, 0, "c", Endpoint("2001:db8::1", 4001)),
    Gossip(ME, NEWS),
    Sync(ME, NEWS, is_question=True),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_survives_being_written_and_read(message: Message) -> None:
    assert decode(encode(message)) == message


def with_news(message: Message, news: tuple[Claim, ...]) -> Message:
    found: Message = msgspec.structs.replace(message, news=news)
    return found


@pytest.mark.parametrize("message", MESSAGES)
def test_news_fits_into_the_room_that_there_is(message: Message) -> None:
    empty = with_news(message, ())
    room = room_bytes(empty, 600)
    news = (claim("n" * 20),) * (room // len(msgspec.msgpack.encode(claim("n" * 20))))
    assert len(news) > 2
    assert 500 < len(encode(with_news(empty, news))) <= 600
    many = (claim("n"),) * 40
    assert len(encode(with_news(empty, many))) <= len(encode(empty)) + 2 + 40 * len(
        msgspec.msgpack.encode(claim("n"))
    )


def test_the_next_version_is_understood_with_more_at_the_end() -> None:
    def longer(values: list[object]) -> list[object]:
        return [*values, {"new": True}]

    kind, me, news, *rest = msgspec.msgpack.decode(encode(MESSAGES[0])[1:])
    later = longer([kind, longer(me), [longer(each) for each in news], *rest])
    assert decode(bytes((VERSION + 1,)) + msgspec.msgpack.encode(later)) == MESSAGES[0]


def test_a_kind_of_message_of_the_next_version_is_refused_as_such() -> None:
    later = msgspec.msgpack.encode([6, *msgspec.msgpack.decode(encode(MESSAGES[3])[1:])[1:]])
    assert refusal(bytes((VERSION + 1,)) + later) is Refusal.VERSION
    assert refusal(bytes((VERSION,)) + later) is Refusal.MALFORMED
    assert refusal(bytes((VERSION + 2,)) + encode(MESSAGES[0])[1:]) is Refusal.VERSION


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_was_cut_is_refused(message: Message) -> None:
    whole = encode(message)
    assert {refusal(whole[:length]) for length in range(len(whole))} == {Refusal.MALFORMED}


@pytest.mark.parametrize(
    "wrong",
    [
        {"node": ""},
        {"node": "a b"},
        {"node": "a\n"},
        {"node": "x" * 254},
        {"incarnation": 2**48 + 1},
        {"incarnation": -1},
        {"run": -1},
        {"newest": 65_536},
        {"gossip": Endpoint("192.0.2.1", 0)},
        {"gossip": Endpoint("192.0.2.1", 65_536)},
        {"gossip": Endpoint("192.0.2.256", 4001)},
        {"transport": Endpoint("pop.example", 4001)},
        {"transport": Endpoint("fe80::1%eth0", 4001)},
        {"transport": Endpoint("::::", 4001)},
    ],
)
def test_a_claim_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    bad = msgspec.structs.replace(ME, **wrong)
    assert refusal(encode(Gossip(bad, ()))) is Refusal.MALFORMED
    assert refusal(encode(Gossip(ME, (ME, bad)))) is Refusal.MALFORMED


@pytest.mark.parametrize(("number", "is_one"), [(0, True), (2**32 - 1, True), (2**32, False), (-1, False)])
def test_the_number_of_a_question_has_32_bits(number: int, is_one: bool) -> None:
    message = encode(Ack(ME, (), number, "b"))
    if is_one:
        assert decode(message) == Ack(ME, (), number, "b")
    else:
        assert refusal(message) is Refusal.MALFORMED


def test_an_address_to_be_asked_is_checked_too() -> None:
    message = PingRequest(ME, (), 1, "b", Endpoint("300.0.0.1", 4001))
    assert refusal(encode(message)) is Refusal.MALFORMED


def refusal(payload: bytes) -> Refusal:
    with pytest.raises(DatagramError) as refused:
        decode(payload)
    return refused.value.reason
