"""Sockets whose connection is over, but which have not taken its last words yet.

The end of a TLS stream is a message. Where the client reads slowly there may be no room for it, and a socket
closed without it would make an answer that is whole look cut off.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from edgeproxy.worker.loop import Loop

_PATIENCE_S = 10.0


class Farewells:
    """The last words of one worker's connections."""

    def __init__(self, loop: Loop, on_end: Callable[[], None]) -> None:
        """``on_end`` is called at the end of each."""
        self._loop = loop
        self._on_end = on_end
        self._under_way: dict[_Farewell, None] = {}
        self._deadlines = loop.deadlines(_PATIENCE_S, self._end)

    @property
    def are_over(self) -> bool:
        """Whether none is under way."""
        return not self._under_way

    def begin(self, sock: socket.socket, words: bytes) -> None:
        """Send ``words`` when ``sock``, which is registered, takes them; then close it."""
        farewell = _Farewell(self, sock, words)
        self._under_way[farewell] = None
        self._loop.hand_over(sock, farewell)
        self._deadlines.add(farewell, self._loop.now_s)

    def cut_short(self) -> None:
        """End all of them now."""
        for farewell in list(self._under_way):
            self._deadlines.discard(farewell)
            self._end(farewell)

    def send(self, farewell: _Farewell) -> None:
        try:
            sent = farewell.sock.send(farewell.words, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            sent = len(farewell.words)  # there is nobody left to hear them
        farewell.words = farewell.words[sent:]
        if not farewell.words:
            self._deadlines.discard(farewell)
            self._end(farewell)

    def _end(self, farewell: _Farewell) -> None:
        del self._under_way[farewell]
        self._loop.close(farewell.sock)
        self._on_end()


class _Farewell:
    __slots__ = ("_farewells", "sock", "words")

    def __init__(self, farewells: Farewells, sock: socket.socket, words: bytes) -> None:
        self._farewells = farewells
        self.sock = sock
        self.words = words

    def ready(self, events: int) -> None:
        if events & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP):
            self._farewells.send(self)
