"""A part of ``./dev soak``: connections that the kernel relays, all of them open at the same time.

Each is promoted while bytes come from both sides. Then there are bursts, for readers that read nothing before
they have sent all, and talk again. Everything comes back from the backend, and is compared.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.machine import raise_descriptor_limit
from bench.peers import ROWS, Stage, refusal_of_kernel
from bench.soak import Account, Streams, at_rest, differences_when_told, leaks, stats_of

_TURNS: Final = 4
"""Promoted so early, every connection is in the middle of its talk."""
_MESSAGES: Final = 24
_UNDER_WAY: Final = 4
_SIZES: Final = (1, 20, 300, 2_000)
_BURST_BYTES: Final = 192 << 10
_BURSTS_AT_ONCE: Final = 200
_CONNECTS_AT_ONCE: Final = 200
_CLIENT_ADDRESSES: Final = 250
_SPARE_DESCRIPTORS: Final = 200


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes until it ends."""
    with suppress(OSError):
        while data := await reader.read(64 << 10):
            writer.write(data)
            await writer.drain()
    writer.close()


class Talker:
    """One client, who knows what should come back."""

    def __init__(self, streams: Streams, account: Account, seed: int) -> None:
        self._streams = streams
        self._account = account
        self._random = Random(seed)
        self._sent = hashlib.blake2b()
        self._heard = hashlib.blake2b()

    async def _say(self, size: int) -> None:
        data = self._random.randbytes(size)
        self._sent.update(data)
        await self._account.send(self._streams, data)

    async def _hear(self, size: int) -> None:
        self._heard.update(await self._streams[0].readexactly(size))
        self._account.received_bytes += size

    async def talk(self) -> None:
        """Say much in small pieces, with some of them under way at any time."""
        sizes = [self._random.choice(_SIZES) for _ in range(_MESSAGES)]
        for size in sizes[:_UNDER_WAY]:
            await self._say(size)
        for heard, said in zip(sizes, sizes[_UNDER_WAY:], strict=False):
            await self._hear(heard)
            await self._say(said)
        for heard in sizes[-_UNDER_WAY:]:
            await self._hear(heard)

    async def burst(self) -> None:
        """Say all of it before anything is heard."""
        for _ in range(4):
            await self._say(_BURST_BYTES // 4)
        await asyncio.sleep(self._random.random())  # a slow reader
        await self._hear(_BURST_BYTES)

    async def leave(self) -> bool:
        """End, wait for the backend's end; tell whether everything came back."""
        self._streams[1].write_eof()
        rest = await self._streams[0].read()
        self._streams[1].close()
        self._account.endings["complete"] += 1
        return not rest and self._heard.digest() == self._sent.digest()


def soak_talks(stage: Stage, connections: int, tell: Callable[[str], None]) -> list[str]:
    """Have so many connections relayed by the kernel; return what is wrong, which should be nothing."""
    return asyncio.run(_soak(stage, connections, tell))


async def _soak(stage: Stage, connections: int, tell: Callable[[str], None]) -> list[str]:
    descriptors = raise_descriptor_limit()
    if connections > descriptors - _SPARE_DESCRIPTORS:
        connections = descriptors - _SPARE_DESCRIPTORS
        tell(f"only {connections:,} talks: a process may open {descriptors:,} files (ulimit -Hn)")
    backend = stage.spawn(
        [sys.executable, "-m", "bench.talks"], {"PYTHONPATH": str(Path(__file__).parents[1])}, "the backend"
    )
    port = int((await asyncio.to_thread(backend.wait_output, r"port (\d+)", timeout_s=30))[1])
    admin = stage.folder / "talks.sock"
    settings = {"admin_socket": str(admin), "relay": "kernel", "relay_kernel_turns": str(_TURNS)}
    target = stage.launch(stage.database(ROWS, port), settings=settings)
    account = Account()
    if (why := refusal_of_kernel(target.process.log)) is not None:
        tell(f"no connections for the kernel to relay: {why}")
        await asyncio.to_thread(stage.stop, target)
        return []
    began_s = time.monotonic()
    found, about = await _hold(target.port, connections, account, admin)
    # An allocator keeps what so many took at once; what is left of some more is a leak.
    before = await asyncio.to_thread(at_rest, target, admin, account)
    more = -(-connections // 4)
    found += (await _hold(target.port, more, account, admin))[0]
    found += await asyncio.to_thread(differences_when_told, admin, account)
    after = await asyncio.to_thread(at_rest, target, admin, account, before)
    found += leaks(before, after, more)
    tell(f"{connections:,} talks, and {more:,} more, in {time.monotonic() - began_s:.0f} s: {about}")
    await asyncio.to_thread(stage.stop, target)
    return found


async def _hold(port: int, connections: int, account: Account, admin: Path) -> tuple[list[str], str]:
    before = await _kernel_stats(admin)
    free_mib = _available_mib()
    connecting, bursting = asyncio.Semaphore(_CONNECTS_AT_ONCE), asyncio.Semaphore(_BURSTS_AT_ONCE)

    async def come(number: int) -> Talker:
        async with connecting:
            streams = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(f"127.1.0.{1 + number % _CLIENT_ADDRESSES}", 0)
            )
            talker = Talker(streams, account, number)
            await talker.talk()
            return talker

    async def burst(talker: Talker) -> None:
        async with bursting:
            await talker.burst()
            await talker.talk()

    talkers = await asyncio.gather(*map(come, range(connections)))
    least_mib = _available_mib()
    await asyncio.gather(*map(burst, talkers))
    least_mib = min(least_mib, _available_mib())
    now = await _kernel_stats(admin)
    while now["connections"] < connections and now["promotions"] < before["promotions"] + connections:
        # Reports come some times a second; who was not at rest in the middle of talk is, now and then.
        await asyncio.sleep(0.3)
        await asyncio.gather(*(talker.talk() for talker in talkers))
        now = await _kernel_stats(admin)
    whole = await asyncio.gather(*(talker.leave() for talker in talkers))
    found = [] if all(whole) else [f"{whole.count(False)} talks came back otherwise than they were said"]
    promoted = now["promotions"] - before["promotions"]
    return found, (
        f"{promoted:,} promoted, {now['connections']:,} at the same time; with all of them open "
        f"{free_mib - least_mib} MiB less was available"
    )


async def _kernel_stats(admin: Path) -> dict[str, Any]:
    stats: dict[str, Any] = (await asyncio.to_thread(stats_of, admin))["kernel_relay"]
    return stats


def _available_mib() -> int:
    found = re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) >> 10


async def _serve() -> None:
    """Be the backend: a process of its own, since each has only so many descriptors."""
    raise_descriptor_limit()
    server = await asyncio.start_server(echo, "0.0.0.0", 0, backlog=4096)
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
