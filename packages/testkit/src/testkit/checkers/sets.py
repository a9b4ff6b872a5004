"""Nothing that was acknowledged is lost, nothing is there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from testkit.checkers.history import Fate, Operation


@dataclass(frozen=True, slots=True)
class SetVerdict:
    """Elements by what is wrong with them; empty where nothing is."""

    lost: tuple[object, ...]
    """Acknowledged, and not there."""
    doubled: tuple[object, ...]
    """There more often than they were added."""
    unexpected: tuple[object, ...]
    """There, though nobody added them, or their adding was refused."""
    recovered: tuple[object, ...]
    """There, though nobody knew whether they would be. This is not wrong."""

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.unexpected)


def check_set(operations: Iterable[Operation], found: Collection[object], *, call: str = "add") -> SetVerdict:
    """Hold what was ``found`` at the end, when all was quiet, against the operations named ``call``.

    Arguments are the elements, and must be hashable. Adding one twice allows it to be there twice.
    """
    adding = [operation for operation in operations if operation.call == call]
    added = {operation.argument for operation in adding if operation.fate is Fate.DONE}
    attempted = Counter(operation.argument for operation in adding if operation.fate is not Fate.NOT_DONE)
    there = Counter(found)
    return SetVerdict(
        lost=_sorted(element for element in added if not there[element]),
        doubled=_sorted(element for element, times in there.items() if times > attempted[element] > 0),
        unexpected=_sorted(element for element in there if not attempted[element]),
        recovered=_sorted(element for element in there if attempted[element] and element not in added),
    )


def _sorted(elements: Iterable[object]) -> tuple[object, ...]:
    return tuple(sorted(elements, key=repr))
