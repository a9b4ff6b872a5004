"""Which of a worker's connections are the oldest, or moved most, found without holding up the others.

There may be a hundred thousand, and looking at each takes a tenth of a second that clients would feel. So
some are looked at in each turn of the loop, and only the best of those seen are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeproxy.core.wire.frames import ListConnections, OpenConnection, OpenConnections, first_of
from edgeproxy.worker.connection import Connection
from edgeproxy.worker.loop import Loop

LOOKS_PER_TURN = 500


class Census:
    """One question, answered by ``answer`` some turns later."""

    def __init__(
        self,
        loop: Loop,
        connections: Sequence[Connection],
        question: ListConnections,
        answer: Callable[[OpenConnections], None],
    ) -> None:
        self._loop = loop
        self._connections = connections
        self._question = question
        self._answer = answer
        self._seen = 0
        self._found: list[OpenConnection] = []
        loop.again(self)

    def resume(self) -> None:
        """Look at some more (:class:`~edgeproxy.worker.loop.Resumable`)."""
        some = self._connections[self._seen : self._seen + LOOKS_PER_TURN]
        self._seen += len(some)
        # Those that have ended meanwhile have nothing to tell.
        seen = [each for each in (connection.describe() for connection in some) if each is not None]
        self._found = first_of([*self._found, *seen], self._question.count, self._question.order)
        if self._seen < len(self._connections):
            self._loop.again(self)
        else:
            self._answer(OpenConnections(self._question.number, tuple(self._found)))
