"""Test data by the dozen: values that differ where they must, and of which a test says only what it is about.

::

    backends = Factory(
        Backend,
        rng,
        id=numbered("mock-{}"),
        region=one_of("eu", "us"),
        weight=lambda draw: draw.rng.randint(1, 255),
        healthy=True,
    )
    sick, *others = backends(healthy=False), *backends.batch(9, region="eu")

What is made depends on the generator and on how many were made before, so a seed makes all of it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draw:
    """What a field is drawn from."""

    number: int
    """How many were made before."""
    rng: Random


Field = Callable[[Draw], Any]


class Factory(Generic[T]):
    """Calls ``make``, a class or whatever makes a value, with one argument for each field."""

    def __init__(self, make: Callable[..., T], rng: Random, /, **fields: Any) -> None:
        """``fields``: a value, or a callable that is given a `Draw`."""
        self._make = make
        self._rng = rng
        self._fields = fields
        self._count = 0

    def __call__(self, /, **given: Any) -> T:
        """Make one, with what is given in the place of what would be drawn."""
        draw = Draw(self._count, self._rng)
        self._count += 1
        # All are drawn: what one test gives must not change what the others of it get.
        drawn = {name: field(draw) if callable(field) else field for name, field in self._fields.items()}
        return self._make(**{**drawn, **given})

    def batch(self, count: int, /, **given: Any) -> list[T]:
        """Make so many."""
        return [self(**given) for _ in range(count)]


def numbered(pattern: str) -> Field:
    """A text that is another each time: ``{}`` is the number, from 0 on."""
    return lambda draw: pattern.format(draw.number)


def one_of(*choices: Any) -> Field:
    """Any of these."""
    return lambda draw: draw.rng.choice(choices)
