"""This POP's part in a cluster: the node that is put together when replication is switched on.

Only one process at a time is a node. A lock beside its state file says which; the successor in an upgrade, or
a second proxy that was started by mistake, waits for it and meanwhile serves like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import random
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from edgeproxy.config import Address, Config
from edgeproxy.core.controlplane.replication_view import MemberView, ReplicationCounts, ReplicationView
from edgeproxy.core.replication.handshake import VERSION
from edgeproxy.core.replication.handshake import Terms as PeerTerms
from edgeproxy.core.replication.members import Claim, Endpoint, Happened, State
from edgeproxy.core.replication.membership import Changed, Membership
from edgeproxy.core.replication.replica import Terms
from edgeproxy.core.wire.sealing import Keyring
from edgeproxy.errors import StoreError
from edgeproxy.inbound.replication_ports import ReplicationPort
from edgeproxy.outbound.resolver_system import SystemResolver
from edgeproxy.runtime.gossip import Gossip
from edgeproxy.runtime.replication import Replication
from edgeproxy.stores import open_replica

if TYPE_CHECKING:
    from edgeproxy.outbound.node_file import NodeFile
    from edgeproxy.outbound.peers_quic import QuicPeers
    from edgeproxy.outbound.replica_sqlite import SqliteReplica

T = TypeVar("T")

LOCK_INTERVAL_S: Final = 0.05
RETRY_INTERVAL_S: Final = 1.0
REMEMBER_INTERVAL_S: Final = 5.0
FIRST_PAUSE_S: Final = 1.0
"""After a defect, before the node is put together again; twice as long after each that comes soon again."""
LONGEST_PAUSE_S: Final = 60.0

_TOLD: Final = {
    Happened.UP: "a POP is there",
    Happened.SUSPECT: "a POP does not answer",
    Happened.DEAD: "a POP is gone",
    Happened.LEFT: "a POP has left",
    Happened.FORGOTTEN: "a POP that was gone for long is forgotten",
}


class Log(Protocol):
    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...

    def error(self, event: str, **fields: Any) -> Any: ...


class ReplicationPart:
    """Runs the node from :meth:`run` on. Sockets belong to it from then on."""

    def __init__(
        self,
        config: Config,
        gossip: ReplicationPort,
        transport: ReplicationPort,
        log: Log,
        on_rows_written: Callable[[], None],
        on_leases_written: Callable[[], None],
        is_leaving: Callable[[], bool],
    ) -> None:
        """``is_leaving`` tells at the end whether the node leaves the cluster, or a successor takes over."""
        self._config = config
        self._gossip_port = gossip
        self._transport_port = transport
        self._log = log
        self._on_rows_written = on_rows_written
        self._on_leases_written = on_leases_written
        self._is_leaving = is_leaving
        self._replication: Replication | None = None
        self._peers: QuicPeers | None = None
        self._gossip: Gossip | None = None
        self._refused_rows: Callable[[], dict[str, str]] = dict

    # ---- what others ask ---------------------------------------------------------------------

    def table_changed(self) -> None:
        """The table of this POP has changed, by whomever."""
        if self._replication is not None:
            self._replication.table_changed()

    def is_elsewhere(self, node: str) -> bool:
        """Whether another POP of that name is there, as far as anybody knows."""
        if self._gossip is None:
            # Nobody has been found yet; to end the leases of others now would be rash.
            return node != self._config.replication_node_id
        member = self._gossip.membership.members.get(node)
        return member is not None and member.claim.state in (State.ALIVE, State.SUSPECT)

    def view(self) -> ReplicationView:
        """All there is to see."""
        config, running, peers, gossip = self._config, self._replication, self._peers, self._gossip
        replica = running.replica if running is not None else None
        return ReplicationView(  # feature: replication.shown
            node=config.replication_node_id,
            cluster=config.replication_cluster_name,
            sealed=bool(config.replication_keys),
            origin=replica.origin if replica is not None else "",
            running=replica is not None,
            members=tuple(self._members()),
            known=(
                {
                    origin: sum(last - first + 1 for first, last in spans)
                    for origin, spans in replica.known.items()
                }
                if replica is not None
                else {}
            ),
            lag=dict(replica.lag) if replica is not None else {},
            pulling=replica.pulling if replica is not None else None,
            store_waiting=running.waiting if running is not None else 0,
            refused_rows=self._refused_rows(),
            counts=running.counts if running is not None else ReplicationCounts(),
            frames=peers.frames() if peers is not None else {},
            refused_peers=dict(peers.refusals.counts) if peers is not None else {},
            namesake=str(gossip.membership.twin) if gossip is not None and gossip.membership.twin else None,
            doubt=gossip.membership.doubt if gossip is not None else 0,
            datagrams=dict(gossip.membership.sent) if gossip is not None else {},
            refused_datagrams=(
                {str(reason): count for reason, count in gossip.refused.items()} if gossip is not None else {}
            ),
        )

    def _members(self) -> Iterator[MemberView]:
        if self._gossip is None or self._peers is None or self._replication is None:
            return
        me = self._gossip.membership.me
        yield MemberView(
            node=me.node, state="self", gossip=str(me.gossip), transport=str(me.transport), since_s=0.0
        )
        connections = {each.node: each for each in self._peers.status()}
        replica = self._replication.replica
        drift_ms = replica.drift_ms if replica is not None else {}
        members = self._gossip.membership.members.all()
        for member in sorted(members, key=lambda each: each.claim.node):
            claim = member.claim
            link = connections.get(claim.node)
            yield MemberView(
                node=claim.node,
                state=claim.state.name.lower(),
                gossip=str(claim.gossip),
                transport=str(claim.transport),
                since_s=monotonic() - member.since_s,
                connected=link is not None,
                dialled=link is not None and link.dialled,
                version=link.version if link is not None else None,
                heard_s_ago=link.heard_s_ago if link is not None else None,
                drift_ms=drift_ms.get(claim.node),
                waiting_bytes=link.waiting_bytes if link is not None else 0,
                unacknowledged_bytes=link.unacknowledged_bytes if link is not None else 0,
                dropped=link.dropped if link is not None else 0,
            )

    # ---- its life ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Be the node until cancelled. A defect ends it for a while, and never what clients are served by."""
        pause_s = FIRST_PAUSE_S
        with contextlib.closing(self._gossip_port), contextlib.closing(self._transport_port):
            async with _lock(lock_path(self._config.replication_db_path), self._log):
                while True:
                    began_s = monotonic()
                    try:
                        await self._live()
                    except Exception as error:  # noqa: BLE001  whatever it is, clients are served all the same
                        if monotonic() - began_s > LONGEST_PAUSE_S:
                            pause_s = FIRST_PAUSE_S
                        self._log.error("replication failed, it begins anew", in_s=pause_s, exc_info=error)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _live(self) -> None:
        try:
            await self._be(*await self._until_possible(self._open))
        except asyncio.CancelledError:
            if self._is_leaving():
                await self._leave()
            raise
        finally:
            if self._gossip is not None:
                self._gossip.close()
            if self._peers is not None:
                self._peers.close()
            self._replication = self._gossip = self._peers = None

    async def _leave(self) -> None:
        if self._replication is not None:
            await self._replication.finish()
        if self._gossip is not None:
            await self._gossip.leave()

    async def _open(self) -> tuple[SqliteReplica, NodeFile]:
        def warn(why: str) -> None:
            self._log.warning("what this node remembered is lost, which does no harm", why=why)

        return await asyncio.to_thread(open_replica, self._config, warn)

    async def _until_possible(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try what needs the store until it lets itself be used."""
        told = ""
        while True:
            try:
                return await attempt()
            except StoreError as error:
                if str(error) != told:
                    self._log.error("this POP cannot replicate, trying again", why=str(error))
                told = str(error)
                await asyncio.sleep(RETRY_INTERVAL_S)

    async def _be(self, store: SqliteReplica, file: NodeFile) -> None:
        # An import that takes a tenth of a second, while the workers serve already.
        from edgeproxy.outbound.peers_quic import QuicPeers

        config, keys = self._config, self._config.replication_keys or ()
        node, cluster = config.replication_node_id, config.replication_cluster_name
        run = int.from_bytes(os.urandom(7), "big")
        self._refused_rows = lambda: dict(store.refused)
        self._replication = replication = Replication(
            node,
            store,
            Terms(sync_interval_s=config.replication_sync_interval_ms / 1000),
            self._log,
            self._on_rows_written,
            self._on_leases_written,
            file.state.members,
        )
        self._peers = peers = QuicPeers(PeerTerms(cluster, node, f"{run:x}", keys), replication, self._log)
        await self._until_possible(lambda: replication.start(peers))
        keyring = Keyring(cluster, keys)
        interval_s = config.replication_gossip_interval_ms / 1000
        self._gossip = gossip = Gossip(
            Membership(self._claim(run), interval_s, keyring.payload_bytes, random, monotonic()),
            keyring,
            [*config.replication_bootstrap_peers, *map(_address, file.state.members.values())],
            self._member_changed,
            self._log,
            has_keys=bool(keys),
            resolve=SystemResolver().resolve,
        )
        await peers.listen(self._transport_port.socket.dup())
        await gossip.listen(self._gossip_port.socket.dup())
        self._log.info(
            "replicating",
            pop=node,
            cluster=cluster,
            gossip=str(self._gossip_port.address),
            transport=str(self._transport_port.address),
            sealed=bool(keys),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(replication.run())
            group.create_task(peers.run())
            group.create_task(gossip.run())
            group.create_task(self._remember(file))

    def _claim(self, run: int) -> Claim:
        """What this node says of itself to begin with."""
        config = self._config
        first_peer = next(iter(config.replication_bootstrap_peers), None)
        gossip = self._gossip_port.advertised(config.replication_gossip_advertise_addr, first_peer)
        transport = self._transport_port.advertised(config.replication_transport_advertise_addr, first_peer)
        return Claim(
            node=config.replication_node_id,
            run=run,
            # Greater than at the last start, unless the clock went back; then the others say so.
            incarnation=int(1000 * time()),
            state=State.ALIVE,
            gossip=Endpoint(*gossip),
            transport=Endpoint(*transport),
            oldest=max(1, VERSION - 1),
            newest=VERSION,
        )

    def _member_changed(self, change: Changed) -> None:
        """Membership has news."""
        replication, peers, gossip = self._replication, self._peers, self._gossip
        assert replication is not None
        assert peers is not None
        assert gossip is not None
        node = change.claim.node
        match change.happened:
            case Happened.UP | Happened.CHANGED:
                replication.member_alive(node)
            case Happened.DEAD:
                replication.member_dead(node)
            case Happened.LEFT:
                replication.member_left(node)
            case _:
                pass
        if change.happened in _TOLD:
            self._log.info(_TOLD[change.happened], pop=node, address=str(change.claim.gossip))
        there = gossip.membership.members.within(State.ALIVE, State.SUSPECT)
        peers.want({each.claim.node: Address(*each.claim.transport) for each in there})
        if change.happened in (Happened.UP, Happened.CHANGED):
            peers.hurry(node)

    async def _remember(self, file: NodeFile) -> None:
        """Write down now and then who the others are."""
        while True:
            await asyncio.sleep(REMEMBER_INTERVAL_S)
            assert self._gossip is not None
            known = self._gossip.membership.members.within(State.ALIVE, State.SUSPECT, State.DEAD)
            members = {each.claim.node: str(each.claim.gossip) for each in known}
            with contextlib.suppress(StoreError):  # it may be lost, and is tried again
                await asyncio.to_thread(file.write, members=members)


def lock_path(state_path: Path) -> Path:
    """Where the lock of the node lies whose state is at ``state_path``."""
    return state_path.with_name(f"{state_path.name}.lock")


@asynccontextmanager
async def _lock(path: Path, log: Log) -> AsyncIterator[None]:
    """Wait until no other process is this node."""
    told = False
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    told = True
                    log.info("another process is this node, waiting for it to end", lock=str(path))
                await asyncio.sleep(LOCK_INTERVAL_S)
        yield


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return Address(host.strip("[]"), int(port))
