"""One moment of the demo, made from what the proxy's admin socket says. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

PLACES: Final = ("same country", "same region", "POP's region", "elsewhere")
"""What the hundreds of a score mean."""


@dataclass(frozen=True, slots=True)
class Row:
    """Clients of one country on one backend."""

    country: str
    backend: str
    score: float
    """Mean of the scores at which the backend was chosen."""
    connections: int
    open: int
    transferred_bytes: int
    """Both ways, in connections that have ended."""

    @property
    def place(self) -> str:
        return PLACES[min(int(self.score // 100), 3)]


@dataclass(frozen=True, slots=True)
class Backend:
    backend: str
    open: int
    is_killed: bool


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for the lines below the table."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class View:
    """What there is to see at one moment."""

    elapsed_s: float
    duration_s: float
    rows: Sequence[Row]
    backends: Sequence[Backend]
    events: Sequence[Event]


def view(
    stats: Mapping[str, Any], elapsed_s: float, duration_s: float, killed: str | None, events: Sequence[Event]
) -> View:
    """Make a view of the answer to ``stats``; every figure in it is the proxy's."""
    rows = [
        Row(
            traffic["country"],
            traffic["backend"],
            traffic["score_mean"],
            traffic["opened"],
            traffic["active"],
            traffic["bytes_received"] + traffic["bytes_sent"],
        )
        for traffic in stats["traffic"]
    ]
    backends = [Backend(name, count, name == killed) for name, count in stats["backends"].items()]
    return View(elapsed_s, duration_s, rows, backends, events)


def moved(
    before: Mapping[str, Any], now: Mapping[str, Any], killed: str
) -> tuple[list[str], list[str]] | None:
    """Where clients of ``killed`` have gone since the answer ``before``: their countries, and the backends.

    ``None`` until all countries that had clients there have new connections elsewhere.
    """
    opened = {(row["country"], row["backend"]): row["opened"] for row in before["traffic"]}
    risen = {
        (row["country"], row["backend"])
        for row in now["traffic"]
        if row["backend"] != killed and row["opened"] > opened.get((row["country"], row["backend"]), 0)
    }
    countries = {country for country, backend in opened if backend == killed}
    if not countries or countries - {country for country, _ in risen}:
        return None
    return sorted(countries), sorted({backend for country, backend in risen if country in countries})
