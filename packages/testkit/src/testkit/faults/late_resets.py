"""Hears of a reset behind an end: of sockets that nobody reads any more, and nobody writes to for now.

An event loop watches for bytes and for room. A socket whose other side has ended its half is always readable,
and mostly has room, so the loop would have to look at it all the time. The kernel's epoll tells of errors
without having been asked for anything; and is itself something that a loop can watch.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

_ONCE = select.EPOLLONESHOT
"""Nothing else is asked for; errors are told anyway."""


class LateResets:
    """Calls back when a socket is reset. Costs the loop nothing while there is none to watch."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._told: dict[int, Callable[[], None]] = {}

    def watch(self, sock: socket.socket, told: Callable[[], None]) -> None:
        """Call ``told``, once, when ``sock`` is reset, or has been; until :meth:`forget`."""
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)
        self._told[sock.fileno()] = told
        self._epoll.register(sock.fileno(), _ONCE)

    def forget(self, sock: socket.socket) -> None:
        """Watch it no more, if it was watched; to be called before it is closed."""
        if self._epoll is None or self._told.pop(sock.fileno(), None) is None:
            return
        self._epoll.unregister(sock.fileno())
        if not self._told:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _look(self) -> None:
        assert self._epoll is not None
        for descriptor, events in self._epoll.poll(0):
            # Both halves at their ends are EPOLLHUP alone.
            if events & select.EPOLLERR:
                self._told[descriptor]()
