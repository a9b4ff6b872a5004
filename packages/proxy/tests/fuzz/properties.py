"""What holds for every input, by kind of parser; whatever a check raises is a finding.

Checks draw from a generator made from the input itself, so that an input alone repeats its finding.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from edgeproxy.core.wire.prefix import Malformed, Verdict

_WHOLLY_CUT_BYTES = 64
"""Inputs up to this size are cut at every byte."""
_WHOLLY_CUT_SHARE = 1 / 32
"""And so is this share of those up to ``_WHOLLY_CUT_LARGE_BYTES``; of the rest, a few cuts are taken."""
_WHOLLY_CUT_LARGE_BYTES = 2048
_CUTS = 8

Value = TypeVar("Value")


@dataclass(frozen=True)
class Target:
    """A parser, and how to try it."""

    name: str
    sample: Callable[[Random], bytes]
    """A valid input."""
    check: Callable[[bytes], bool]
    """Raise if a property does not hold; tell whether the input was accepted."""


def prefix_reader(
    name: str,
    sample: Callable[[Random], bytes],
    read: Callable[[bytes], Value | Malformed | Verdict],
    limit_bytes: int,
    check_value: Callable[[Value, bytes], None],
) -> Target:
    """A reader as :mod:`edgeproxy.core.wire.prefix` describes it.

    Every answer but "need more" is final, whatever follows, and is given within ``limit_bytes``.
    ``check_value`` gets what was read and from which bytes.
    """

    def check(data: bytes) -> bool:
        rng = _generator_of(data)
        verdict = read(data)
        final: object = Verdict.NEED_MORE
        for cut in _cuts(len(data), rng):
            found = read(data[:cut])
            if final is not Verdict.NEED_MORE:
                assert found == final, f"{final} became {found} at byte {cut}"
            final = found
        if final is not Verdict.NEED_MORE:
            assert verdict == final, f"{final} became {verdict} at the end"
        if verdict is Verdict.NEED_MORE:
            assert len(data) < limit_bytes, "undecided beyond its limit"
            return False
        assert read(data + rng.randbytes(8)) == verdict, "changed by what follows"
        if isinstance(verdict, Verdict | Malformed):
            return False
        check_value(verdict, data)
        return True

    return Target(name, sample, check)


def stream_reader(
    name: str,
    sample: Callable[[Random], bytes],
    new_reader: Callable[[], Callable[[bytes], Iterable[Value]]],
    refusals: type[Exception],
    encode: Callable[[Value], bytes],
) -> Target:
    """A reader that is fed with pieces of a stream and gives the values that are whole.

    However the stream is cut, the same values come out before the same end, and each survives being encoded
    and read again.
    """

    def values_of(pieces: Iterable[bytes]) -> tuple[list[bytes], bool]:
        feed = new_reader()
        values: list[bytes] = []
        try:
            for piece in pieces:
                for value in feed(piece):
                    # Compared as encoded: a value that holds NaN does not even equal itself.
                    values.append(encode(value))  # noqa: PERF401  those before a refusal count
        except refusals:
            return values, False
        return values, True

    def check(data: bytes) -> bool:
        found = values_of([data])
        edges = [0, *_cuts(len(data), _generator_of(data)), len(data)]
        pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
        assert values_of(pieces) == found, "depends on the cuts"
        values, intact = found
        assert values_of([b"".join(values)]) == (values, True), "differs when encoded and read again"
        return intact

    return Target(name, sample, check)


def whole_parser(
    name: str,
    sample: Callable[[Random], bytes],
    parse: Callable[[bytes], Value],
    refusals: type[Exception] | tuple[type[Exception], ...],
    check_value: Callable[[Value, bytes], None],
) -> Target:
    """A function that takes an input as a whole, and refuses by raising ``refusals`` and nothing else."""

    def check(data: bytes) -> bool:
        try:
            value = parse(data)
        except refusals:
            return False
        check_value(value, data)
        return True

    return Target(name, sample, check)


def _generator_of(data: bytes) -> Random:
    return Random(zlib.crc32(data))


def _cuts(length: int, rng: Random) -> Iterable[int]:
    """Where to cut: in ascending order, each between 0 and ``length``."""
    if length <= _WHOLLY_CUT_BYTES or (
        length <= _WHOLLY_CUT_LARGE_BYTES and rng.random() < _WHOLLY_CUT_SHARE
    ):
        return range(length)
    # The last bytes are where a reader is most tempted to decide too early.
    return sorted({length - 1, length - 2, *(rng.randrange(length) for _ in range(_CUTS))})
