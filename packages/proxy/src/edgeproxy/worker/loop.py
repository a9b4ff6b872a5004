"""An epoll loop for sockets by the ten thousand: no tasks, no futures, one call per event.

Every socket is registered once, edge-triggered, for everything, so that a connection's life costs
two system calls to the kernel's interest list. Whoever is called back must therefore go on until the
kernel says "would block", or ask to be called :meth:`again`.

Sockets are closed at the end of the turn. Closed at once, their number could be given to a new
socket while events for the old one still wait in the same batch.
"""

from __future__ import annotations

import select
import socket
from collections import OrderedDict
from collections.abc import Callable
from itertools import takewhile
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

EDGE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
LEVEL_READ = select.EPOLLIN
_EVENTS_PER_TURN = 256

_Item = TypeVar("_Item")


class Handler(Protocol):
    """Who is told that a socket is ready."""

    def ready(self, events: int) -> None:
        """``events`` is a mask of ``select.EPOLL*``."""
        ...


class Resumable(Protocol):
    """Who stopped in the middle of its work to let others have their turn."""

    def resume(self) -> None: ...


class Deadlines(Generic[_Item]):
    """Items that are due one fixed duration after they were added.

    The duration being the same for all, the order of adding is the order of falling due, and
    neither adding nor removing searches.
    """

    def __init__(self, duration_s: float, due: Callable[[_Item], None]) -> None:
        self._duration_s = duration_s
        self._due = due
        self._at: OrderedDict[_Item, float] = OrderedDict()

    def add(self, item: _Item, now_s: float) -> None:
        """Begin the item's time, again if it is running."""
        self._at[item] = now_s + self._duration_s
        self._at.move_to_end(item)

    def discard(self, item: _Item) -> None:
        """Forget the item; unknown ones are ignored."""
        self._at.pop(item, None)

    def next_at(self) -> float | None:
        """When the first item falls due, ``None`` without items."""
        return next(iter(self._at.values()), None)

    def expire(self, now_s: float) -> None:
        """Remove and report every item that is due."""
        for item, _ in list(takewhile(lambda entry: entry[1] <= now_s, self._at.items())):
            del self._at[item]
            self._due(item)


class Loop:
    """Calls handlers until told to stop."""

    def __init__(self) -> None:
        self.now_s = monotonic()
        """The time when this turn's events arrived; on the clock that all processes share."""
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._doomed: list[socket.socket] = []
        self._again: dict[Resumable, None] = {}
        self._deadlines: list[Deadlines[Any]] = []
        self._running = False

    def register(self, sock: socket.socket, handler: Handler, events: int = EDGE) -> None:
        fd = sock.fileno()
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def hand_over(self, sock: socket.socket, handler: Handler) -> None:
        """Call another handler for a registered socket from now on."""
        self._handlers[sock.fileno()] = handler

    def unregister(self, sock: socket.socket) -> None:
        """Stop watching a socket that stays open."""
        fd = sock.fileno()
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def close(self, sock: socket.socket) -> None:
        """Stop watching ``sock``, and close it when this turn is over."""
        del self._handlers[sock.fileno()]
        self._doomed.append(sock)

    def again(self, item: Resumable) -> None:
        """Resume ``item`` in the next turn, after the other sockets had theirs."""
        self._again[item] = None

    def deadlines(self, duration_s: float, due: Callable[[_Item], None]) -> Deadlines[_Item]:
        """A new class of deadlines, watched by this loop."""
        deadlines = Deadlines(duration_s, due)
        self._deadlines.append(deadlines)
        return deadlines

    def stop(self) -> None:
        """Return from :meth:`run` after this turn."""
        self._running = False

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        self._running = True
        handlers, poll = self._handlers, self._epoll.poll
        while self._running:
            events = poll(self._timeout_s(), _EVENTS_PER_TURN)
            self.now_s = monotonic()
            for fd, mask in events:
                handler = handlers.get(fd)
                if handler is not None:
                    handler.ready(mask)
            if self._again:
                items, self._again = self._again, {}
                for item in items:
                    item.resume()
            for deadlines in self._deadlines:
                deadlines.expire(self.now_s)
            self._close_doomed()

    def _timeout_s(self) -> float:
        if self._again:
            return 0.0
        times = [at for deadlines in self._deadlines if (at := deadlines.next_at()) is not None]
        return max(0.0, min(times) - monotonic()) if times else -1.0

    def _close_doomed(self) -> None:
        doomed, self._doomed = self._doomed, []
        for sock in doomed:
            sock.close()
