"""TLS handshakes, few at a time.

A handshake costs as much as a hundred reads of the relay. Clients that come all at once would make everybody
else wait for all of theirs, so handshakes that can go on stand in a queue, from which each turn of
the loop takes a few. How many may be under way is limited, and how long.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

from edgeproxy.worker.loop import Loop
from edgeproxy.worker.tls_side import TlsSide

STEPS_PER_TURN = 4
_TURN_S = 0.0005
"""After so long no further step is begun in this turn: with RSA one step takes longer than four with EC."""

_Owner = TypeVar("_Owner")


class Handshakes(Generic[_Owner]):
    """All handshakes of one worker with clients, or with backends."""

    def __init__(
        self,
        loop: Loop,
        *,
        secured: Callable[[_Owner, TlsSide], None],
        failed: Callable[[_Owner, Exception], None],
        timed_out: Callable[[_Owner], None],
        timeout_s: float,
        limit: int | None,
        on_defect: Callable[[object, Exception], None],
    ) -> None:
        """Let at most ``limit`` be under way, each for ``timeout_s``; ``on_defect`` as the loop's.

        One of the others is called for each, once, unless it is discarded. With ``secured`` there may be
        bytes of the peer behind the handshake, of which no edge will tell.
        """
        self._loop = loop
        self._secured = secured
        self._failed = failed
        self._timed_out = timed_out
        self._limit = limit
        self._on_defect = on_defect
        self._under_way: dict[_Owner, _Handshake[_Owner]] = {}
        self._deadlines = loop.deadlines(timeout_s, self._time_out)
        self._can_go_on: dict[_Handshake[_Owner], None] = {}

    def begin(
        self, owner: _Owner, sock: socket.socket, make_side: Callable[[], TlsSide], speaks_first: bool = False
    ) -> bool:
        """Shake hands with the peer on ``sock``, which is registered; False when too many are at it.

        ``make_side`` is called when it is time to begin: at once by who ``speaks_first``, else not before the
        peer's first byte, since of those that connect and say nothing there may be many. A ValueError of it
        is a failure of the handshake.
        """
        if self._limit is not None and len(self._under_way) >= self._limit:  # feature: tls.terminated
            return False
        handshake = self._under_way[owner] = _Handshake(self, owner, sock, make_side, speaks_first)
        self._deadlines.add(owner, self._loop.now_s)
        self._loop.hand_over(sock, handshake)
        # The peer's hello may have come with what stood before it; no further edge would tell.
        self.go_on(handshake)
        return True

    def change_limits(self, timeout_s: float, limit: int | None) -> None:
        """Let as many be under way, and for as long, from now on."""
        self._deadlines.duration_s = timeout_s
        self._limit = limit

    def discard(self, owner: _Owner) -> None:
        """Forget the owner's handshake, if one is under way."""
        handshake = self._under_way.get(owner)
        if handshake is not None:
            self._end(handshake)
            if handshake.side is not None:
                handshake.side.detach()

    def go_on(self, handshake: _Handshake[_Owner]) -> None:
        """There may be something to read for ``handshake``, or room to send."""
        if not self._can_go_on:
            self._loop.again(self)
        self._can_go_on[handshake] = None

    def resume(self) -> None:
        """One turn's steps (:class:`~edgeproxy.worker.loop.Resumable`)."""
        waiting = self._can_go_on
        until_s = monotonic() + _TURN_S
        for _ in range(min(STEPS_PER_TURN, len(waiting))):
            handshake = next(iter(waiting))
            del waiting[handshake]
            try:
                self._step(handshake)
            except Exception as error:  # noqa: BLE001
                self._on_defect(handshake, error)
            if not waiting or monotonic() > until_s:
                break
        if waiting:
            self._loop.again(self)

    def _step(self, handshake: _Handshake[_Owner]) -> None:
        owner, side = handshake.owner, handshake.side
        try:
            if side is None:
                if not handshake.speaks_first and not _has_input(handshake.sock):
                    return
                side = handshake.side = handshake.make_side()
                if handshake.speaks_first:
                    side.say_hello()
            is_complete = side.shake_hands()
        except (OSError, ValueError) as error:
            self.discard(owner)
            self._failed(owner, error)
            return
        if is_complete:
            self._end(handshake)
            self._secured(owner, side)

    def _time_out(self, owner: _Owner) -> None:
        self.discard(owner)
        self._timed_out(owner)

    def _end(self, handshake: _Handshake[_Owner]) -> None:
        del self._under_way[handshake.owner]
        self._deadlines.discard(handshake.owner)
        self._can_go_on.pop(handshake, None)


class _Handshake(Generic[_Owner]):
    """The handler of a socket while its handshake is under way."""

    __slots__ = ("_handshakes", "make_side", "owner", "side", "sock", "speaks_first")

    def __init__(
        self,
        handshakes: Handshakes[_Owner],
        owner: _Owner,
        sock: socket.socket,
        make_side: Callable[[], TlsSide],
        speaks_first: bool,
    ) -> None:
        self._handshakes = handshakes
        self.owner = owner
        self.sock = sock
        self.make_side = make_side
        self.speaks_first = speaks_first
        self.side: TlsSide | None = None

    def ready(self, events: int) -> None:
        if self.side is not None or events & ~select.EPOLLOUT:
            self._handshakes.go_on(self)


def _has_input(sock: socket.socket) -> bool:
    """Whether there is a byte to read, an end or a reset."""
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
