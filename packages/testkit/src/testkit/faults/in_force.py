"""Which faults a link has, and whom each strikes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TypeVar

from testkit.faults.vocabulary import Direction, LinkFault

F = TypeVar("F", bound=LinkFault)


class FaultsInForce:
    """The faults of one link, numbered as they come.

    Draws depend on the seed and on the numbers of fault and connection alone, not on who came first: the same
    scenario strikes the same connections again.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._faults: dict[int, LinkFault] = {}
        self._last = 0
        self._drawn: dict[tuple[int, int], bool] = {}

    def __iter__(self) -> Iterator[LinkFault]:
        return iter(self._faults.values())

    def add(self, fault: LinkFault) -> int:
        """Put a fault in force; return its number."""
        self._last += 1
        self._faults[self._last] = fault
        return self._last

    def remove(self, number: int) -> None:
        """End a fault.

        Raises:
            KeyError: no fault of that number is in force.
        """
        del self._faults[number]
        self._drawn = {key: struck for key, struck in self._drawn.items() if key[0] != number}

    def striking(self, connection: int, way: Direction) -> list[LinkFault]:
        """The faults that strike a connection one way, in the order in which they came."""
        return [
            fault
            for number, fault in self._faults.items()
            if fault.direction.covers(way) and self._strikes(number, fault, connection)
        ]

    def view(self, connection: int, way: Direction) -> Callable[[], list[LinkFault]]:
        """What strikes that connection that way, asked anew each time."""
        return lambda: self.striking(connection, way)

    def find(self, kind: type[F], connection: int) -> F | None:
        """The last fault of a kind that strikes a connection any way."""
        found = [
            fault
            for number, fault in self._faults.items()
            if isinstance(fault, kind) and self._strikes(number, fault, connection)
        ]
        return found[-1] if found else None

    def draws(self, connection: int, way: Direction) -> random.Random:
        """The generator of all other draws of a connection that way."""
        return random.Random(f"{self.seed}/{connection}/{way.value}")

    def _strikes(self, number: int, fault: LinkFault, connection: int) -> bool:
        if fault.probability == 1:
            return True
        key = (number, connection)
        if key not in self._drawn:
            self._drawn[key] = (
                random.Random(f"{self.seed}/{number}/{connection}").random() < fault.probability
            )
        return self._drawn[key]
