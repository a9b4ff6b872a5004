"""Clients that wait for a place on a backend: first come, first served, as many as may, not for ever.

Each worker keeps a line for each app. Within one worker the order is exact. Between workers it is exact to
:data:`TOLERANCE_S`: a worker publishes since when the first of each of its lines waits, and lets its own
first go only when no other worker's has waited longer than that by more. Letting turns pass from worker to
worker at each single client would be exact to the microsecond, and as slow as the workers' looking at each
other's lines, which is every :data:`LOOK_INTERVAL_S` while anybody waits and never otherwise.

Who comes later does not overtake: while somebody waits for an app, a new client of it stands in line too,
even if there is a place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from math import inf
from typing import Generic, Protocol, TypeVar

import msgspec

LOOK_INTERVAL_S = 0.005
TOLERANCE_S = 10 * LOOK_INTERVAL_S
"""So many looks: clients that come evenly to all workers are then let go ten times as fast as they come."""

Item = TypeVar("Item")


HUNG_S = 0.25
"""Who has not looked after its lines for so long is waited for no more."""


class QueueTerms(msgspec.Struct, frozen=True):
    """How many clients may wait, in all workers together, and how long each."""

    length: int = 0
    """0: nobody waits."""
    timeout_s: float = 5.0


class Queues(Protocol):
    """Who waits in all workers."""

    def join(self, most: int) -> bool:
        """Count one more that waits, unless ``most`` do."""
        ...

    def leave(self) -> None:
        """Count one less."""
        ...

    def publish(self, app_key: int, since_s: float | None) -> None:
        """The first of this worker's line for the app waits since then; ``None`` when nobody does."""
        ...

    def looked(self, now_s: float) -> None:
        """This worker looks after its lines now, which it says at least every :data:`LOOK_INTERVAL_S`."""
        ...

    def oldest_elsewhere(self, app_key: int, now_s: float) -> float:
        """Since when the first in another worker waits for the app; ``inf`` when nobody does, or only in
        workers that have not looked for :data:`HUNG_S`."""
        ...


class WaitingLines(Generic[Item]):
    """The lines of one worker. Items are told apart by identity and wait in one line at a time."""

    def __init__(self, length: int, queues: Queues) -> None:
        self.length = length
        """Most that may wait in all workers together. May change; who waits goes on to wait."""
        self._queues = queues
        self._lines: dict[int, OrderedDict[Item, float]] = {}
        self._app_of: dict[Item, int] = {}

    def __len__(self) -> int:
        return len(self._app_of)

    def must_wait(self, app_key: int, now_s: float) -> bool:
        """Whether somebody waits for the app already."""
        return app_key in self._lines or self._queues.oldest_elsewhere(app_key, now_s) < inf

    def join(self, item: Item, app_key: int, now_s: float) -> bool:
        """Stand in line at its end; false when too many wait already."""
        if not self._queues.join(self.length):
            return False
        line = self._lines.get(app_key)
        if line is None:
            line = self._lines[app_key] = OrderedDict()
            self._queues.looked(now_s)
            self._queues.publish(app_key, now_s)
        line[item] = now_s
        self._app_of[item] = app_key
        return True

    def leave(self, item: Item) -> float:
        """Stand in line no more; return since when ``item`` has waited."""
        app_key = self._app_of.pop(item)
        line = self._lines[app_key]
        was_first = next(iter(line)) is item
        since_s = line.pop(item)
        self._queues.leave()
        if was_first:
            first = next(iter(line.values()), None)
            if first is None:
                del self._lines[app_key]
            self._queues.publish(app_key, first)
        return since_s

    def turns(self, now_s: float) -> Iterator[Item]:
        """Whose turn it is, one after the other. Who has not left when the next is asked for found no place,
        and those behind him for the same app would find none either."""
        self._queues.looked(now_s)
        for app_key in tuple(self._lines):
            while (line := self._lines.get(app_key)) is not None:
                item, since_s = next(iter(line.items()))
                if since_s > self._queues.oldest_elsewhere(app_key, now_s) + TOLERANCE_S:
                    break
                yield item  # feature: connecting.queue
                if item in self._app_of:
                    break
