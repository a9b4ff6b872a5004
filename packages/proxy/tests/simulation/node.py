"""One simulated POP: the machines under test, a store in memory, and a shell between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Protocol

from edgeproxy.core.replication import membership
from edgeproxy.core.replication.clock import Clock
from edgeproxy.core.replication.commands import (
    ApplyWrites,
    Cause,
    Collect,
    Command,
    Commands,
    InstallRows,
    ReadFingerprint,
    ReadLog,
    ReadRows,
    Renew,
    Send,
    Warn,
)
from edgeproxy.core.replication.members import Claim, Endpoint, Happened, State
from edgeproxy.core.replication.membership import Changed, FindSeeds, Membership
from edgeproxy.core.replication.messages import Message
from edgeproxy.core.replication.model import Group, Value, Write
from edgeproxy.core.replication.replica import Now, Replica, Terms
from packages.proxy.tests.simulation.plants import Plant
from packages.proxy.tests.simulation.store import Disk, Limits, MemoryStore

START_MS = 1_750_000_000_000
GOSSIP_INTERVAL_S = 1.0
PAYLOAD_BYTES = 1_300
STORE_DELAY_S = 0.02
"""The longest that a command waits for the store."""


class Outside(Protocol):
    """What a node needs of the world."""

    now_s: float
    rng: Random
    plant: Plant | None
    terms: Terms
    limits: Limits
    has_membership: bool

    def at(self, delay_s: float, what: Callable[[], None]) -> None: ...
    def send(self, sender: str, receiver: str, message: Message) -> None: ...
    def send_datagram(self, sender: str, to: Endpoint, payload: bytes) -> None: ...
    def seeds(self) -> list[Endpoint]: ...
    def warned(self, node: Node, warning: Warn) -> None: ...
    def noticed(self) -> None: ...
    def failed(self, why: str) -> None: ...


class Node:
    """A node that runs, or is down."""

    def __init__(self, name: str, number: int, world: Outside) -> None:
        self.name = name
        self.address = Endpoint(f"10.0.0.{number + 1}", 4001)
        self.offset_ms = 0
        """How far its wall clock is ahead."""
        self.is_up = False
        self.run = 0
        """Counts starts: what was begun by an earlier run has no effect."""
        self.peers: set[str] = set()
        self.dead: set[str] = set()
        """Members it was told are dead."""
        self.members: set[str] | None = None
        """What its state file remembers of them."""
        self.backups: list[Disk] = []
        self.disk = Disk(f"{name}/0")
        self._synced = self.disk.copy()
        self._incarnations = 0
        self._high_water_ms = 0
        self._world = world
        self._queue: deque[Command] = deque()
        self._ticks_s = float("inf")
        self._ticks = 0
        self.store: MemoryStore
        self.replica: Replica
        self.membership: Membership | None = None
        """None where an oracle tells who is there."""

    # ---- its life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process on what is on disk."""
        world = self._world
        self.run += 1
        self.is_up = True
        self.peers, self.dead = set(), set()
        clock = Clock(self.name, self._high_water_ms)
        self.store = MemoryStore(self.name, self.disk, clock, world.limits, world.plant)
        members = None if self.members is None else sorted(self.members)
        self.replica = Replica(
            self.name, self.disk.origin, self.disk.known.ranges, world.terms, self.now(), members
        )
        self._queue.clear()
        self._ticks_s = float("inf")
        self._tick()
        if world.has_membership:
            # As the shell does it: an incarnation that is greater than the last one, if the clock is right.
            began_s = self.now().wall_ms // 1000
            me = Claim(
                *(self.name, world.rng.getrandbits(60), began_s, State.ALIVE),
                *(self.address, self.address, 1, 1),
            )
            self.membership = Membership(
                *(me, GOSSIP_INTERVAL_S, PAYLOAD_BYTES, world.rng.random, world.now_s),
                forget_s=world.terms.retention_s,
            )
            self._beat()

    def crash(self) -> None:
        """Stop at once. What was not synced may be gone; local writes are, before they are acknowledged."""
        self.is_up = False
        if self._world.rng.random() < 0.5:
            self.disk = self._synced.copy()

    def restore(self, disk: Disk) -> None:
        """Put a backup in the place of its file, which begins a new incarnation."""
        self.disk = disk.copy()
        if self._world.plant is not Plant.INCARNATION_REUSED:
            self.disk.origin, self.disk.sequence = self._new_origin(), 0
        self._synced = self.disk.copy()

    def forget_members(self) -> None:
        """Lose the state file, with the high-water mark of the clock."""
        self.members = None
        self._high_water_ms = 0

    def now(self) -> Now:
        """What its clocks say."""
        seconds = self._world.now_s
        return Now(seconds, START_MS + int(seconds * 1000) + self.offset_ms)

    # ---- facts -------------------------------------------------------------------------------------

    def write(self, row_id: str, groups: dict[Group, dict[str, Value]]) -> Write:
        """Somebody changes a row here; when this returns it is acknowledged."""
        write = self.store.write(row_id, groups, self.now().wall_ms)
        if self.store.clock.rises():
            self._high_water_ms = self.store.clock.high_water_ms
        self._synced = self.disk.copy()
        self._do(self.replica.written([write]))
        return write

    def receive(self, sender: str, message: Message) -> None:
        """A message came."""
        self._do(self.replica.received(sender, message, self.now()))

    def connect(self, peer: str) -> None:
        """There is a connection to a peer."""
        self.peers.add(peer)
        if self.membership is None:
            self.alive(peer)
        self._do(self.replica.connected(peer, self.now()))

    def disconnect(self, peer: str) -> None:
        """The connection to it has ended."""
        self.peers.discard(peer)
        self.replica.disconnected(peer)

    def alive(self, peer: str) -> None:
        """Membership says so."""
        self.dead.discard(peer)
        self.members = (self.members or set()) | {peer}
        self.replica.alive(peer)

    def died(self, peer: str) -> None:
        """Membership says so."""
        if peer not in self.dead:
            self.dead.add(peer)
            self.replica.dead(peer, self.now())

    def left(self, peer: str) -> None:
        """Membership says so."""
        if self.members is not None:
            self.members.discard(peer)
        self.dead.discard(peer)
        self.replica.left(peer)

    # ---- membership --------------------------------------------------------------------------------

    def wants(self, peer: str) -> bool:
        """Whether it would be connected with a peer."""
        if self.membership is None:
            return True
        member = self.membership.members.get(peer)
        return member is not None and member.claim.state < State.DEAD

    def receive_datagram(self, payload: bytes, source: Endpoint) -> None:
        """A datagram came."""
        if self.membership is not None:
            self._tell(self.membership.receive(payload, source, self._world.now_s))

    def say_farewell(self) -> None:
        """Begin to leave."""
        if self.membership is not None:
            self._tell(self.membership.leave())

    def _beat(self) -> None:
        assert self.membership is not None
        self._tell(self.membership.tick(self._world.now_s))
        self._later(self.membership.next_s() - self._world.now_s, self._beat)

    def _tell(self, outputs: Iterable[membership.Output]) -> None:
        assert self.membership is not None
        for output in outputs:
            match output:
                case membership.Send(to, payload):
                    self._world.send_datagram(self.name, to, payload)
                case FindSeeds():
                    self._tell(self.membership.seeds_found(self._world.seeds()))
                case Changed(happened, claim):
                    self._member_changed(happened, claim.node)
                case _:
                    self._world.failed(f"{self.name} believes that another has its name")

    def _member_changed(self, happened: Happened, node: str) -> None:
        if happened is Happened.UP:
            self.alive(node)
        elif happened is Happened.DEAD:
            self.died(node)
        elif happened is Happened.LEFT:
            self.left(node)
        self._world.noticed()

    # ---- commands ----------------------------------------------------------------------------------

    def _do(self, commands: Commands) -> None:
        world = self._world
        for command in commands:
            match command:
                case Send(peer, message):
                    world.send(self.name, peer, message)
                case Warn():
                    if command.cause is Cause.FORGOTTEN and self.members is not None:
                        self.members.discard(command.node)
                    world.warned(self, command)
                case _:
                    self._queue.append(command)
                    if len(self._queue) == 1:
                        self._later(world.rng.random() * STORE_DELAY_S, self._work)
        self._schedule()

    def _work(self) -> None:
        """The store does the command that has waited longest."""
        command = self._queue[0]
        if self._world.rng.random() < 0.01 and not isinstance(command, Collect):
            self.replica.store_failed(command)
        else:
            self._do_in_store(command)
        self._queue.popleft()
        if self._queue:
            self._later(self._world.rng.random() * STORE_DELAY_S, self._work)

    def _do_in_store(self, command: Command) -> None:
        store, replica = self.store, self.replica
        match command:
            case ApplyWrites():
                store.apply(command.writes)
                self._do(replica.applied(command, self.now()))
            case ReadLog():
                writes, gone = store.read_log(command.ranges)
                self._do(replica.log_read(command, writes, gone=gone))
            case ReadRows():
                rows, until, known = store.read_rows(command.after)
                self._do(replica.rows_read(command, rows, until, known))
            case InstallRows():
                store.install(command.after, command.until, command.known, command.rows, command.learn)
                self._do(replica.installed(command, self.now()))
            case ReadFingerprint():
                replica.fingerprint_read(self.disk.known.ranges, store.fingerprint())
            case Renew():
                if self._world.plant is not Plant.INCARNATION_REUSED:
                    store.renew(self._new_origin())
                    self._synced = self.disk.copy()
                    replica.renewed(self.disk.origin)
            case Collect():
                store.collect(command.stable)
        if self._world.rng.random() < 0.2:
            self._synced = self.disk.copy()

    def _new_origin(self) -> str:
        self._incarnations += 1
        return f"{self.name}/{self._incarnations}"

    def _schedule(self) -> None:
        due_s = self.replica.next_s()
        if due_s != self._ticks_s:
            self._ticks_s = due_s
            self._ticks += 1
            number = self._ticks
            self._later(due_s - self._world.now_s, lambda: self._tick() if number == self._ticks else None)

    def _tick(self) -> None:
        self._do(self.replica.tick(self.now(), self._world.rng.random()))

    def _later(self, delay_s: float, what: Callable[[], None]) -> None:
        run = self.run

        def do() -> None:
            if self.is_up and self.run == run:
                what()

        self._world.at(max(0.0, delay_s), do)
