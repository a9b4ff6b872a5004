"""Fault links for tests without an event loop: the same links, in a thread with a loop of its own.

::

    with running_links() as links:
        link = links.tcp("127.0.0.1", server.port)
        with link.during(Blackhole(direction=DOWN)):
            ...
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar

from testkit.faults.journal import Journal
from testkit.faults.link import FaultLink
from testkit.faults.link_udp import DatagramFaultLink
from testkit.faults.vocabulary import Fault

_TIMEOUT_S = 30.0
T = TypeVar("T")


class BlockingLink:
    """A link that runs in another thread; what is asked of it is done when the call returns."""

    def __init__(self, links: BlockingLinks, link: FaultLink | DatagramFaultLink) -> None:
        self._links = links
        self._link = link
        self.host, self.port, self.name = link.host, link.port, link.name

    @property
    def journal(self) -> Journal:
        return self._link.journal

    @property
    def lost(self) -> int:
        """Datagrams that were lost so far, either way."""
        assert isinstance(self._link, DatagramFaultLink)
        return self._link.up.lost + self._link.down.lost

    def inject(self, fault: Fault) -> int:
        """Put a fault in force; return its number, for `recover`.

        Raises:
            UnavailableError: the link cannot do that.
        """
        return self._links.run(self._link.inject(fault))

    def recover(self, number: int) -> None:
        """End a fault; returns when that has taken effect."""
        self._links.run(self._link.recover(number))

    @contextmanager
    def during(self, *faults: Fault) -> Iterator[None]:
        """Have faults in force while the block runs."""
        numbers = [self.inject(fault) for fault in faults]
        try:
            yield
        finally:
            for number in reversed(numbers):
                self.recover(number)


class BlockingLinks:
    """Opens links; all that it opened are closed together."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        self._loop = loop
        self._opened = AsyncExitStack()
        self._count = 0
        self.seed = seed
        self.journal = Journal(seed, loop.time)

    def tcp(self, host: str, port: int, *, name: str = "", listen: str = "127.0.0.1") -> BlockingLink:
        """Open a link in front of a TCP port, on an address of this machine."""
        seed, name = self._next_seed(), self._name(name)
        return self._open(FaultLink(host, port, seed=seed, host=listen, name=name, journal=self.journal))

    def udp(self, host: str, port: int, *, name: str = "") -> BlockingLink:
        """Open a link in front of a UDP port."""
        link = DatagramFaultLink(
            host, port, seed=self._next_seed(), name=self._name(name), journal=self.journal
        )
        return self._open(link)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the thread of the links do something; return what comes of it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    async def close(self) -> None:
        await self._opened.aclose()

    def _open(self, link: FaultLink | DatagramFaultLink) -> BlockingLink:
        async def enter() -> None:
            await self._opened.enter_async_context(link)

        self.run(enter())
        return BlockingLink(self, link)

    def _name(self, name: str) -> str:
        return name or f"link {self._count}"

    def _next_seed(self) -> int:
        self._count += 1
        return self.seed + self._count


@contextmanager
def running_links(seed: int = 0) -> Iterator[BlockingLinks]:
    """Start the thread; end it, and close all links, when the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fault links", daemon=True)
    thread.start()
    links = BlockingLinks(loop, seed)
    try:
        yield links
    finally:
        links.run(links.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
