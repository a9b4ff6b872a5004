"""The connections of this node with its peers, over QUIC: one with each member, for as long as it is one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from random import random
from socket import socket
from typing import Any, Final, Protocol

import msgspec
from aioquic.quic.configuration import QuicConfiguration

from edgeproxy.config import Address
from edgeproxy.core.replication.dialling import Dialling, survivor
from edgeproxy.core.replication.handshake import NONCE_BYTES, Acceptor, Dialler, Refused, Terms
from edgeproxy.core.replication.refusals import Refusals
from edgeproxy.core.wire.peer_frames import MAX_FRAME_BYTES, Frame, encode
from edgeproxy.core.wire.peer_messages import NAMES
from edgeproxy.outbound.peer_session import Session
from edgeproxy.outbound.quic_certificate import certify
from edgeproxy.outbound.quic_endpoint import IDLE_TIMEOUT_S, Link, QuicEndpoint, SocketAddress

ALPN: Final = "edgeproxy-peer"
MAX_UNPROVEN: Final = 32
"""Connections that came and have not proven themselves: each costs a TLS handshake, for whoever asks."""


class Log(Protocol):
    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class Observer(Protocol):
    """Who hears of peers and what they say."""

    def peer_connected(self, node: str) -> None: ...

    def peer_lost(self, node: str) -> None: ...

    def peer_message(self, node: str, frame: Frame, done: Callable[[], None]) -> None:
        """``done`` is to be called once it is worked off; until then it counts against what may come."""
        ...


class PeerStatus(msgspec.Struct, frozen=True):
    """One connection as it is now."""

    node: str
    address: str
    dialled: bool
    """From here."""
    version: int
    """Of what is spoken."""
    heard_s_ago: float
    waiting_bytes: int
    unacknowledged_bytes: int
    dropped: int
    """Messages, for want of room, since the connection began."""


class QuicPeers:
    """All of them. Proves itself by ``terms``, and accepts who proves the same."""

    def __init__(self, terms: Terms, observer: Observer, log: Log) -> None:
        self._terms = terms
        self._observer = observer
        self._log = log
        self._dialling: Dialling[Address] = Dialling(terms.node)
        self._wake = asyncio.Event()
        self._sessions: dict[str, Session] = {}
        self._unproven: set[Session] = set()
        self._diallers: dict[Session, str] = {}
        self._attempts: set[asyncio.Task[None]] = set()
        self.refusals = Refusals()
        self.counts: Counter[tuple[str, str]] = Counter()
        """Frames by direction, ``sent``, ``received`` or ``dropped``, and kind of message as a number."""
        server = QuicConfiguration(is_client=False, alpn_protocols=[ALPN], idle_timeout=IDLE_TIMEOUT_S)
        self._fingerprint = certify(server)
        client = QuicConfiguration(
            is_client=True,
            alpn_protocols=[ALPN],
            idle_timeout=IDLE_TIMEOUT_S,
            # Who is at the other end is proven afterwards, bound to whatever certificate it showed.
            verify_mode=ssl.CERT_NONE,
            server_name="edgeproxy",
        )
        self._endpoint = QuicEndpoint(server, client, self._accept, self._may_come)

    async def listen(self, sock: socket) -> None:
        """Serve on a bound UDP socket, which belongs to this from now on."""
        await self._endpoint.listen(sock)

    async def run(self) -> None:
        """Dial whoever is due, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            for node, address in self._dialling.due(loop.time()):
                task = loop.create_task(self._dial(node, address))
                self._attempts.add(task)
                task.add_done_callback(self._attempts.discard)
            next_s = self._dialling.next_s()
            # Not wait_for(), which in Python 3.11 forgets that it was cancelled when the event came, too.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_s):
                    await self._wake.wait()

    def close(self) -> None:
        """End all connections, telling the peers, and the socket."""
        for task in self._attempts:
            task.cancel()
        for session in (*self._sessions.values(), *self._unproven, *self._diallers):
            session.close("it leaves")
        self._sessions.clear()
        self._endpoint.close()

    # ---- what the replica asks ---------------------------------------------------------------

    def want(self, members: Mapping[str, Address]) -> None:
        """Dial exactly these members, at these addresses, until there is a connection with each.

        One with somebody else stays: he may know of us before we know of him.
        """
        self._dialling.want(members, _now_s())
        for node in self._sessions:
            self._dialling.connected(node, _now_s())
        self._wake.set()

    def hurry(self, node: str) -> None:
        """There is news that it can be reached."""
        self._dialling.hurry(node, _now_s())
        self._wake.set()

    def connected(self) -> Iterable[str]:
        """Who has a connection."""
        return self._sessions.keys()

    def send(self, nodes: Iterable[str], frame: Frame) -> None:
        """Send to those who have a connection; what does not fit into its queue is dropped and counted."""
        wire = b""
        kind = str(frame.kind)
        if len(frame.body) >= MAX_FRAME_BYTES:
            self._log.warning("a message for peers is too large", kind=frame.kind, bytes=len(frame.body))
            self.counts["dropped", kind] += 1
            return
        for node in nodes:
            if (session := self._sessions.get(node)) is not None:
                wire = wire or encode(frame)
                is_taken = session.send(wire, len(frame.body))
                self.counts["sent" if is_taken else "dropped", kind] += 1

    def frames(self) -> dict[str, dict[str, int]]:
        """How many were ``sent``, ``received`` and ``dropped``, by kind of message."""
        counted: dict[str, dict[str, int]] = {"sent": {}, "received": {}, "dropped": {}}
        for (direction, kind), count in self.counts.items():
            name = NAMES.get(int(kind), "unknown")
            counted[direction][name] = counted[direction].get(name, 0) + count
        return counted

    def status(self) -> list[PeerStatus]:
        """Every connection that stands."""
        now_s = _now_s()
        return [
            PeerStatus(
                node=node,
                address=session.link.address,
                dialled=session.link.dialled,
                version=session.peer.version,
                heard_s_ago=now_s - session.heard_s,
                waiting_bytes=session.queue.waiting_bytes,
                unacknowledged_bytes=session.queue.outstanding_bytes,
                dropped=session.queue.dropped,
            )
            for node, session in sorted(self._sessions.items())
            if session.peer is not None
        ]

    # ---- what sessions tell ------------------------------------------------------------------

    def proven(self, session: Session) -> None:
        """See :meth:`edgeproxy.outbound.peer_session.Owner.proven`."""
        self._unproven.discard(session)
        self._diallers.pop(session, None)
        assert session.peer is not None
        node, former = session.peer.node, self._sessions.get(session.peer.node)
        self._dialling.connected(node, _now_s())
        if former is not None:
            if not self._replaces(session, former):
                session.close("another connection stands")
                return
            former.close("another connection stands")
        self._sessions[node] = session
        if former is None or former.peer is None or former.peer.run != session.peer.run:
            self._log.info(
                "connected to a peer", peer=node, address=session.link.address, dialled=session.link.dialled
            )
        self._observer.peer_connected(node)

    def _replaces(self, new: Session, former: Session) -> bool:
        assert new.peer is not None
        if former.peer is None or former.peer.run != new.peer.run or former.link.dialled == new.link.dialled:
            # It was restarted, or it dials anew because it has lost the former one.
            return True
        dialled_by = self._terms.node if new.link.dialled else new.peer.node
        return dialled_by == survivor(self._terms.node, new.peer.node)

    def message(self, session: Session, frame: Frame, done: Callable[[], None]) -> None:
        """See :meth:`edgeproxy.outbound.peer_session.Owner.message`."""
        assert session.peer is not None
        self.counts["received", str(frame.kind)] += 1
        self._observer.peer_message(session.peer.node, frame, done)

    def refused(self, session: Session, reason: Refused, why: str) -> None:
        """See :meth:`edgeproxy.outbound.peer_session.Owner.refused`."""
        self._refuse(reason, session.link.address, why)
        self._forget(session, "refused")

    def ended(self, session: Session, why: str) -> None:
        """See :meth:`edgeproxy.outbound.peer_session.Owner.ended`."""
        host = session.link.address.rpartition(":")[0]
        if (
            why in list(Refused)
            and (untold := self.refusals.may_tell(f"by it: {why}", host, _now_s())) is not None
        ):
            self._log.warning("a peer refuses us", address=session.link.address, why=why, untold=untold)
        self._forget(session, why)

    def refuse_message(self, node: str, why: str) -> None:
        """What a peer said makes no sense: end the connection with it."""
        if (session := self._sessions.get(node)) is not None:
            session.close(Refused.MALFORMED)
            self.refused(session, Refused.MALFORMED, why)

    def _forget(self, session: Session, why: str) -> None:
        self._unproven.discard(session)
        expected = self._diallers.pop(session, None)
        if expected is not None:
            self._dialling.failed(expected, _now_s(), random())
        elif session.peer is not None and self._sessions.get(session.peer.node) is session:
            node = session.peer.node
            del self._sessions[node]
            self._dialling.lost(node, _now_s(), random())
            self._log.info("lost the connection to a peer", peer=node, why=why)
            self._observer.peer_lost(node)
        self._wake.set()

    def _refuse(self, reason: Refused, address: str, why: str) -> None:
        untold = self.refusals.note(reason, address.rpartition(":")[0], _now_s())
        if untold is not None:
            self._log.warning(
                "a peer is refused", reason=str(reason), address=address, why=why, untold=untold
            )

    # ---- connections -------------------------------------------------------------------------

    def _may_come(self, address: SocketAddress) -> bool:
        where = "{}:{}".format(*address[:2])
        if not self._terms.keys and not _is_loopback(address[0]):
            self._refuse(Refused.UNPROTECTED, where, "without keys, only this machine may come")
            return False
        if len(self._unproven) >= MAX_UNPROVEN:
            self._refuse(Refused.TOO_MANY, where, f"{MAX_UNPROVEN} are proving themselves already")
            return False
        return True

    def _accept(self, link: Link) -> Session:
        acceptor = Acceptor(self._terms, os.urandom(NONCE_BYTES), self._fingerprint)
        session = Session(link, self, acceptor=acceptor)
        self._unproven.add(session)
        return session

    async def _dial(self, node: str, address: Address) -> None:
        def make(link: Link) -> Session:
            session = Session(
                link,
                self,
                make_dialler=lambda shown: Dialler(self._terms, os.urandom(NONCE_BYTES), shown, node),
            )
            self._diallers[session] = node
            return session

        try:
            await self._endpoint.dial(*address, make)
        except OSError as error:
            if (untold := self.refusals.may_tell("unreachable", node, _now_s())) is not None:
                self._log.warning(
                    "a peer cannot be reached",
                    peer=node,
                    address=str(address),
                    why=error.strerror,
                    untold=untold,
                )
            self._dialling.failed(node, _now_s(), random())
            self._wake.set()


def _is_loopback(host: str) -> bool:
    address = ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _now_s() -> float:
    return asyncio.get_running_loop().time()
