"""Readings of a counter lie between what must and what may have been counted by then.

Quick, for any number of operations, and never wrong when it complains; but bounds are not all: that a later
reading is not lower than an earlier one, say, is for `linearizability`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from testkit.checkers.history import Fate, Operation


@dataclass(frozen=True, slots=True)
class ImpossibleReading:
    """A reading, and what it could have been."""

    operation: Operation
    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.operation}, but it is at least {self.least} and at most {self.most}"


def check_counter(operations: Iterable[Operation], *, start: int = 0) -> list[ImpossibleReading]:
    """Check all operations ``read`` against all operations ``add``, whose arguments are whole numbers."""
    known = [operation for operation in operations if operation.fate is not Fate.NOT_DONE]
    adds = [(operation, int(str(operation.argument))) for operation in known if operation.call == "add"]
    wrong = []
    for reading in known:
        if reading.call != "read" or reading.fate is not Fate.DONE:
            continue
        least = most = start
        for add, amount in adds:
            if add.ended < reading.began:
                least, most = least + amount, most + amount
            elif add.began < reading.ended:
                least, most = least + min(0, amount), most + max(0, amount)
        if not least <= int(str(reading.result)) <= most:
            wrong.append(ImpossibleReading(reading, least, most))
    return wrong
