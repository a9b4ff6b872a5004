"""The simulated clients: real connections through the proxy, each counted by who made it.

What a dying process had been sent and not yet answered is lost, and nobody can say how much of it that
was. So the demo kills a backend *between* requests: :meth:`Crowd.hold` lets every request under way have its
answer and keeps the next ones back, while connections stay open. Those see their end in order, and both
sides can account for every byte.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final

from e2e.demo.figures import Figures, Pair

_REQUEST: Final = b"GET /api/info HTTP/1.1\r\nHost: demo\r\n\r\n"
_BACKEND: Final = re.compile(rb"^x-backend-id: *(\S+)\r$", re.IGNORECASE | re.MULTILINE)
_LENGTH: Final = re.compile(rb"^content-length: *(\d+)\r$", re.IGNORECASE | re.MULTILINE)

_FURTHER_REQUESTS: Final = (1, 5)
_BETWEEN_REQUESTS_S: Final = (0.1, 0.4)
_BETWEEN_VISITS_S: Final = (0.05, 0.4)
_ANSWER_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.005


@dataclass(slots=True, eq=False)
class _Visit:
    """One connection of one client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    backend: str = ""
    """Unknown until the first answer."""
    requests: int = 0
    counted: Figures = field(default_factory=lambda: Figures(connections=1))

    async def ask(self) -> None:
        """Send a request and take its whole answer in."""
        self.writer.write(_REQUEST)
        await self.writer.drain()
        self.counted.bytes_up += len(_REQUEST)
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            backend, length = _BACKEND.search(head), _LENGTH.search(head)
            assert backend is not None, head
            assert length is not None, head
            body = await self.reader.readexactly(int(length[1]))
        self.counted.bytes_down += len(head) + len(body)
        self.requests += 1
        self.backend = backend[1].decode()

    async def pause(self, duration_s: float) -> None:
        """Wait for so long, or until the other side ends the connection."""
        try:
            async with asyncio.timeout(duration_s):
                surplus = await self.reader.read(1)
        except TimeoutError:
            return
        self.counted.bytes_down += len(surplus)

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


class Crowd:
    """Clients that come again and again, each from an address of its own."""

    def __init__(self, host: str, port: int, addresses: Mapping[str, Sequence[str]], rng: Random) -> None:
        """``addresses`` are those of the clients by country."""
        self.seen: defaultdict[Pair, Figures] = defaultdict(Figures)
        """What ended connections carried, as counted by the clients."""
        self.failures: list[str] = []
        """Requests without an answer."""
        self.requests = 0
        """Requests with one."""
        self.opened = 0
        """Connections on which there was an answer."""
        self._host, self._port = host, port
        self._addresses = addresses
        self._rng = rng
        self._may_ask = asyncio.Event()
        self._may_ask.set()
        self._asking = 0
        self._nobody_asks = asyncio.Event()
        self._nobody_asks.set()
        self._open: set[_Visit] = set()
        self._stopping = False

    async def run(self) -> None:
        """Come and go until :meth:`stop`, then return when the last connection is closed."""
        async with asyncio.TaskGroup() as group:
            for country, addresses in self._addresses.items():
                for address in addresses:
                    group.create_task(self._come_again_and_again(country, address))

    def stop(self) -> None:
        """Let everybody finish what they are at and go."""
        self._stopping = True

    def open_on(self, backend: str) -> int:
        """How many connections to ``backend`` are open, as far as the clients know."""
        return sum(visit.backend == backend and not visit.reader.at_eof() for visit in self._open)

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Keep all clients from asking; connections stay open. No answer is outstanding inside."""
        self._may_ask.clear()
        try:
            await self._nobody_asks.wait()
            yield
        finally:
            self._may_ask.set()

    async def wait_ended(self, backend: str) -> None:
        """Return when everybody has seen their connection to ``backend`` end."""
        while self.open_on(backend):  # noqa: ASYNC110  a stream has no event for its end
            await asyncio.sleep(_POLL_S)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """From before a request until its answer is in."""
        await self._may_ask.wait()
        self._asking += 1
        self._nobody_asks.clear()
        try:
            yield
        finally:
            self._asking -= 1
            if not self._asking:
                self._nobody_asks.set()

    async def _come_again_and_again(self, country: str, address: str) -> None:
        while not self._stopping:
            await asyncio.sleep(self._rng.uniform(*_BETWEEN_VISITS_S))
            try:
                await self._visit(country, address)
            except (OSError, EOFError) as error:
                self.failures.append(f"{country} {address}: {error!r}")

    async def _visit(self, country: str, address: str) -> None:
        visit = None
        try:
            async with self._turn():
                streams = await asyncio.open_connection(self._host, self._port, local_addr=(address, 0))
                visit = _Visit(*streams)
                self._open.add(visit)
                await visit.ask()
                self.opened += 1
            for _ in range(self._rng.randint(*_FURTHER_REQUESTS)):
                await visit.pause(self._rng.uniform(*_BETWEEN_REQUESTS_S))
                async with self._turn():
                    if visit.reader.at_eof():
                        break
                    await visit.ask()
        finally:
            if visit is not None:
                self._open.discard(visit)
                await visit.close()
        self.requests += visit.requests
        self.seen[Pair(country, visit.backend)].add(visit.counted)
