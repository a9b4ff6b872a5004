"""From a seed to inputs, from inputs to findings, from a finding to the smallest input that shows it.

An input depends on the seed, the target and its own number alone, so that any one is repeated without those
before it, and the work may be split among processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from packages.proxy.tests.fuzz.properties import Target

NOISE_SHARE = 0.1
"""Inputs that are nothing but random bytes, half of them behind the beginning of a sample."""
UNCHANGED_SHARE = 0.1
"""Samples as they are: these must be accepted."""
MAX_MUTATIONS = 4
MAX_NOISE_BYTES = 300
MAX_INPUT_BYTES = 64 << 10
TIME_LIMIT_S = 1.0
"""Of processor time for one input with all its cuts: thousands of times the usual, still caught at once when
some input takes quadratic time."""

_INTERESTING_BYTES = bytes((0, 1, 2, 3, 4, 0x0A, 0x0D, 0x16, 0x20, 0x21, 0x7F, 0x80, 0xFE, 0xFF))


class RefusedError(AssertionError):
    """A valid input was not accepted."""


class TooSlowError(AssertionError):
    """An input took more processor time than the limit."""


@dataclass(frozen=True)
class Finding:
    """An input for which a property does not hold."""

    target: str
    seed: int
    number: int
    data: bytes
    """As small as it could be made."""
    error: str


@dataclass(frozen=True)
class Outcome:
    """What a number of inputs brought."""

    inputs: int = 0
    accepted: int = 0
    slowest_s: float = 0.0
    """Processor time of the input that took most, with all its cuts."""
    finding: Finding | None = None

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.inputs + other.inputs,
            self.accepted + other.accepted,
            max(self.slowest_s, other.slowest_s),
            self.finding or other.finding,
        )


def draw(target: Target, seed: int, number: int) -> tuple[bytes, bool]:
    """Return the input of this number, and whether it is a valid one."""
    rng = Random(f"{seed}/{target.name}/{number}")
    kind = rng.random()
    if kind < NOISE_SHARE:
        noise = rng.randbytes(rng.randrange(MAX_NOISE_BYTES))
        if kind < NOISE_SHARE / 2:
            return noise, False
        sample = target.sample(rng)
        return sample[: rng.randrange(len(sample) + 1)] + noise, False
    data = target.sample(rng)
    if kind < NOISE_SHARE + UNCHANGED_SHARE:
        return data, True
    for _ in range(rng.randint(1, MAX_MUTATIONS)):
        data = rng.choice(_MUTATIONS)(data or b"\0", rng, target)
    return data[:MAX_INPUT_BYTES], False


def examine(target: Target, seed: int, number: int) -> Outcome:
    """Try one input."""
    data, valid = draw(target, seed, number)
    began_s = time.process_time()
    try:
        accepted = _check(target, data, valid=valid)
    except Exception as error:  # noqa: BLE001  whatever a parser lets through is what is looked for
        kind = type(error)
        if kind is not RefusedError:
            data = minimise(data, lambda smaller: _fails_alike(target, smaller, kind))
        shown = f"{kind.__name__}: {error}"
        return Outcome(1, finding=Finding(target.name, seed, number, data, shown))
    return Outcome(1, accepted, time.process_time() - began_s)


def examine_range(target: Target, seed: int, numbers: range) -> Outcome:
    """Try inputs up to the first finding."""
    outcome = Outcome()
    for number in numbers:
        outcome += examine(target, seed, number)
        if outcome.finding is not None:
            break
    return outcome


def minimise(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """Make ``data`` smaller while it still fails: take pieces out and put zeros in until neither helps."""
    while True:
        before = data
        size = len(data)
        while size:
            at = 0
            while at < len(data):
                smaller = data[:at] + data[at + size :]
                if fails(smaller):
                    data = smaller
                else:
                    at += size
            size //= 2
        for at in range(len(data)):
            plainer = data[:at] + b"\0" + data[at + 1 :]
            if fails(plainer):
                data = plainer
        if data == before:
            return data


def _check(target: Target, data: bytes, *, valid: bool) -> bool:
    began_s = time.process_time()
    accepted = target.check(data)
    spent_s = time.process_time() - began_s
    if spent_s > TIME_LIMIT_S:
        raise TooSlowError(f"took {spent_s:.1f} s, the limit is {TIME_LIMIT_S} s")
    if valid and not accepted:
        raise RefusedError("a valid input was refused")
    return accepted


def _fails_alike(target: Target, data: bytes, kind: type[Exception]) -> bool:
    try:
        _check(target, data, valid=False)
    except Exception as found:  # noqa: BLE001
        return type(found) is kind
    return False


# ---- mutations; each is given at least one byte --------------------------------------------------


def _flip_bit(data: bytes, rng: Random, target: Target) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]


def _set_byte(data: bytes, rng: Random, target: Target) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes((rng.choice(_INTERESTING_BYTES),)) + data[at + 1 :]


def _insert(data: bytes, rng: Random, target: Target) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at:]


def _delete(data: bytes, rng: Random, target: Target) -> bytes:
    start, end = _range(data, rng)
    return data[:start] + data[end:]


def _repeat(data: bytes, rng: Random, target: Target) -> bytes:
    start, end = _range(data, rng)
    return data[:end] + data[start:]


def _truncate(data: bytes, rng: Random, target: Target) -> bytes:
    return data[: rng.randrange(len(data))]


def _splice(data: bytes, rng: Random, target: Target) -> bytes:
    other = target.sample(rng)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def _lie_about_a_length(data: bytes, rng: Random, target: Target) -> bytes:
    """Change what is probably a length: a number that is no larger than what follows it."""
    width = rng.choice((1, 2, 2, 3, 4))
    for _ in range(8):
        at = rng.randrange(len(data))
        behind = at + width
        told = int.from_bytes(data[at:behind], "big")
        if 0 < told <= len(data) - behind:
            break
    else:
        return data
    largest = (1 << 8 * width) - 1
    remaining = len(data) - behind
    lie = rng.choice((0, 1, told - 1, told + 1, told + 2, 2 * told, remaining, remaining + 1, largest))
    return data[:at] + min(lie, largest).to_bytes(width, "big") + data[behind:]


def _range(data: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 16, 64)))


_MUTATIONS = (
    _flip_bit,
    _set_byte,
    _insert,
    _delete,
    _repeat,
    _truncate,
    _splice,
    _lie_about_a_length,
    _lie_about_a_length,
)
