"""Whom to connect to, and when: one connection for each pair of members, again and again until it stands.

Either end may dial, so that a member that was restarted need not wait until the others miss it. The one
whose name is the smaller does so at once, the other only when that has not led to anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Generic, TypeVar

import msgspec

A = TypeVar("A")

GRACE_S: Final = 1.0
"""How long the member with the greater name waits to be dialled."""
FIRST_DELAY_S: Final = 0.2
LASTED_S: Final = 10.0
"""A connection that ends sooner counts as an attempt that failed: something is wrong with one of the two."""
MAX_DELAY_S: Final = 15.0
"""Between two attempts. Each is shortened by up to half, lest all members dial one in step."""


class _Wanted(msgspec.Struct, Generic[A]):
    address: A
    due_s: float | None
    """``None`` while it is connected, or being dialled."""
    failures: int = 0
    connected_s: float | None = None


class Dialling(Generic[A]):
    """Whom this node dials. ``now_s`` is a clock that nobody sets, a draw is from 0 to 1."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._wanted: dict[str, _Wanted[A]] = {}

    def want(self, members: Mapping[str, A], now_s: float) -> None:
        """Be connected to exactly these from now on. One with another address is dialled anew."""
        self._wanted = {
            node: known
            if (known := self._wanted.get(node)) is not None and known.address == address
            else _Wanted(address, self._first_s(node, now_s))
            for node, address in members.items()
            if node != self._node
        }

    def due(self, now_s: float) -> Iterable[tuple[str, A]]:
        """Whom to dial now; each is then being dialled until :meth:`failed` or :meth:`connected`."""
        found = []
        for node, wanted in self._wanted.items():
            if wanted.due_s is not None and wanted.due_s <= now_s:
                wanted.due_s = None
                found.append((node, wanted.address))
        return found

    def next_s(self) -> float | None:
        """When somebody is due next."""
        return min((each.due_s for each in self._wanted.values() if each.due_s is not None), default=None)

    def connected(self, node: str, now_s: float) -> None:
        """It has proven itself, whoever dialled."""
        if (wanted := self._wanted.get(node)) is not None:
            wanted.due_s = None
            wanted.connected_s = now_s if wanted.connected_s is None else wanted.connected_s

    def lost(self, node: str, now_s: float, draw: float) -> None:
        """The connection has ended."""
        if (wanted := self._wanted.get(node)) is None:
            return
        since_s, wanted.connected_s = wanted.connected_s, None
        if since_s is not None and now_s - since_s >= LASTED_S:
            wanted.due_s, wanted.failures = self._first_s(node, now_s), 0
        else:
            self.failed(node, now_s, draw)

    def failed(self, node: str, now_s: float, draw: float) -> None:
        """An attempt came to nothing."""
        if (wanted := self._wanted.get(node)) is not None:
            delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(wanted.failures, 16))
            wanted.failures += 1
            wanted.due_s = now_s + delay_s * (1 - draw / 2)

    def hurry(self, node: str, now_s: float) -> None:
        """Dial it as if for the first time: there is news that it can be reached."""
        if (wanted := self._wanted.get(node)) is not None and wanted.due_s is not None:
            wanted.due_s, wanted.failures = self._first_s(node, now_s), 0

    def _first_s(self, node: str, now_s: float) -> float:
        return now_s if self._node < node else now_s + GRACE_S


def survivor(mine: str, theirs: str) -> str:
    """Which of two members' connection stays when both have dialled at once."""
    return min(mine, theirs)
