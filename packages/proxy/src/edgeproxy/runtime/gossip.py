"""Membership on a UDP socket: opens and seals datagrams, keeps the time, resolves names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv6Address, ip_address
from time import monotonic
from typing import Any, Final, Protocol, cast

from edgeproxy.config import Address
from edgeproxy.core.replication.members import Endpoint
from edgeproxy.core.replication.membership import Changed, FindSeeds, Membership, NameTaken, Output, Send
from edgeproxy.core.replication.refusals import Telling
from edgeproxy.core.wire.gossip_datagrams import DatagramError, Refusal
from edgeproxy.core.wire.sealing import NONCE_BYTES, Keyring

FAREWELL_TIMEOUT_S: Final = 0.5
"""With the usual interval that is two goodbyes to everybody; whoever hears neither misses us soon."""
RESOLVE_TIMEOUT_S: Final = 5.0


class Log(Protocol):
    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...

    def error(self, event: str, **fields: Any) -> Any: ...


class Gossip(asyncio.DatagramProtocol):
    """The shell of a :class:`~edgeproxy.core.replication.membership.Membership`."""

    def __init__(
        self,
        membership: Membership,
        keyring: Keyring,
        seeds: Sequence[Address],
        on_change: Callable[[Changed], None],
        log: Log,
        *,
        resolve: Callable[[str], Awaitable[Sequence[str]]],
        has_keys: bool,
    ) -> None:
        """``resolve`` gives the addresses of a host. Without keys, other machines are not listened to."""
        self.membership = membership
        self._keyring = keyring
        self._seeds = seeds
        self._on_change = on_change
        self._log = log
        self._resolve = resolve
        self._has_keys = has_keys
        self._refused: Counter[Refusal] = Counter()
        self._telling = Telling()
        self._transport: asyncio.DatagramTransport | None = None
        self._is_ipv6 = False
        self._is_full = False
        self._finding: asyncio.Task[None] | None = None

    @property
    def refused(self) -> Counter[Refusal]:
        """Datagrams, or a part of one, that came to nothing, by reason, since the start."""
        no_room = Counter({Refusal.NO_ROOM: self.membership.members.turned_away})
        return self._refused + self.membership.refused + no_room

    async def listen(self, sock: socket.socket) -> None:
        """Serve on a bound socket, which belongs to this from now on."""
        sock.setblocking(False)
        self._is_ipv6 = sock.family == socket.AF_INET6
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)

    async def run(self) -> None:
        """Let time pass for the machine, until cancelled."""
        while True:
            self._carry_out(self.membership.tick(monotonic()))
            await asyncio.sleep(max(0.0, self.membership.next_s() - monotonic()))

    async def leave(self) -> None:
        """Say goodbye, which takes a moment."""
        self._carry_out(self.membership.leave())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_TIMEOUT_S):
                while not self.membership.is_gone:
                    await asyncio.sleep(max(0.0, self.membership.next_s() - monotonic()))
                    self._carry_out(self.membership.tick(monotonic()))

    def close(self) -> None:
        """End the socket, without a word."""
        if self._finding is not None:
            self._finding.cancel()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # ---- the socket --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Before Python 3.12, what the loop makes is none by type.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def pause_writing(self) -> None:
        """So much waits for the network card that what is sent now is lost, as it may be on any other way."""
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False

    def datagram_received(self, data: bytes, address: tuple[Any, ...]) -> None:
        source = Endpoint(_plain_host(address[0]), address[1])
        try:
            if not (self._has_keys or ip_address(source.host).is_loopback):
                raise DatagramError(Refusal.UNPROTECTED, "without keys, only this machine is listened to")
            outputs = self.membership.receive(self._keyring.open(data), source, monotonic())
        except DatagramError as refusal:
            self._refused[refusal.reason] += 1
            untold = self._telling.may_tell(refusal.reason, source.host, monotonic())
            if untold is not None:
                self._log.warning(
                    "a datagram is refused",
                    reason=str(refusal.reason),
                    address=str(source),
                    why=str(refusal),
                    untold=untold,
                )
        else:
            self._carry_out(outputs)

    def _carry_out(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            match output:
                case Send(to, payload):
                    self._send(to, payload)
                case Changed():
                    self._on_change(output)
                case FindSeeds():
                    if self._finding is None or self._finding.done():
                        self._finding = asyncio.get_running_loop().create_task(self._find_seeds())
                case NameTaken(address):
                    self._log.error(
                        "another POP has our name, change EDGEPROXY_REPLICATION_NODE_ID of one of the two",
                        node=self.membership.me.node,
                        address=str(address),
                    )

    def _send(self, to: Endpoint, payload: bytes) -> None:
        if self._transport is None or self._is_full:
            return
        host = f"::ffff:{to.host}" if self._is_ipv6 and ":" not in to.host else to.host
        # One that cannot be sent is one that got lost.
        with contextlib.suppress(OSError):
            self._transport.sendto(self._keyring.seal(payload, os.urandom(NONCE_BYTES)), (host, to.port))

    async def _find_seeds(self) -> None:
        found = await asyncio.gather(*map(self._resolved, self._seeds))
        self._carry_out(self.membership.seeds_found([each for some in found for each in some]))

    async def _resolved(self, seed: Address) -> list[Endpoint]:
        hosts: Sequence[str] = ()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                hosts = await self._resolve(seed.host)
        found = [
            Endpoint(host, seed.port) for host in map(_plain_host, hosts) if self._is_ipv6 or ":" not in host
        ]
        if not found and self._telling.may_tell("seed", str(seed), monotonic()) is not None:
            self._log.warning("a bootstrap peer has no address that can be reached from here", peer=str(seed))
        return found


def _plain_host(host: str) -> str:
    """The address without a zone, and as IPv4 where that is mapped."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
