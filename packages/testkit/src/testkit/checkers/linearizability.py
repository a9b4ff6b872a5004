"""Is there an order of the operations, each at a moment between its begin and its end, that explains all?

The search of Wing and Gong, with Lowe's memory of what was tried (as in Knossos and Porcupine), key by key.
It is exponential at worst, so it is bounded in time, and says "unknown" when that was not enough.

Sources: J. M. Wing, C. Gong, "Testing and Verifying Concurrent Objects", 1993; G. Lowe, "Testing for
Linearizability", 2017.
"""

from __future__ import annotations

import enum
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from testkit.checkers.history import Fate, Operation


class Verdict(enum.Enum):
    """What the search came to."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict, and what it rests on."""

    verdict: Verdict
    key: object = None
    """Of the operations that have no explanation, or were not searched to the end."""
    stuck: tuple[Operation, ...] = ()
    """Of the longest explanation: operations of which none can come next."""
    tried: int = 0
    """States that were looked at."""

    def __str__(self) -> str:
        if self.verdict is Verdict.LINEARIZABLE:
            return f"{self.verdict.value}, after {self.tried} states"
        what = "; ".join(map(str, self.stuck))
        return (
            f"{self.verdict.value} (key {self.key!r}), after {self.tried} states; none can come next: {what}"
        )


class Model(ABC):
    """What a correct service does, one operation after the other."""

    @abstractmethod
    def initial(self) -> Hashable:
        """The state at first."""

    @abstractmethod
    def apply(self, state: Hashable, operation: Operation) -> tuple[bool, Hashable]:
        """Whether the operation can have its result in that state, and the state afterwards.

        An operation whose fate is unknown has no result: any is possible.
        """


class Register(Model):
    """``write(value)``, ``read() -> value``, ``cas((expected, value)) -> whether it was so``."""

    def __init__(self, initial: Hashable = None) -> None:
        self._initial = initial

    def initial(self) -> Hashable:
        return self._initial

    def apply(self, state: Hashable, operation: Operation) -> tuple[bool, Hashable]:
        is_known = operation.fate is Fate.DONE
        if operation.call == "write":
            assert isinstance(operation.argument, Hashable)
            return True, operation.argument
        if operation.call == "read":
            return not is_known or operation.result == state, state
        assert operation.call == "cas", f"a register has no {operation.call}"
        assert isinstance(operation.argument, tuple)
        expected, value = operation.argument
        is_swapped = state == expected
        return not is_known or operation.result == is_swapped, value if is_swapped else state


class Counting(Model):
    """``add(amount)``, ``read() -> sum``."""

    def __init__(self, initial: int = 0) -> None:
        self._initial = initial

    def initial(self) -> Hashable:
        return self._initial

    def apply(self, state: Hashable, operation: Operation) -> tuple[bool, Hashable]:
        assert isinstance(state, int)
        if operation.call == "add":
            assert isinstance(operation.argument, int)
            return True, state + operation.argument
        assert operation.call == "read", f"a counter has no {operation.call}"
        return operation.fate is not Fate.DONE or operation.result == state, state


def check_linearizable(
    operations: Iterable[Operation],
    model: Model,
    *,
    timeout_s: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
) -> Finding:
    """Search for an explanation of each key's operations; the first that has none decides.

    What was not done for certain plays no part. "Unknown" is said when ``timeout_s`` is over and no key has
    been found without an explanation.
    """
    deadline_s = clock() + timeout_s
    keys: dict[object, list[Operation]] = {}
    for operation in sorted(operations, key=lambda each: each.began):
        if operation.fate is not Fate.NOT_DONE:
            keys.setdefault(operation.key, []).append(operation)
    tried = 0
    unknown: Finding | None = None
    for key, ours in keys.items():
        finding = _search(key, ours, model, lambda: clock() >= deadline_s)
        tried += finding.tried
        if finding.verdict is Verdict.NOT_LINEARIZABLE:
            return finding
        if finding.verdict is Verdict.UNKNOWN:
            unknown = unknown or finding
    return unknown or Finding(Verdict.LINEARIZABLE, tried=tried)


_LOOK_AT_CLOCK_EVERY = 256


def _search(
    key: object, operations: Sequence[Operation], model: Model, is_late: Callable[[], bool]
) -> Finding:
    """Depth first. What has been explained is a set of operations, kept as the bits of a number."""
    required = sum(1 << at for at, each in enumerate(operations) if each.fate is Fate.DONE)
    first = (0, model.initial())
    seen = {first}
    way: list[tuple[int, Iterator[tuple[int, Hashable]]]] = [(0, _next(operations, model, *first))]
    longest, tried = 0, 0
    while way:
        explained, steps = way[-1]
        if explained & required == required:
            return Finding(Verdict.LINEARIZABLE, key, tried=tried)
        step = next(steps, None)
        if step is None:
            way.pop()
            continue
        tried += 1
        if tried % _LOOK_AT_CLOCK_EVERY == 0 and is_late():
            return Finding(Verdict.UNKNOWN, key, _candidates(operations, longest), tried)
        if step not in seen:
            seen.add(step)
            if step[0].bit_count() > longest.bit_count():
                longest = step[0]
            way.append((step[0], _next(operations, model, *step)))
    return Finding(Verdict.NOT_LINEARIZABLE, key, _candidates(operations, longest), tried)


def _next(
    operations: Sequence[Operation], model: Model, explained: int, state: Hashable
) -> Iterator[tuple[int, Hashable]]:
    for at in _possible(operations, explained):
        is_possible, after = model.apply(state, operations[at])
        if is_possible:
            yield explained | 1 << at, after


def _possible(operations: Sequence[Operation], explained: int) -> Iterator[int]:
    """Places of the operations that may come next: none that is left had ended before they began."""
    earliest_end = math.inf
    left = []
    for at, operation in enumerate(operations):
        # In the order in which they began: whoever began later than that comes later.
        if operation.began > earliest_end:
            break
        if not explained >> at & 1:
            left.append(at)
            earliest_end = min(earliest_end, operation.ended)
    return (at for at in left if operations[at].began < earliest_end)


def _candidates(operations: Sequence[Operation], explained: int) -> tuple[Operation, ...]:
    return tuple(operations[at] for at in _possible(operations, explained))
