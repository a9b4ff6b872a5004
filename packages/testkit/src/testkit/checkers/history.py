"""Who asked for what, when, and what came of it."""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Fate(enum.Enum):
    """What is known of an operation."""

    DONE = "done"
    NOT_DONE = "not done, for certain"
    UNKNOWN = "nobody knows"


@dataclass(frozen=True, slots=True)
class Operation:
    """``began`` and ``ended`` are places in the order of all events of the history, and only that."""

    client: object
    call: str
    argument: object
    began: float
    ended: float = math.inf
    """Infinity when nobody knows what came of it."""
    result: object = None
    fate: Fate = Fate.DONE
    key: object = None
    """Operations of different keys have nothing to do with each other."""

    def __str__(self) -> str:
        came = f" -> {self.result!r}" if self.fate is Fate.DONE else f" ({self.fate.value})"
        return f"{self.client}: {self.call}({self.argument!r}){came}"


class History:
    """Records operations; safe to use from several threads."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        # Counting is one step of the interpreter: numbers are in the order in which things happened.
        self._events = itertools.count()

    @property
    def operations(self) -> list[Operation]:
        """All that have ended, in the order in which they began."""
        return sorted(self._operations, key=lambda operation: operation.began)

    def __str__(self) -> str:
        return "\n".join(map(str, self.operations))

    @contextmanager
    def calling(
        self, client: object, call: str, argument: object = None, *, key: object = None
    ) -> Iterator[Call]:
        """Record one operation: the block makes it, and says what came of it.

        If the block ends without having said so, or with an exception, nobody knows; exceptions pass through.
        """
        made = Call()
        began = next(self._events)
        try:
            yield made
        finally:
            ended = math.inf if made.fate is Fate.UNKNOWN else next(self._events)
            self._operations.append(
                Operation(client, call, argument, began, ended, made.result, made.fate, key)
            )


class Call:
    """What the caller tells of the operation that is being recorded."""

    def __init__(self) -> None:
        self.fate = Fate.UNKNOWN
        self.result: object = None

    def done(self, result: object = None) -> None:
        """It was acknowledged, with this result."""
        self.fate, self.result = Fate.DONE, result

    def not_done(self) -> None:
        """It was refused: it has not happened and never will."""
        self.fate = Fate.NOT_DONE
