"""What fault links have in common that stand in front of a port."""

from __future__ import annotations

import asyncio
from typing import TypedDict, Unpack

from testkit.faults.in_force import FaultsInForce
from testkit.faults.injection import FaultyLink
from testkit.faults.journal import Journal


class LinkOptions(TypedDict, total=False):
    """What may be said of such a link."""

    seed: int
    """Of its draws; 0 by default."""
    host: str
    """Where it listens; 127.0.0.1 by default."""
    name: str
    """In its journal; "link" by default."""
    journal: Journal
    """That of several links; by default it has one of its own."""


class PortLink(FaultyLink):
    """Listens on a port of its own and relays to ``upstream``."""

    def __init__(self, upstream_host: str, upstream_port: int, **options: Unpack[LinkOptions]) -> None:
        self.host = options.get("host", "127.0.0.1")
        self.port = 0
        """Known once it is open; stays the same through all faults."""
        self.name = options.get("name", "link")
        self.upstream = (upstream_host, upstream_port)
        self.in_force = FaultsInForce(options.get("seed", 0))
        self._journal = options.get("journal")

    @property
    def journal(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(self.in_force.seed, asyncio.get_running_loop().time)
        return self._journal
