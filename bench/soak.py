"""``./dev soak``: connections of every kind through a running proxy, and then nothing may be left of them.

Neither a descriptor nor a lease nor a pipe nor memory, and the proxy's account of bytes and endings must be
that of the clients, to the byte. The backend's part and the clients' are played here.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.machine import descriptors, heap_bytes, raise_descriptor_limit
from bench.peers import ROWS, SERVER_NAME, Stage, Target, stage
from edgeproxy.admin_client import AdminClient
from testkit.wait import wait_until

_CONCURRENT: Final = 200
_CLIENT_ADDRESSES: Final = 250
_SMALL_BYTES: Final = 200
_BULK_BYTES: Final = 2 << 20
_TRICKLES: Final = 10
_HEADER: Final = struct.Struct("!cI")
_KEPT_PIPES: Final = 16
"""Idle pipes that a worker may keep for the next direction that is spliced."""
_GROWTH_BYTES: Final = 4 << 20
_GROWTH_BYTES_PER_CONNECTION: Final = 40
"""Less than the smallest object that could be left behind; the other limit is the allocator's."""

_ACCOUNTS_TIMEOUT_S: Final = 30.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Account:
    """What the clients know of their connections."""

    sent_bytes: int = 0
    received_bytes: int = 0
    endings: Counter[str] = field(default_factory=Counter)

    async def send(self, streams: Streams, data: bytes) -> None:
        streams[1].write(data)
        await streams[1].drain()
        self.sent_bytes += len(data)

    async def receive(self, streams: Streams, size: int) -> None:
        await streams[0].readexactly(size)
        self.received_bytes += size

    async def receive_all(self, streams: Streams) -> None:
        while data := await streams[0].read(256 << 10):
            self.received_bytes += len(data)


# ---- the backend ---------------------------------------------------------------------------------


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do as the client's first bytes ask: ``e``\\ cho, ``t``\\ ail, ``b``\\ ulk, ``d``\\ rop; and a size."""
    with suppress(OSError, asyncio.IncompleteReadError):
        kind, size = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        if kind == b"e":
            writer.write(await reader.readexactly(size))
        elif kind == b"t":
            await reader.read(-1)
            writer.write(bytes(size))
        elif kind == b"b":
            writer.write(bytes(size))
        else:
            writer.write(await reader.readexactly(size))
            await reader.readexactly(1)
            reset(writer)
            return
        await writer.drain()
        if kind == b"e":
            await reader.read(-1)
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End without a FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# ---- the clients ---------------------------------------------------------------------------------


async def exchange(streams: Streams, account: Account) -> None:
    """A question, its answer, the end."""
    await account.send(streams, _HEADER.pack(b"e", _SMALL_BYTES) + bytes(_SMALL_BYTES))
    await account.receive(streams, _SMALL_BYTES)
    account.endings["complete"] += 1


async def half_close(streams: Streams, account: Account) -> None:
    """All is sent and ended before the answer begins."""
    await account.send(streams, _HEADER.pack(b"t", _SMALL_BYTES) + bytes(_SMALL_BYTES))
    streams[1].write_eof()
    await account.receive_all(streams)
    account.endings["complete"] += 1


async def trickle(streams: Streams, account: Account) -> None:
    """Byte by byte, with pauses."""
    await account.send(streams, _HEADER.pack(b"e", _TRICKLES))
    for _ in range(_TRICKLES):
        await account.send(streams, b"x")
        await asyncio.sleep(0.005)
    await account.receive(streams, _TRICKLES)
    account.endings["complete"] += 1


async def bulk(streams: Streams, account: Account) -> None:
    """Enough that it is spliced."""
    await account.send(streams, _HEADER.pack(b"b", _BULK_BYTES))
    await account.receive_all(streams)
    account.endings["complete"] += 1


async def reset_by_client(streams: Streams, account: Account) -> None:
    """The client resets after an answer."""
    await account.send(streams, _HEADER.pack(b"e", _SMALL_BYTES) + bytes(_SMALL_BYTES))
    await account.receive(streams, _SMALL_BYTES)
    reset(streams[1])
    account.endings["client_reset"] += 1


async def reset_by_backend(streams: Streams, account: Account) -> None:
    """The backend resets after an answer, when it was told that the answer has come."""
    await account.send(streams, _HEADER.pack(b"d", _SMALL_BYTES) + bytes(_SMALL_BYTES))
    await account.receive(streams, _SMALL_BYTES)
    await account.send(streams, b"!")
    try:
        await account.receive_all(streams)
    except ConnectionResetError:
        account.endings["backend_reset"] += 1
    else:
        raise AssertionError("a reset by the backend came as an orderly end")


Behaviour = Callable[[Streams, Account], Awaitable[None]]
# By share of all connections; those that are marked use TLS.
MIX: Final[tuple[tuple[Behaviour, bool], ...]] = (
    *(((exchange, False),) * 8),
    *(((half_close, False),) * 3),
    *(((reset_by_client, False),) * 2),
    *(((reset_by_backend, False),) * 2),
    *(((exchange, True),) * 2),
    (bulk, True),
    (bulk, False),
    (trickle, False),
)


async def crowd(target: Target, connections: int, account: Account, tls: ssl.SSLContext) -> None:
    """So many connections, the kinds in turn, many at a time."""
    numbers = iter(range(connections))

    async def client() -> None:
        for number in numbers:
            behaviour, is_secure = MIX[number % len(MIX)]
            await one(behaviour, is_secure, f"127.1.0.{1 + number % _CLIENT_ADDRESSES}")

    async def one(behaviour: Behaviour, is_secure: bool, address: str) -> None:
        streams = await asyncio.open_connection(
            "127.0.0.1",
            target.tls_port if is_secure else target.port,
            ssl=tls if is_secure else None,
            server_hostname=SERVER_NAME if is_secure else None,
            local_addr=(address, 0),
        )
        try:
            await behaviour(streams, account)
        finally:
            streams[1].close()
            with suppress(OSError):
                await streams[1].wait_closed()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_CONCURRENT, connections)):
            group.create_task(client())


# ---- what is left --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the processes of a proxy hold while it has no clients."""

    descriptors: dict[int, dict[str, int]]
    """By process, then by kind."""
    heap_bytes: dict[int, int]
    """By process. What they share does not count: pages of the segment come to be with their first use."""


def holdings(target: Target) -> Holdings:
    pids = target.pids
    return Holdings({pid: descriptors(pid) for pid in pids}, {pid: heap_bytes(pid) for pid in pids})


def leaks(before: Holdings, after: Holdings, connections: int) -> list[str]:
    """What ``after`` holds more than ``before``, beyond what is kept on purpose."""
    found = []
    if before.descriptors.keys() != after.descriptors.keys():
        found.append(
            f"other processes than before: {sorted(before.descriptors)}, {sorted(after.descriptors)}"
        )
    found += more_descriptors(before, after)
    for pid in after.descriptors:
        growth_bytes = after.heap_bytes[pid] - before.heap_bytes.get(pid, 0)
        if growth_bytes > _GROWTH_BYTES + _GROWTH_BYTES_PER_CONNECTION * connections:
            found.append(f"process {pid}: memory grew by {growth_bytes / connections:.0f} bytes a connection")
    return found


def more_descriptors(before: Holdings, after: Holdings) -> list[str]:
    """Of which kinds there are more, beyond the pipes that are kept on purpose."""
    found = []
    for pid, kinds in after.descriptors.items():
        for kind, count in kinds.items():
            spare = 2 * _KEPT_PIPES if kind == "pipe" else 0
            had = before.descriptors.get(pid, {}).get(kind, 0)
            if count > max(had, spare):
                found.append(f"process {pid}: {count} descriptors of kind {kind}, before {had}")
    return found


def differences(stats: dict[str, Any], account: Account) -> list[str]:
    """Where the proxy's account of all is not the clients', and leases that were not given back."""
    traffic = stats["traffic"]
    ours = {
        "connections opened": (sum(row["opened"] for row in traffic), account.endings.total()),
        "connections still open": (sum(row["active"] for row in traffic), 0),
        "leases in the segment": (sum(stats["backends"].values()), 0),
        "bytes from clients": (sum(row["bytes_received"] for row in traffic), account.sent_bytes),
        "bytes to clients": (sum(row["bytes_sent"] for row in traffic), account.received_bytes),
        "endings": (dict(stats["closes"]), dict(account.endings)),
    }
    return [
        f"{what}: {count}, expected {wanted}" for what, (count, wanted) in ours.items() if count != wanted
    ]


def soak(stage: Stage, connections: int, tell: Callable[[str], None]) -> list[str]:
    """Send so many connections through a proxy; return what is wrong afterwards, which should be nothing."""
    return asyncio.run(_soak(stage, connections, tell))


async def _soak(stage: Stage, connections: int, tell: Callable[[str], None]) -> list[str]:
    raise_descriptor_limit()
    tls = stage.pki.client()
    server = await asyncio.start_server(serve, "0.0.0.0", 0, backlog=4096)
    async with server:
        port = server.sockets[0].getsockname()[1]
        admin = stage.folder / "soak.sock"
        target = stage.launch(stage.database(ROWS, port), settings={"admin_socket": str(admin)})
        account = Account()
        # What is made once, for the first of its kind, is no leak.
        await crowd(target, min(connections, 20 * len(MIX)), account, tls)
        before = await asyncio.to_thread(at_rest, target, admin, account)
        began_s = time.monotonic()
        await crowd(target, connections, account, tls)
        found = await asyncio.to_thread(differences_when_told, admin, account)
        after = await asyncio.to_thread(at_rest, target, admin, account, before)
        found += leaks(before, after, connections)
        tell(
            f"{connections:,} connections in {time.monotonic() - began_s:.0f} s, {account.endings.total():,} "
            f"with the first ones: {dict(account.endings)}; {account.sent_bytes:,} bytes sent, "
            f"{account.received_bytes:,} received; heaps in KiB "
            f"{[count >> 10 for count in before.heap_bytes.values()]} -> "
            f"{[count >> 10 for count in after.heap_bytes.values()]}"
        )
    await asyncio.to_thread(stage.stop, target)
    return found


def at_rest(target: Target, admin: Path, account: Account, before: Holdings | None = None) -> Holdings:
    """What the proxy holds when it has come to rest; time is given for it to be no more than ``before``."""
    differences_when_told(admin, account)
    looks = [holdings(target)]

    def is_settled() -> bool:
        looks.append(holdings(target))
        return looks[-1].descriptors == looks[-2].descriptors and not (
            before is not None and more_descriptors(before, looks[-1])
        )

    # The proxy closes its end of the connection that asked it for the accounts some time after us.
    with suppress(TimeoutError):
        wait_until(is_settled, reason="the descriptors to settle", timeout_s=30, interval_s=0.3)
    return looks[-1]


def differences_when_told(admin: Path, account: Account) -> list[str]:
    """How the accounts differ when the workers have told all."""

    def agree() -> bool:
        return not differences(stats_of(admin), account)

    with suppress(TimeoutError):
        wait_until(agree, reason="the accounts to agree", timeout_s=_ACCOUNTS_TIMEOUT_S, interval_s=0.05)
    return differences(stats_of(admin), account)


def stats_of(admin: Path) -> dict[str, Any]:
    """``edgeproxy ctl show stats`` of the proxy with this admin socket."""
    client = AdminClient.connect(admin)
    assert client is not None, f"no proxy answers on {admin}"
    with client:
        stats: dict[str, Any] = client.ask("stats")
    return stats


def main(arguments: list[str] | None = None) -> int:
    """Soak and say what was found; 1 when it is anything."""
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__)
    parser.add_argument("--connections", type=int, default=100_000, metavar="N", help="default 100,000")
    parser.add_argument(
        "--talks", type=int, default=10_000, metavar="N", help="that the kernel relays; default 10,000"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="default 2")
    options = parser.parse_args(arguments)
    # Talks build on what is here.
    from bench.talks import soak_talks

    def tell(text: str) -> None:
        print(text, flush=True)

    with stage(options.workers) as ready:
        found = soak(ready, options.connections, tell) if options.connections else []
        if options.talks:
            found += soak_talks(ready, options.talks, tell)
    print("\n".join(found) or "nothing is left of them, and all accounts agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
