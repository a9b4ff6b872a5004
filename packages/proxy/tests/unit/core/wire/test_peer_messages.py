"""Messages survive the way there, also between versions that are next to each other."""

from __future__ import annotations

import msgspec
import pytest

from edgeproxy.core.replication.messages import (
    KINDS,
    Changes,
    Digest,
    Gone,
    Message,
    SnapshotPart,
    SnapshotWanted,
    Want,
)
from edgeproxy.core.replication.model import Cell, Dot, Group, RowState, Stamp, Write
from edgeproxy.core.wire.peer_frames import Frame, PeerFrameError
from edgeproxy.core.wire.peer_messages import NAMES, framed, message_in

pytestmark = pytest.mark.feature("replication.peers")

STAMP, DOT = Stamp(1_700_000_000_000, 3, "a"), Dot("a/1f", 7)
VALUES = {"app": "shop", "region": None, "port": 80, "weight": 0.5, "wg_ip": b"\xff"}
KNOWN = {"a/1f": ((1, 40), (42, 42))}
MESSAGES: list[Message] = [
    Changes((Write(DOT, STAMP, "b1", {Group.IDENTITY: VALUES, Group.PRESENCE: {"present": 1}}),)),
    Digest("a/1f", KNOWN, 1 << 63, 1_700_000_000_000, answer=True),
    Digest("a/1f", {}, None, 0, answer=False),
    Want(KNOWN),
    Gone(),
    SnapshotWanted(None),
    SnapshotPart(
        "a/1f", None, "b1", KNOWN, (RowState("b1", {Group.HEALTH: Cell(STAMP, DOT, {"healthy": 0})}),)
    ),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_survives_the_way(message: Message) -> None:
    assert message_in(framed(message)) == message


def test_every_kind_has_its_number_for_ever() -> None:
    assert NAMES == {
        16: "changes", 17: "digest", 18: "want", 19: "gone", 20: "snapshotwanted", 21: "snapshotpart"
    }  # fmt: skip
    assert {type(message) for message in MESSAGES} == set(KINDS.values())


class NextWant(Want, frozen=True, array_like=True):
    """As a version to come may extend it."""

    urgency: int = 0


def test_a_field_that_a_later_version_adds_is_left_out_by_an_earlier_one() -> None:
    later = framed(Want(KNOWN)).kind, msgspec.msgpack.encode(NextWant(KNOWN, 3))
    assert message_in(Frame(*later)) == Want(KNOWN)


def test_a_field_that_an_earlier_version_lacks_gets_its_default() -> None:
    assert msgspec.msgpack.decode(framed(Want(KNOWN)).body, type=NextWant) == NextWant(KNOWN, 0)


def test_a_kind_that_only_a_later_version_knows_is_passed_over() -> None:
    assert message_in(Frame(99, b"whatever")) is None


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x91" * 10_000, b"\x92\xa1\xff\x01", b"\x91\x81\xa1\xff\x90"]
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(PeerFrameError):
        message_in(Frame(18, body))


def wrong(**changes: object) -> Frame:
    write = msgspec.to_builtins(Write(DOT, STAMP, "b1", {Group.HEALTH: {"healthy": 1}}))
    for place, value in changes.items():
        write[int(place[1:])] = value
    return Frame(16, msgspec.msgpack.encode([[write]]))


@pytest.mark.parametrize(
    "frame",
    [
        wrong(_0=["a/1f", 0]),
        wrong(_0=["a/1f", 1 << 63]),
        wrong(_1=[-1, 0, "a"]),
        wrong(_1=[1 << 60, 0, "a"]),
        wrong(_1=[1, 1 << 63, "a"]),
        wrong(_3={"health": {"healthy": (1 << 64) - 1}}),
        wrong(_3={"health": {"healthy": [1]}}),
        wrong(_3={"health": {"healthy": {}}}),
        Frame(17, msgspec.msgpack.encode(Digest("a", {}, None, -1, answer=True))),
        Frame(17, msgspec.msgpack.encode(Digest("a", {"a": ((0, 1),)}, None, 1, answer=True))),
        Frame(18, msgspec.msgpack.encode(Want({"a": ((2, 1),)}))),
        Frame(18, msgspec.msgpack.encode(Want({"a": ((1, 2), (3, 4))}))),
        Frame(18, msgspec.msgpack.encode(Want({"a": ((1, 1 << 63),)}))),
        Frame(
            21,
            msgspec.msgpack.encode(
                SnapshotPart(
                    "a", None, None, {}, (RowState("b", {Group.HEALTH: Cell(STAMP, Dot("a", -1), {})}),)
                )
            ),
        ),
    ],
)
def test_what_fits_into_no_database_is_refused(frame: Frame) -> None:
    with pytest.raises(PeerFrameError, match=r"a message of kind \d+ with "):
        message_in(frame)


def test_a_write_as_it_should_be_is_not() -> None:
    assert message_in(wrong()) is not None


@pytest.mark.parametrize(
    "frame",
    [
        wrong(_0=["a/1f", 1]),
        wrong(_0=["a/1f", (1 << 63) - 1]),
        wrong(_1=[0, 0, "a"]),
        wrong(_1=[1, (1 << 63) - 1, "a"]),
        wrong(_3={"health": {"healthy": (1 << 63) - 1}}),
        wrong(_3={"health": {"healthy": -(1 << 63)}}),
    ],
)
def test_what_just_fits_into_a_database_is_taken(frame: Frame) -> None:
    assert message_in(frame) is not None
