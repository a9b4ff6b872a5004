"""What all clusters have in common, whatever they run on."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from testkit.cluster.logs import complaints
from testkit.cluster.topology import Topology, link_name
from testkit.faults.exchange import Outcome, exchange
from testkit.faults.journal import Journal
from testkit.faults.scenario import Scenario, run
from testkit.faults.vocabulary import Fault, LinkFault

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Faulty(Protocol):
    """A link or a node."""

    def unavailable(self, fault: Fault) -> str | None: ...

    async def inject(self, fault: Fault) -> int: ...

    async def recover(self, number: int) -> None: ...


class Cluster(ABC):
    """A running topology; enter it to start it."""

    def __init__(
        self,
        topology: Topology,
        *,
        seed: int = 0,
        artefacts: Path | None = None,
        allowed_errors: Iterable[str] = (),
    ) -> None:
        """``artefacts``: where to keep what is known when the block fails; ``allowed_errors``: patterns."""
        self.topology = topology
        self.seed = seed
        self.journal: Journal
        self.members: dict[str, Faulty] = {}
        """Links, as ``source>target``, and nodes that have a program."""
        self._artefacts = artefacts
        self._allowed = tuple(allowed_errors)
        self._ending = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.journal = Journal(self.seed, asyncio.get_running_loop().time)
        try:
            await self.start()
            for source, target in self.topology.links:
                if (latency := self.topology.latency(source, target)) is not None:
                    await self.inject(link_name(source, target), latency)
        except BaseException:
            self._keep()
            await self._ending.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        found = [] if error is not None else complaints(self.logs(), self._allowed)
        if error is not None or found:
            self._keep()
        await self._ending.aclose()
        if found:
            raise AssertionError("errors in the logs that nobody allowed:\n" + "\n".join(found))

    @abstractmethod
    async def start(self) -> None:
        """Fill ``members``; what must end goes to ``_ending``."""

    @abstractmethod
    async def connect(self, link: str) -> Streams:
        """Connect over a link, as its source.

        Raises:
            OSError: nobody took the connection.
        """

    @abstractmethod
    def logs(self) -> dict[str, str]:
        """What each node has written so far."""

    # ---- as a substrate of scenarios -----------------------------------------------------------------

    def unavailable(self, on: str, fault: Fault) -> str | None:
        """Why there is no such fault on that link or node; None when there is.

        Raises:
            KeyError: nothing has that name.
        """
        return self.members[on].unavailable(fault)

    async def inject(self, on: str, fault: Fault) -> int:
        """Put a fault in force; return its number there.

        Raises:
            UnavailableError: this substrate cannot do that.
            KeyError: nothing has that name.
        """
        return await self.members[on].inject(fault)

    async def recover(self, on: str, number: int) -> None:
        """End a fault; return when that has taken effect."""
        await self.members[on].recover(number)

    async def look(self, link: str, patience_s: float = 10.0) -> Outcome:
        """Ask the node at the end of a link, which must be an echo."""
        return await exchange(lambda: self.connect(link), patience_s=patience_s)

    async def run(self, scenario: Scenario) -> Journal:
        """Do the steps of a scenario; the journal has what was observed.

        Raises:
            UnavailableError: this substrate lacks a fault; nothing was done.
        """
        return await run(scenario, self)

    def links_between(self, one: Iterable[str], other: Iterable[str]) -> list[str]:
        """The links that a partition of these two groups of nodes concerns, either way."""
        here, there = set(one), set(other)
        return [
            link_name(source, target)
            for source, target in self.topology.links
            if (source in here and target in there) or (source in there and target in here)
        ]

    async def part(self, one: Iterable[str], other: Iterable[str], fault: LinkFault) -> list[tuple[str, int]]:
        """Put a fault on all links between two groups; give what comes back to `mend`."""
        return [(link, await self.inject(link, fault)) for link in self.links_between(one, other)]

    async def mend(self, parted: Iterable[tuple[str, int]]) -> None:
        """End what `part` did."""
        for link, number in parted:
            await self.recover(link, number)

    def _keep(self) -> None:
        if self._artefacts is None:
            return
        self._artefacts.mkdir(parents=True, exist_ok=True)
        self.journal.write(self._artefacts / "journal.jsonl")
        (self._artefacts / "topology.txt").write_text(f"{self.topology}\n")
        for name, log in self.logs().items():
            (self._artefacts / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.log").write_text(log)
