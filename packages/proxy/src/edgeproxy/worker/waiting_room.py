"""Where clients wait for a place on a backend, in one worker.

A place that becomes free in this worker goes to the first in line within the same turn. Places that become
free elsewhere, in other workers or by a change of the table, are found by looking, which is done every few
milliseconds while anybody waits, and never otherwise.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from edgeproxy.core.dataplane.affinity import stable_key
from edgeproxy.core.dataplane.waiting import LOOK_INTERVAL_S, Queues, QueueTerms, WaitingLines
from edgeproxy.worker.loop import Deadlines, Loop
from edgeproxy.worker.relay_copy import Side

_APPS_REMEMBERED = 4096
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT


class Waiter(Protocol):
    """A connection that waits."""

    def take_turn(self) -> None:
        """Go, if there is a place, or stay in line."""
        ...

    def waited_too_long(self) -> None: ...

    def left_the_queue(self) -> None:
        """The client has ended its side without having sent anything."""
        ...


class WaitingRoom:
    """The lines of one worker, and who watches over them."""

    def __init__(
        self, loop: Loop, terms: QueueTerms, queues: Queues, on_defect: Callable[[object, Exception], None]
    ) -> None:
        """``on_defect`` gets a waiter and what it raised."""
        self._loop = loop
        self._lines: WaitingLines[Waiter] = WaitingLines(terms.length, queues)
        self._looks = loop.deadlines(LOOK_INTERVAL_S, WaitingRoom._look)
        self._timeouts: Deadlines[Waiter] = loop.deadlines(
            terms.timeout_s, lambda waiter: waiter.waited_too_long()
        )
        self._on_defect = on_defect
        self.is_open = terms.length > 0
        """Whether anybody may wait. Asked for each connection, so it is no property."""
        self._key_of = lru_cache(_APPS_REMEMBERED)(stable_key)

    def change_terms(self, terms: QueueTerms) -> None:
        """Go by these from now on; who waits goes on to wait."""
        self._lines.length = terms.length
        self._timeouts.duration_s = terms.timeout_s
        self.is_open = terms.length > 0

    def must_wait(self, app: str) -> bool:
        """Whether others wait for a backend of ``app`` already."""
        return self._lines.must_wait(self._key_of(app), self._loop.now_s)

    def join(self, waiter: Waiter, app: str) -> bool:
        """Stand in line; false when too many wait already."""
        now_s = self._loop.now_s
        if not self._lines.join(waiter, self._key_of(app), now_s):
            return False
        self._timeouts.add(waiter, now_s)
        if len(self._lines) == 1:
            self._looks.add(self, now_s)
        return True

    def leave(self, waiter: Waiter) -> float:
        """Wait no more; return for how long ``waiter`` has."""
        self._timeouts.discard(waiter)
        return self._loop.now_s - self._lines.leave(waiter)

    def place_is_free(self) -> None:
        """A connection of this worker is over."""
        if len(self._lines):
            self._loop.again(self)

    def resume(self) -> None:
        for waiter in self._lines.turns(self._loop.now_s):
            try:
                waiter.take_turn()
            except Exception as error:  # noqa: BLE001
                self._on_defect(waiter, error)

    def _look(self) -> None:
        self.resume()
        if len(self._lines):
            self._looks.add(self, self._loop.now_s)


class Seat:
    """Handles the socket of a client that waits: reads nothing, and sees whether the client is still there.

    A client that has sent something and then its end may wait for the answer, and stays. One that ends
    without having sent anything has gone away.
    """

    __slots__ = ("_owner", "_side", "_tells_end")

    def __init__(self, owner: Waiter, side: Side, *, tells_end: bool) -> None:
        """``tells_end``: unread bytes of the socket are the client's own, as within TLS they are not."""
        self._owner = owner
        self._side = side
        self._tells_end = tells_end

    @property
    def owner(self) -> Waiter:
        """Who waits here."""
        return self._owner

    def ready(self, events: int) -> None:
        self._side.ready(events)
        if events & select.EPOLLRDHUP and not events & select.EPOLLERR:
            self.look()

    def look(self) -> None:
        """See whether the client has ended its side, and nothing that it sent before is unread."""
        if self._tells_end:
            with contextlib.suppress(OSError):  # nothing has come, or a reset, which is told of
                if not self._side.sock.recv(1, _PEEK):
                    self._owner.left_the_queue()
