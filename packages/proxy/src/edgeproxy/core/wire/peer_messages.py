"""Messages of replicas as frames.

Two versions that are next to each other understand each other: what a later one adds to a message stands at
its end and is left out by an earlier one, and a kind of message that an earlier one does not know is passed
over. What is decoded fits into SQLite: texts are Unicode, whole numbers have 64 bits, numbers of writes begin
at 1 and ranges are in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final

import msgspec

from edgeproxy.core.replication.messages import (
    KINDS,
    Changes,
    Digest,
    Message,
    Ranges,
    SnapshotPart,
    Want,
)
from edgeproxy.core.replication.model import Dot, Stamp
from edgeproxy.core.wire.peer_frames import Frame, PeerFrameError

NAMES: Final[Mapping[int, str]] = {kind: type_.__name__.lower() for kind, type_ in KINDS.items()}
"""Of the kinds, for metrics."""

MAX_SEQUENCE: Final = (1 << 63) - 1
MAX_WALL_MS: Final = 253_402_300_800_000
"""The end of the year 9999, which is the last that dates are written of."""

_encoder = msgspec.msgpack.Encoder()
_kinds: Final[Mapping[type, int]] = {type_: kind for kind, type_ in KINDS.items()}
_decoders: Final[Mapping[int, msgspec.msgpack.Decoder[Any]]] = {
    kind: msgspec.msgpack.Decoder(type_) for kind, type_ in KINDS.items()
}


def framed(message: Message) -> Frame:
    return Frame(_kinds[type(message)], _encoder.encode(message))


def message_in(frame: Frame) -> Message | None:
    """The message, ``None`` when it is of a kind that only later versions know.

    Raises:
        PeerFrameError: it is no such message.
    """
    decoder = _decoders.get(frame.kind)
    if decoder is None:
        return None
    # Besides its own error, a ValueError, msgspec lets through a UnicodeDecodeError for bytes that are no
    # text, and a RecursionError for what is nested too deeply.
    try:
        message: Message = decoder.decode(frame.body)
    except (ValueError, RecursionError) as error:
        raise PeerFrameError(f"an undecodable message of kind {frame.kind}: {error}") from error
    for problem in _problems(message):
        raise PeerFrameError(f"a message of kind {frame.kind} with {problem}")
    return message


def _problems(message: Message) -> Iterator[str]:
    match message:
        case Changes():
            for write in message.writes:
                yield from _of_write(write.dot, write.stamp, write.groups.values())
        case SnapshotPart():
            yield from _of_ranges(message.known)
            for row in message.rows:
                for cell in row.cells.values():
                    yield from _of_write(cell.dot, cell.stamp, (cell.values,))
        case Digest():
            yield from _of_ranges(message.known)
            if not 0 <= message.wall_ms <= MAX_WALL_MS:
                yield "a time that is none"
        case Want():
            yield from _of_ranges(message.ranges)
        case _:
            return


def _of_write(dot: Dot, stamp: Stamp, groups: Iterable[Mapping[str, object]]) -> Iterator[str]:
    if not 1 <= dot.sequence <= MAX_SEQUENCE:
        yield "a number of a write that is none"
    if not (0 <= stamp.wall_ms <= MAX_WALL_MS and 0 <= stamp.counter <= MAX_SEQUENCE):
        yield "a stamp that is none"
    for value in chain.from_iterable(values.values() for values in groups):
        if isinstance(value, int):
            if not -MAX_SEQUENCE - 1 <= value <= MAX_SEQUENCE:
                yield "a number of more than 64 bits"
        elif not (value is None or isinstance(value, float | str | bytes)):
            yield "a value that no column can hold"


def _of_ranges(ranges: Ranges) -> Iterator[str]:
    for spans in ranges.values():
        before = 0
        for first, last in spans:
            if not before < first <= last <= MAX_SEQUENCE:
                yield "ranges that are not in order"
            before = last + 1  # ranges that touch would be one
