"""The same traffic counted twice: by the clients, and by the proxy. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Pair(NamedTuple):
    """Clients of one country on one backend: what a row of figures is about."""

    country: str
    backend: str


@dataclass(slots=True)
class Figures:
    """What went between the clients of one country and one backend, in connections that have ended."""

    connections: int = 0
    bytes_up: int = 0
    """From the clients to the backend."""
    bytes_down: int = 0
    """From the backend to the clients."""

    def __iter__(self) -> Iterator[int]:
        return iter((self.connections, self.bytes_up, self.bytes_down))

    def add(self, other: Figures) -> None:
        self.connections += other.connections
        self.bytes_up += other.bytes_up
        self.bytes_down += other.bytes_down


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of the summary."""

    pair: Pair
    clients: Figures
    proxy: Figures

    @property
    def agrees(self) -> bool:
        return self.clients == self.proxy


def ended_by_proxy(stats: Mapping[str, Any]) -> dict[Pair, Figures]:
    """Return what the proxy's admin socket says in answer to ``stats``."""
    return {
        Pair(row["country"], row["backend"]): Figures(
            row["opened"] - row["active"], row["bytes_received"], row["bytes_sent"]
        )
        for row in stats["traffic"]
    }


def compare(clients: Mapping[Pair, Figures], proxy: Mapping[Pair, Figures]) -> list[Comparison]:
    """Put the two counts side by side; a row that one of them lacks counts as zeros."""
    return [
        Comparison(pair, clients.get(pair, Figures()), proxy.get(pair, Figures()))
        for pair in sorted(clients.keys() | proxy.keys())
    ]


def total(rows: Sequence[Comparison]) -> Comparison:
    """Add all rows up."""
    clients, proxy = Figures(), Figures()
    for row in rows:
        clients.add(row.clients)
        proxy.add(row.proxy)
    return Comparison(Pair("", "all"), clients, proxy)
