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
from typing import Protocol

from edgeproxy.worker import relay_copy
from edgeproxy.worker.certificates import Certificates
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.relay_copy import CopyRelay
from edgeproxy.worker.tls_farewell import Farewells
from edgeproxy.worker.tls_side import BioPair, TlsSide

STEPS_PER_TURN = 4
_TURN_S = 0.0005
"""After so long no further step is begun in this turn: with RSA one step takes longer than four with EC."""


class Owner(relay_copy.Owner, Protocol):
    """Whose handshake it is. One of these is called, once, unless the handshake is discarded."""

    def secured(self, side: TlsSide) -> None:
        """The handshake is complete; bytes of the client may stand behind it."""
        ...

    def handshake_failed(self) -> None:
        """The client left, or speaks no TLS that we take."""
        ...

    def handshake_timed_out(self) -> None: ...


class Handshakes:
    """All handshakes of one worker."""

    def __init__(
        self,
        loop: Loop,
        relay: CopyRelay,
        certificates: Certificates,
        *,
        timeout_s: float,
        limit: int,
        on_defect: Callable[[object, Exception], None],
    ) -> None:
        """Let at most ``limit`` be under way, each for ``timeout_s``; ``on_defect`` as the loop's."""
        self.certificates = certificates
        self._loop = loop
        self._relay = relay
        self._bios = BioPair(Farewells(loop))
        self._limit = limit
        self._on_defect = on_defect
        self._under_way: dict[Owner, _Handshake] = {}
        self._deadlines = loop.deadlines(timeout_s, self._time_out)
        self._can_go_on: dict[_Handshake, None] = {}

    def begin(self, owner: Owner, sock: socket.socket) -> bool:
        """Shake hands with the client on ``sock``, which is registered; False when too many are at it."""
        if len(self._under_way) >= self._limit:  # feature: tls.terminated
            return False
        handshake = self._under_way[owner] = _Handshake(self, owner, sock)
        self._deadlines.add(owner, self._loop.now_s)
        self._loop.hand_over(sock, handshake)
        # Its hello may have come with what stood before it; no further edge would tell.
        self.go_on(handshake)
        return True

    def change_limits(self, timeout_s: float, limit: int) -> None:
        """Let as many be under way, and for as long, from now on."""
        self._deadlines.duration_s = timeout_s
        self._limit = limit

    def discard(self, owner: Owner) -> None:
        """Forget the owner's handshake, if one is under way."""
        handshake = self._under_way.pop(owner, None)
        if handshake is not None:
            self._deadlines.discard(owner)
            self._can_go_on.pop(handshake, None)

    def go_on(self, handshake: _Handshake) -> None:
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

    def _step(self, handshake: _Handshake) -> None:
        owner = handshake.owner
        if handshake.side is None:
            if not _has_input(handshake.sock):
                return
            # Not before the client's first byte: of those that connect and say nothing there may be many.
            tls = self.certificates.wrap(self._bios)
            handshake.side = TlsSide(handshake.sock, owner, self._relay, self._bios, tls)
        try:
            is_complete = handshake.side.shake_hands()
        except OSError:
            self.discard(owner)
            handshake.side.detach()
            owner.handshake_failed()
            return
        if is_complete:
            self.discard(owner)
            owner.secured(handshake.side)

    def _time_out(self, owner: Owner) -> None:
        self.discard(owner)
        owner.handshake_timed_out()


class _Handshake:
    """The handler of a socket while its handshake is under way."""

    __slots__ = ("_handshakes", "owner", "side", "sock")

    def __init__(self, handshakes: Handshakes, owner: Owner, sock: socket.socket) -> None:
        self._handshakes = handshakes
        self.owner = owner
        self.sock = sock
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
