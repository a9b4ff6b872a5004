"""What one client may ask: questions of a reasonable size, evenly, and a second's worth at once.

The limit keeps one client from taking the control process's time from all others, and makes the server
useless to those who write somebody else's address into their questions. So a datagram too many is
answered by at most an equally long "ask again over TCP", which a forged address cannot do, and every
other one not at all. Over TCP nobody can pretend to be somebody else: there the client has to wait.

For each client one time is kept, that at which it will have used up nothing of its allowance (the generic
cell rate algorithm): no counter is refilled, nothing is rounded away.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

MAX_QUERY_BYTES: Final = 1232
"""A query is a name and a few options. What is longer costs more to read than it is worth."""

MAX_CLIENTS: Final = 65_536
_BURST_S: Final = 1.0
_ROUNDING_S: Final = 1e-9


class Verdict(Enum):
    """What to do with a question."""

    ANSWER = "answered"
    TRUNCATE = "truncated"
    DROP = "dropped"


class QueryLimit:
    """The limit of one transport. Clients are networks as affinity counts them (/32 or /64).

    Memory is bounded: among more clients than :data:`MAX_CLIENTS` at once, the one known longest is
    taken for new again.
    """

    def __init__(self, per_second: int, max_clients: int = MAX_CLIENTS) -> None:
        """``per_second`` 0 is no limit."""
        self._period_s = 1 / per_second if per_second else 0.0
        self._max_clients = max_clients
        self._free_at_s: dict[int, float] = {}
        self._refused = 0

    def judge(self, client: int, now_s: float) -> Verdict:
        """Count one datagram of ``client``; those that are refused cost it nothing."""
        if not self._period_s:
            return Verdict.ANSWER
        free_at_s = max(self._free_at_s.get(client, now_s), now_s)
        if free_at_s - now_s > _BURST_S - self._period_s + _ROUNDING_S:
            self._refused += 1
            return Verdict.TRUNCATE if self._refused % 2 else Verdict.DROP
        self._store(client, free_at_s + self._period_s, now_s)
        return Verdict.ANSWER

    def delay_s(self, client: int, now_s: float) -> float:
        """Count one question of ``client`` on a stream; return how long its answer has to wait."""
        if not self._period_s:
            return 0.0
        free_at_s = max(self._free_at_s.get(client, now_s), now_s)
        self._store(client, free_at_s + self._period_s, now_s)
        return max(0.0, free_at_s - now_s - (_BURST_S - self._period_s))

    def _store(self, client: int, free_at_s: float, now_s: float) -> None:
        if client not in self._free_at_s and len(self._free_at_s) >= self._max_clients:
            self._forget(now_s)
        self._free_at_s[client] = free_at_s

    def _forget(self, now_s: float) -> None:
        """Make room: those whose allowance is whole are as good as unknown."""
        self._free_at_s = {client: at_s for client, at_s in self._free_at_s.items() if at_s > now_s}
        if len(self._free_at_s) >= self._max_clients:
            del self._free_at_s[next(iter(self._free_at_s))]
