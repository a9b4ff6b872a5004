"""Keeps connections with backends ready (:mod:`edgeproxy.core.dataplane.warm`) in one worker.

They are made between the turns of clients, watched like any socket, and dropped when the backend ends them,
when its row or its state changes, when descriptors run out, and at the worker's end. Before one is handed
out the kernel is asked whether it still stands, since news of its end may be waiting in the loop.

A limited backend is never given more connections than its ``hard_limit``, warm ones counted. A client that
is given a place which a warm connection takes up in another worker waits with its connect until that has
been closed: a few milliseconds, and at most :data:`YIELD_TIMEOUT_S`.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable, Iterable
from math import inf
from typing import Protocol

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.warm import Stock, WarmTerms
from edgeproxy.core.model import Backend
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.targets import Targets
from edgeproxy.worker.warm_counts import LOOK_INTERVAL_S, WarmCounts

YIELD_TIMEOUT_S = 0.25
"""How long a client waits for others to close what is too much: one that hangs must not stop it."""

SHORTAGE_S = 10.0
"""How long after descriptors ran out nothing is made ready. Otherwise each client that is taken in would cost
several, and the next one would find none."""

_ESTABLISHED = 1
_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_ENDED = select.EPOLLRDHUP | select.EPOLLERR | select.EPOLLHUP


class Client(Protocol):
    """Who waits until there is room for its connect."""

    def connect_now(self) -> None: ...


class _Warm:
    """One connection, under way or ready."""

    __slots__ = ("_keeper", "address", "sock", "stock")

    def __init__(self, sock: socket.socket, address: object, stock: Stock[_Warm], keeper: WarmKeeper) -> None:
        self.sock = sock
        self.address = address
        self.stock = stock
        self._keeper = keeper

    def ready(self, events: int) -> None:
        if events & _ENDED:
            self._keeper.ended(self)
        elif events & select.EPOLLOUT and self in self.stock.under_way:
            self._keeper.established(self)


class WarmKeeper:
    """All warm connections of one worker."""

    def __init__(
        self,
        loop: Loop,
        terms: WarmTerms,
        targets: Targets,
        counts: WarmCounts,
        placed: Callable[[int], PlacedBackend | None],
        connect_timeout_s: float,
        on_defect: Callable[[object, Exception], None],
    ) -> None:
        """``placed`` gives the row of a slot at present; ``on_defect`` gets a client and what it raised."""
        self._loop = loop
        self._terms = terms
        self._targets = targets
        self._counts = counts
        self._placed = placed
        self._on_defect = on_defect
        self._stocks: dict[int, Stock[_Warm]] = {}
        self._wanted: dict[int, None] = {}
        self._yielding: dict[Client, tuple[int, int, float]] = {}
        self._is_closed = False
        self._is_looking = False
        self._resumes_s = -inf
        """Until then there are too few descriptors."""
        self._asked_seen = counts.times_asked()
        self._connects = loop.deadlines(connect_timeout_s, self._connect_timed_out)
        self._lifetimes = loop.deadlines(terms.lifetime_s, self._grown_old)
        self._idles = loop.deadlines(terms.idle_s, self._unused)
        self._looks = loop.deadlines(LOOK_INTERVAL_S, WarmKeeper._look)

    def change_terms(self, terms: WarmTerms, connect_timeout_s: float) -> None:
        """Go by these from now on."""
        self._terms = terms
        self._connects.duration_s = connect_timeout_s
        self._lifetimes.duration_s = terms.lifetime_s
        self._idles.duration_s = terms.idle_s
        for stock in self._stocks.values():
            while len(stock) > terms.per_worker:
                self._drop_one(stock)

    # ---- for clients -------------------------------------------------------------------------

    def take(self, slot: int, backend: Backend) -> socket.socket | None:
        """A connection with the backend of ``slot``, registered with the loop; ``None`` when there is none.

        More are made ready for those who come after.
        """
        if self._is_closed:
            return None
        stock = self._stocks.get(slot)
        if stock is None:
            stock = self._stocks[slot] = Stock(slot, backend)
            self._keep_looking()
        self._idles.add(stock, self._loop.now_s)
        self._wanted[slot] = None
        self._loop.again(self)
        while (warm := stock.take()) is not None:
            self._lifetimes.discard(warm)
            self._counts.release(slot)
            if _stands(warm.sock):
                return warm.sock  # feature: connecting.warm
            self._loop.close(warm.sock)
        return None

    def must_yield(self, client: Client, slot: int, hard_limit: int) -> bool:
        """Whether ``client``, who has been given a place, must wait until there is room for its connection;
        it is told when there is."""
        if self._is_closed or not self._make_room(slot, hard_limit):
            return False
        self._counts.ask_for_room()
        self._yielding[client] = slot, hard_limit, self._loop.now_s + YIELD_TIMEOUT_S
        self._keep_looking()
        return True

    def discard(self, client: Client) -> None:
        """``client`` waits for room no more."""
        self._yielding.pop(client, None)

    # ---- what changes around them ------------------------------------------------------------

    def follow(self, placed: PlacedBackend) -> None:
        """The row of a slot, or the verdict on it, has changed."""
        stock = self._stocks.get(placed.slot)
        if stock is None:
            return
        if stock.suits(placed.backend, placed.verdict):
            stock.backend = placed.backend
            self._keep_looking()
            self._make_room(placed.slot, placed.backend.hard_limit)
        else:
            self.drop(placed.slot)

    def resolved(self, host: str, addresses: Iterable[str]) -> None:
        """``host`` means these addresses from now on."""
        current = frozenset(addresses)
        for stock in self._stocks.values():
            if stock.backend.host == host:
                for warm in [*stock.ready, *stock.under_way]:
                    if warm.address not in current:
                        self._close(warm)

    def drop(self, slot: int) -> None:
        """Keep nothing for the backend of ``slot``, until it is given a client again."""
        stock = self._stocks.pop(slot, None)
        if stock is not None:
            self._idles.discard(stock)
            while len(stock):
                self._drop_one(stock)

    def give_way(self) -> None:
        """Keep nothing for anybody, and make nothing ready for a while: clients need the descriptors."""
        self._resumes_s = self._loop.now_s + SHORTAGE_S
        self._drop_all()

    def close(self) -> None:
        """Keep nothing any more."""
        self._is_closed = True
        self._drop_all()

    def _drop_all(self) -> None:
        for slot in tuple(self._stocks):
            self.drop(slot)

    # ---- their lives -------------------------------------------------------------------------

    def resume(self) -> None:
        """Make ready what is missing, now that the clients of this turn are served."""
        wanted, self._wanted = self._wanted, {}
        for slot in wanted:
            if (stock := self._stocks.get(slot)) is not None:
                self._fill(stock)

    def established(self, warm: _Warm) -> None:
        """The connect has succeeded."""
        self._connects.discard(warm)
        del warm.stock.under_way[warm]
        warm.stock.ready[warm] = None
        self._lifetimes.add(warm, self._loop.now_s)

    def ended(self, warm: _Warm) -> None:
        """The connect has failed, or the backend has ended the connection."""
        if warm in warm.stock.under_way:
            warm.stock.failed(self._loop.now_s)
        self._close(warm)

    def _connect_timed_out(self, warm: _Warm) -> None:
        warm.stock.failed(self._loop.now_s)
        self._close(warm)

    def _grown_old(self, warm: _Warm) -> None:
        self._close(warm)
        self._fill(warm.stock)

    def _unused(self, stock: Stock[_Warm]) -> None:
        self.drop(stock.slot)

    def _fill(self, stock: Stock[_Warm]) -> None:
        placed = self._placed(stock.slot)
        # In panic, or on trial, clients are sent where nothing is made ready.
        if placed is None or not stock.suits(placed.backend, placed.verdict):
            return
        if self._loop.now_s < self._resumes_s:
            return
        backend = placed.backend
        for _ in range(stock.missing(self._terms, self._loop.now_s)):
            if not self._counts.acquire(stock.slot, self._terms.max_per_backend, backend.hard_limit):
                return
            if not self._open(stock):
                self._counts.release(stock.slot)
                stock.failed(self._loop.now_s)
                return

    def _open(self, stock: Stock[_Warm]) -> bool:
        target = self._targets.of(stock.backend)
        if target is None:
            return False
        family, address = target
        try:
            sock = socket.socket(family, _STREAM)
        except OSError:
            return False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sock.connect_ex(address) not in (0, errno.EINPROGRESS):
            sock.close()
            return False
        warm = _Warm(sock, address[0], stock, self)
        stock.under_way[warm] = None
        self._loop.register(sock, warm)
        self._connects.add(warm, self._loop.now_s)
        return True

    def _drop_one(self, stock: Stock[_Warm]) -> None:
        warm = stock.dispensable()
        assert warm is not None
        self._close(warm)

    def _close(self, warm: _Warm) -> None:
        self._connects.discard(warm)
        self._lifetimes.discard(warm)
        warm.stock.remove(warm)
        with contextlib.suppress(OSError):
            # The loop closes it when the turn is over, and others may take its place now.
            warm.sock.shutdown(socket.SHUT_RDWR)
        self._loop.close(warm.sock)
        self._counts.release(warm.stock.slot)

    # ---- room --------------------------------------------------------------------------------

    def _make_room(self, slot: int, hard_limit: int) -> bool:
        """Close what is too much here; tell whether there is still too much elsewhere."""
        stock = self._stocks.get(slot)
        while self._counts.is_crowded(slot, hard_limit):
            if not stock:
                return True
            self._drop_one(stock)
        return False

    def _look(self) -> None:
        now_s = self._loop.now_s
        asked = self._counts.times_asked()
        if asked != self._asked_seen:
            self._asked_seen = asked
            for stock in self._stocks.values():
                self._make_room(stock.slot, stock.backend.hard_limit)
        for client, (slot, hard_limit, until_s) in tuple(self._yielding.items()):
            if now_s >= until_s or not self._counts.is_crowded(slot, hard_limit):
                del self._yielding[client]
                try:
                    client.connect_now()
                except Exception as error:  # noqa: BLE001
                    self._on_defect(client, error)
        self._is_looking = False
        self._keep_looking()

    def _keep_looking(self) -> None:
        """Go on while there is anything to look for, which among backends without limits there is not."""
        if self._is_looking:
            return
        if self._yielding or any(stock.backend.hard_limit for stock in self._stocks.values()):
            self._is_looking = True
            self._looks.add(self, self._loop.now_s)


def _stands(sock: socket.socket) -> bool:
    """Whether neither side has ended the connection, as far as the kernel knows."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED
