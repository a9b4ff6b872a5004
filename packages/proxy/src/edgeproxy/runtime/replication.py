"""Runs the replica of this POP: between the routing table, its store, its peers and the passing of time.

The machine decides (:mod:`edgeproxy.core.replication.replica`); here its commands are carried out. Those to
the store run one after the other in a thread, so that neither a slow disk nor a locked file holds up anything
else, and a peer is told that a message is worked off when the store is done with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from random import random
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final, Protocol

from edgeproxy.core.controlplane.replication_view import ReplicationCounts
from edgeproxy.core.replication.commands import (
    ApplyWrites,
    Collect,
    Command,
    InstallRows,
    ReadFingerprint,
    ReadLog,
    ReadRows,
    Renew,
    Send,
    Warn,
)
from edgeproxy.core.replication.refusals import Telling
from edgeproxy.core.replication.replica import Now, Replica, Terms
from edgeproxy.core.wire.peer_frames import Frame, PeerFrameError
from edgeproxy.core.wire.peer_messages import framed, message_in
from edgeproxy.errors import StoreError

if TYPE_CHECKING:
    from edgeproxy.ports import Captured, ReplicaStore

CAPTURE_INTERVAL_S: Final = 0.5
"""How often the store is asked for changes that nobody told of, such as those of a lease's owner."""
FINISH_TIMEOUT_S: Final = 1.0
"""For what was written just before the end; the others have it otherwise when this POP is back."""
RETRY_INTERVAL_S: Final = 1.0
"""How soon a store that failed is asked again."""

WARNINGS: Final = {
    "clock_ahead": "changes are not taken, since they bear a time that is not yet: set the clock of that POP",
    "numbers_reused": "the routing database went back to an earlier state, what is written now counts anew",
    "snapshot": "this POP was away for long, it takes a snapshot of the rows",
    "different_rows": "a peer knows the same changes but has other rows, they are made equal",
    "forgotten": "a POP was away for so long that it is waited for no more",
}


class Log(Protocol):
    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class Peers(Protocol):
    """Connections with other replicas."""

    def send(self, nodes: Iterable[str], frame: Frame) -> None: ...

    def refuse_message(self, node: str, why: str) -> None:
        """End the connection with a peer that says what makes no sense."""
        ...


class Replication:
    """One node while it takes part. It is an observer of its peers, and of changes of the table."""

    def __init__(
        self,
        node: str,
        store: ReplicaStore,
        terms: Terms,
        log: Log,
        on_rows_written: Callable[[], None],
        on_leases_written: Callable[[], None],
        members: Iterable[str] = (),
    ) -> None:
        """``on_rows_written`` is called when changes of others have been written to the store.

        ``members`` are the other nodes that this one remembers; none when it is new.
        """
        self._node = node
        self._store = store
        self._terms = terms
        self._log = log
        self._on_rows_written = on_rows_written
        self._on_leases_written = on_leases_written
        self._peers: Peers | None = None
        self._replica: Replica | None = None
        self._jobs: deque[tuple[Command, Callable[[], None]]] = deque()
        self._capture_wanted = True
        self._wake_store = asyncio.Event()
        self._wake_clock = asyncio.Event()
        self._telling = Telling()
        self._connected: set[str] = set()
        self._members = set(members)
        self._alive: set[str] = set()
        self._failing = False
        self.counts = ReplicationCounts()

    async def start(self, peers: Peers) -> None:
        """Take up what is in the store.

        Raises:
            StoreError: it cannot be replicated, or not be read now.
        """
        self._peers = peers
        captured = await asyncio.to_thread(self._store.capture)
        await self._begin(captured.origin)

    async def _begin(self, origin: str) -> None:
        """Begin anew, with what the store knows: it may have become another one, or gone back."""
        known = await asyncio.to_thread(self._store.known)
        members = self._members or None
        self._replica = replica = Replica(self._node, origin, known, self._terms, _now(), members)
        while self._jobs:
            self._jobs.popleft()[1]()  # the peer that asked need not wait for what nobody does any more
        for node in self._alive:
            replica.alive(node)
        for node in self._connected:
            self._carry_out(replica.connected(node, _now()))

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work())
            group.create_task(self._tick())
            group.create_task(self._look())

    async def finish(self) -> None:
        """Push what was written here last, if that can be done soon."""
        if self._replica is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FINISH_TIMEOUT_S):
                    await self._capture()

    @property
    def replica(self) -> Replica | None:
        """The machine, for whoever wants to see; ``None`` before the start."""
        return self._replica

    @property
    def waiting(self) -> int:
        """Commands that wait for the store."""
        return len(self._jobs)

    # ---- facts -------------------------------------------------------------------------------

    def table_changed(self) -> None:
        """There may be changes of this POP in the store."""
        self._capture_wanted = True
        self._wake_store.set()

    def member_alive(self, node: str) -> None:
        self._alive.add(node)
        self._members.add(node)
        if self._replica is not None:
            self._replica.alive(node)

    def member_dead(self, node: str) -> None:
        self._alive.discard(node)
        if self._replica is not None:
            self._replica.dead(node, _now())

    def member_left(self, node: str) -> None:
        self._alive.discard(node)
        self._members.discard(node)
        if self._replica is not None:
            self._replica.left(node)

    def peer_connected(self, node: str) -> None:
        """See :class:`edgeproxy.outbound.peers_quic.Observer`, as for those below."""
        self._connected.add(node)
        if self._replica is not None:
            self._carry_out(self._replica.connected(node, _now()))

    def peer_lost(self, node: str) -> None:
        self._connected.discard(node)
        if self._replica is not None:
            self._replica.disconnected(node)

    def peer_message(self, node: str, frame: Frame, done: Callable[[], None]) -> None:
        try:
            message = message_in(frame)
        except PeerFrameError as error:
            self._refuse(node, str(error))
            return
        if message is None or self._replica is None:
            done()
            return
        self._carry_out(self._replica.received(node, message, _now()), done)

    # ---- commands ----------------------------------------------------------------------------

    def _carry_out(self, commands: Iterable[Command], done: Callable[[], None] | None = None) -> None:
        """Send at once, queue what is for the store; ``done`` is called when all of it is done."""
        jobs = []
        for command in commands:
            match command:
                case Send():
                    if self._peers is not None:
                        self._peers.send((command.peer,), framed(command.message))
                case Warn():
                    self._warn(command)
                case _:
                    jobs.append(command)
        for command in jobs[:-1]:
            self._jobs.append((command, _nothing))
        if jobs:
            self._jobs.append((jobs[-1], done or _nothing))
            self._wake_store.set()
        elif done is not None:
            done()
        self._wake_clock.set()

    async def _work(self) -> None:
        """Ask the store, one thing after the other."""
        while True:
            await self._wake_store.wait()
            self._wake_store.clear()
            while self._capture_wanted or self._jobs:
                if self._capture_wanted:
                    self._capture_wanted = False
                    await self._capture()
                if self._jobs:
                    command, done = self._jobs.popleft()
                    await self._ask(command)
                    done()

    async def _capture(self) -> None:
        try:
            captured: Captured = await asyncio.to_thread(self._store.capture)
            if captured.is_new:
                await self._begin(captured.origin)
        except StoreError as error:
            self._failed(error)
            return
        self._failing = False
        if captured.writes:
            assert self._replica is not None
            self.counts.written += len(captured.writes)
            self._carry_out(self._replica.written(captured.writes))  # feature: replication.changes

    async def _ask(self, command: Command) -> None:
        replica = self._replica
        assert replica is not None
        try:
            follow = await asyncio.to_thread(self._ask_in_thread, replica, command)
        except StoreError as error:
            replica.store_failed(command)
            self._failed(error)
            return
        except (ValueError, OverflowError, TypeError) as error:
            # What a peer says passed all checks, and still does not fit.
            if not isinstance(command, ApplyWrites | InstallRows | ReadLog | ReadRows):
                raise
            replica.store_failed(command)
            self._refuse(command.peer, f"the store cannot take it: {error}")
            return
        self._failing = False
        self._carry_out(follow())
        if isinstance(command, ApplyWrites | InstallRows):
            self._on_leases_written()
            # While much is being fetched, the whole table is not read again for each part of it.
            if replica.pulling is None:
                self._on_rows_written()

    def _ask_in_thread(self, replica: Replica, command: Command) -> Callable[[], Iterable[Command]]:
        """Have the store do it; return what then tells the machine, which belongs to the loop."""
        store = self._store
        match command:
            case ApplyWrites():
                count = store.apply(command.writes)
                return lambda: self._applied(replica, command, count)
            case InstallRows():
                store.install(command.after, command.until, command.known, command.rows, learn=command.learn)
                return lambda: replica.installed(command, _now())
            case ReadLog():
                log = store.read_log(command.ranges)
                return lambda: replica.log_read(command, log.writes, gone=log.gone)
            case ReadRows():
                read = store.read_rows(command.after)
                return lambda: replica.rows_read(command, read.rows, read.until, read.known)
            case ReadFingerprint():
                state = store.fingerprint()
                return lambda: _told(replica.fingerprint_read, *state)
            case Renew():
                origin = store.renew(command.origin)
                return lambda: _told(replica.renewed, origin)
            case Collect():
                store.collect(command.stable)
                return list
            case _:
                raise AssertionError(f"{command} is not for the store")

    def _applied(self, replica: Replica, command: ApplyWrites, count: int) -> Iterable[Command]:
        self.counts.applied += count
        return replica.applied(command, _now())

    def _failed(self, error: StoreError) -> None:
        self.counts.store_failures += 1
        if not self._failing:
            self._failing = True
            self._log.warning("the routing database cannot be replicated now, trying again", why=str(error))
        asyncio.get_running_loop().call_later(RETRY_INTERVAL_S, self.table_changed)

    def _refuse(self, node: str, why: str) -> None:
        if self._peers is not None:
            self._peers.refuse_message(node, why)

    def _warn(self, warning: Warn) -> None:
        self.counts.warnings[warning.cause] += 1
        untold = self._telling.may_tell(warning.cause, warning.node, monotonic())
        if untold is not None:
            fields = {"origin": warning.origin} if warning.origin else {}
            if warning.ahead_ms:
                fields["ahead_s"] = str(warning.ahead_ms / 1000)
            self._log.warning(
                WARNINGS[warning.cause], cause=str(warning.cause), pop=warning.node, untold=untold, **fields
            )

    # ---- time --------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            assert self._replica is not None
            self._carry_out(self._replica.tick(_now(), random()))
            self._wake_clock.clear()
            # Not wait_for(), which in Python 3.11 forgets that it was cancelled when the event came, too.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._replica.next_s() - monotonic())):
                    await self._wake_clock.wait()

    async def _look(self) -> None:
        while True:
            self.table_changed()
            await asyncio.sleep(CAPTURE_INTERVAL_S)


def _now() -> Now:
    return Now(monotonic(), int(time() * 1000))


def _nothing() -> None:
    return


def _told(tell: Callable[..., None], *facts: object) -> list[Command]:
    """Tell the machine what leads to nothing further."""
    tell(*facts)
    return []
