"""An epoll loop for sockets by the ten thousand: no tasks, no futures, one call per event.

Every socket is registered once, edge-triggered, for everything, so that a connection's life costs
two system calls to the kernel's interest list. Whoever is called back must therefore go on until the
kernel says "would block", or ask to be called :meth:`again`.

Sockets are closed at the end of the turn. Closed at once, their number could be given to a new
socket while events for the old one still wait in the same batch.

What a callee raises and nobody expected goes to ``on_defect``, so that one connection's defect need not
end all the others of the process.
"""

from __future__ import annotations

import select
import socket
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from _typeshed import HasFileno

EDGE = select.EPOLLIN | select.EPOLLPRI | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
LEVEL_READ = select.EPOLLIN
_EVENTS_PER_TURN = 256
_LONGEST_LOOK_S = 1.0
"""Between two looks at deadlines, since their durations may change."""

_Item = TypeVar("_Item")


class Handler(Protocol):
    """Who is told that a socket is ready."""

    def ready(self, events: int) -> None:
        """``events`` is a mask of ``select.EPOLL*``."""
        ...


class Resumable(Protocol):
    """Who stopped in the middle of its work to let others have their turn."""

    def resume(self) -> None: ...


OnDefect = Callable[[object, Exception], None]
"""Gets who was called and what it raised; raises that again to end the loop."""


def _raise(_culprit: object, error: Exception) -> None:
    raise error


class Deadlines(Generic[_Item]):
    """Items that are due one fixed duration after they were added.

    The duration being the same for all, the order of adding is the order of falling due, and
    neither adding nor removing searches.
    """

    def __init__(
        self,
        duration_s: float,
        due: Callable[[_Item], None],
        on_defect: OnDefect = _raise,
        on_first: Callable[[float], None] = lambda _at_s: None,
    ) -> None:
        """``on_first`` is told when an item that is the only one falls due."""
        self.duration_s = duration_s
        """May change, also for items that were added before."""
        self._due = due
        self._on_defect = on_defect
        self._on_first = on_first
        self._added_s: OrderedDict[_Item, float] = OrderedDict()

    def add(self, item: _Item, now_s: float) -> None:
        """Begin the item's time, again if it is running."""
        if not self._added_s:
            self._on_first(now_s + self.duration_s)
        self._added_s[item] = now_s
        self._added_s.move_to_end(item)

    def discard(self, item: _Item) -> None:
        """Forget the item; unknown ones are ignored."""
        self._added_s.pop(item, None)

    def next_at(self) -> float | None:
        """When the first item falls due, ``None`` without items."""
        for added_s in self._added_s.values():
            return added_s + self.duration_s
        return None

    def expire(self, now_s: float) -> None:
        """Remove and report every item that is due."""
        while self._added_s:
            item, added_s = next(iter(self._added_s.items()))
            if added_s + self.duration_s > now_s:
                return
            del self._added_s[item]
            try:
                self._due(item)
            except Exception as error:  # noqa: BLE001
                self._on_defect(item, error)


class Loop:
    """Calls handlers until told to stop."""

    def __init__(self, on_defect: OnDefect = _raise) -> None:
        self.now_s = monotonic()
        """The time when this turn's events arrived; on the clock that all processes share."""
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._doomed: list[socket.socket] = []
        self._again: dict[Resumable, None] = {}
        self._deadlines: list[Deadlines[Any]] = []
        self._look_at_s = inf
        """No deadline falls due before this time."""
        self._running = False
        self._on_defect = on_defect

    def register(self, sock: HasFileno, handler: Handler, events: int = EDGE) -> None:
        fd = sock.fileno()
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def watch(self, sock: socket.socket, events: int) -> None:
        """Call the handler of a registered socket for these events alone, at once for what is so already."""
        self._epoll.modify(sock.fileno(), events)

    def hand_over(self, sock: socket.socket, handler: Handler) -> None:
        """Call another handler for a registered socket from now on."""
        self._handlers[sock.fileno()] = handler

    def close(self, sock: socket.socket) -> None:
        """Stop watching ``sock``, if it was watched, and close it when this turn is over."""
        self._handlers.pop(sock.fileno(), None)
        self._doomed.append(sock)

    def close_shared(self, sock: socket.socket) -> None:
        """Like :meth:`close`, for a socket that another process holds too.

        The kernel drops its interest in a socket when the last duplicate is closed; while there are
        others it would go on to report the number of a descriptor that is no more.
        """
        self._epoll.unregister(sock.fileno())
        self.close(sock)

    def again(self, item: Resumable) -> None:
        """Resume ``item`` in the next turn, after the other sockets had theirs."""
        self._again[item] = None

    def deadlines(self, duration_s: float, due: Callable[[_Item], None]) -> Deadlines[_Item]:
        """A new class of deadlines, watched by this loop."""
        deadlines = Deadlines(duration_s, due, self._on_defect, self._look_by)
        self._deadlines.append(deadlines)
        return deadlines

    def stop(self) -> None:
        """Return from :meth:`run` after this turn."""
        self._running = False

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        self._running = True
        handlers, poll, on_defect = self._handlers, self._epoll.poll, self._on_defect
        while self._running:
            events = poll(self._timeout_s(), _EVENTS_PER_TURN)
            self.now_s = monotonic()
            for fd, mask in events:
                handler = handlers.get(fd)
                if handler is not None:
                    try:
                        handler.ready(mask)
                    except Exception as error:  # noqa: BLE001
                        on_defect(handler, error)
            if self._again:
                items, self._again = self._again, {}
                for item in items:
                    try:
                        item.resume()
                    except Exception as error:  # noqa: BLE001
                        on_defect(item, error)
            if self.now_s >= self._look_at_s:
                self._look_at_deadlines()
            if self._doomed:
                self._close_doomed()

    def _timeout_s(self) -> float:
        if self._again:
            return 0.0
        look_at_s = self._look_at_s
        return -1.0 if look_at_s == inf else max(0.0, look_at_s - monotonic())

    def _close_doomed(self) -> None:
        doomed, self._doomed = self._doomed, []
        for sock in doomed:
            sock.close()

    def _look_at_deadlines(self) -> None:
        """Report what is due, and find out when to look again: most turns need not look at any class."""
        for deadlines in self._deadlines:
            deadlines.expire(self.now_s)
        self._look_at_s = inf
        for deadlines in self._deadlines:
            if (at_s := deadlines.next_at()) is not None:
                self._look_by(min(at_s, self.now_s + _LONGEST_LOOK_S))

    def _look_by(self, at_s: float) -> None:
        if at_s < self._look_at_s:
            self._look_at_s = at_s
