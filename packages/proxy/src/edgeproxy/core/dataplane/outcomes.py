"""How connections with backends went, in their order, as far as circuits must know.

A worker notes outcomes and hands them over with its reports. Order matters, for it is failures *in a row*
that eject a backend. What a report holds is bounded: of one backend only the last outcomes are kept, which
between two reports is more than can come in before a failure is reported.
"""

from __future__ import annotations

from enum import StrEnum

MAX_OUTCOMES = 64
"""Kept of one backend between two reports."""


class Outcome(StrEnum):
    """One letter each, so that a row of them is a short text."""

    CONNECTED = "c"
    SERVED = "s"
    """A connection ended over which the backend had sent something."""
    CONNECT_FAILED = "f"
    """Refused, timed out, or there is no way there."""
    DROPPED = "d"
    """The backend reset a connection over which it had sent nothing."""


class Outcomes:
    """What one worker saw since its last report."""

    def __init__(self) -> None:
        self._rows: dict[str, str] = {}

    def add(self, backend: str, outcome: Outcome) -> None:
        self._rows[backend] = (self._rows.get(backend, "") + outcome.value)[-MAX_OUTCOMES:]

    def take(self) -> dict[str, str]:
        """Rows of outcomes by backend id, the oldest first; what is taken is forgotten here."""
        rows, self._rows = self._rows, {}
        return rows
