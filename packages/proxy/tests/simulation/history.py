"""One history: nodes, the network between them, and all that befalls them, drawn from one seed."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations, permutations
from random import Random

import msgspec

from edgeproxy.core.replication.commands import Cause, Warn
from edgeproxy.core.replication.members import Endpoint, State
from edgeproxy.core.replication.messages import Message, SnapshotWanted, Want
from edgeproxy.core.replication.model import PRESENT, Group, Value
from edgeproxy.core.replication.replica import Terms
from edgeproxy.core.replication.rows import Cells, is_present
from packages.proxy.tests.simulation.ledger import Ledger
from packages.proxy.tests.simulation.node import Node
from packages.proxy.tests.simulation.plants import Plant
from packages.proxy.tests.simulation.store import Disk, Limits

MAX_NODES = 50
RETENTION_S = 60.0
SETTLED_S = 900.0
"""After the last fault all must agree within this time, most of which is for members that are gone for ever,
and for clocks that ran ahead."""
MAX_DATAGRAMS = 30
MAX_DATAGRAMS_FOR_EACH = 4
"""Of membership, from one node within one second: while there is news, and when all lists are exchanged."""
TELL_S = 3.0
"""Until membership has noticed, at most."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed."""

    seed: int
    nodes: int
    violations: tuple[str, ...]
    """None when all is well."""
    seen: Counter[str]
    """What happened in it, and how often."""


def run(seed: int, max_nodes: int = MAX_NODES, plant: Plant | None = None) -> Outcome:
    """Live through the history of one seed."""
    return History(seed, max_nodes, plant).run()


class History:
    """The world of one seed."""

    def __init__(self, seed: int, max_nodes: int, plant: Plant | None) -> None:
        self.seed = seed
        self.plant = plant
        self.rng = rng = Random(seed)
        self.now_s = 0.0
        self.terms = Terms(sync_interval_s=5.0, retention_s=RETENTION_S)
        self.limits = Limits(log=rng.choice((20, 60, 1_000)))
        self.ledger = Ledger()
        self.seen: Counter[str] = Counter()
        self._by_address: dict[Endpoint, Node] = {}
        self._datagrams: Counter[tuple[str, int]] = Counter()
        """By sender and second."""
        self._connecting = False
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        # Small ones find most, and large ones cost most.
        self.nodes: dict[str, Node] = {}
        self._gone: set[str] = set()
        self._leaving: set[str] = set()
        for _ in range(3 + int((max_nodes - 2) * rng.random() ** 4)):
            self._new_node()
        self._blocked: set[tuple[str, str]] = set()
        self._loss = rng.choice((0.0, 0.0, 0.01, 0.1, 0.3))
        self._repeats = rng.choice((0.0, 0.05, 0.2))
        self._latency_s = rng.choice((0.005, 0.05, 0.5))
        # Elsewhere an oracle tells who is there, which takes less time than asking.
        self.has_membership = rng.random() < 0.2
        # What is sent is encoded only in some, because that takes longer than all else.
        self._wire = rng.random() < 0.1
        self._ids = [f"row-{number}" for number in range(rng.choice((2, 6, 20)))]

    def run(self) -> Outcome:
        """Live, settle, and look."""
        if self.has_membership:
            self.seen["membership"] += 1
        rng = self.rng
        size = len(self.nodes)
        lasts_s = rng.uniform(20.0, 150.0)
        for node in list(self.nodes.values()):
            node.members = set(self.nodes) - {node.name}
            node.start()
        self._connect_all()
        for _ in range(rng.randint(10, 150)):
            self.at(rng.uniform(0.0, lasts_s), self._write_somewhere)
        faults = (
            *(self._crash, self._partition, self._partition_one_way, self._jump, self._join),
            *(self._leave, self._restore, self._vanish, self._lose_state, self._stop),
        )
        likely = [rng.random() ** 2 for _ in faults]
        for fault in rng.choices(faults, likely, k=rng.randint(0, 12)):
            self.at(rng.uniform(0.0, lasts_s), fault)
        self._live_until(lasts_s)
        self._heal()
        ends_s = self.now_s + SETTLED_S
        while self.now_s < ends_s and not self._is_settled():
            self._live_until(self.now_s + 5.0)
        self._check()
        return Outcome(self.seed, size, tuple(self.ledger.violations), self.seen)

    # ---- what nodes need ---------------------------------------------------------------------------

    def at(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._heap, (self.now_s + delay_s, self._count, what))

    def send(self, sender: str, receiver: str, message: Message) -> None:
        """A message sets out. It may be lost, come twice, or be overtaken."""
        if self.plant is Plant.NOTHING_REPAIRED and isinstance(message, Want | SnapshotWanted):
            return
        if (sender, receiver) in self._blocked or self.rng.random() < self._loss:
            return
        if self._wire:
            message = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message))
        for _ in range(1 + (self.rng.random() < self._repeats)):
            self.at(self.rng.random() * self._latency_s, partial(self._deliver, sender, receiver, message))

    def send_datagram(self, sender: str, to: Endpoint, payload: bytes) -> None:
        """A datagram of membership sets out; it fares no better."""
        self._datagrams[sender, int(self.now_s)] += 1
        receiver = self._by_address[to]
        if (sender, receiver.name) in self._blocked or self.rng.random() < self._loss:
            return
        if self.plant is Plant.DEAD_NOT_ASKED and receiver.name in self.nodes[sender].dead:
            return
        source = self.nodes[sender].address
        for _ in range(1 + (self.rng.random() < self._repeats)):
            self.at(
                self.rng.random() * self._latency_s,
                partial(self._deliver_datagram, receiver, payload, source),
            )

    def seeds(self) -> list[Endpoint]:
        """What the name of the cluster is resolved to."""
        return [node.address for node in self.nodes.values() if node.is_up]

    def noticed(self) -> None:
        """A node has changed its mind about another."""
        if not self._connecting:
            self._connecting = True
            self.at(self.rng.uniform(0.05, 0.5), self._connect_all)

    def failed(self, why: str) -> None:
        """A node has found what must not be."""
        self.ledger.violations.append(why)

    def warned(self, node: Node, warning: Warn) -> None:
        """A node tells its operator."""
        self.seen[warning.cause] += 1
        if warning.cause is Cause.FORGOTTEN and warning.node not in self._gone:
            self.ledger.any_forgotten = True
        if warning.cause is Cause.DIFFERENT_ROWS and not self.ledger.may_differ:
            self.ledger.violations.append(f"{node.name} and {warning.node} know the same, but differ")

    def _deliver(self, sender: str, receiver: str, message: Message) -> None:
        node = self.nodes.get(receiver)
        if node is not None and node.is_up and sender in node.peers:
            node.receive(sender, message)

    def _deliver_datagram(self, receiver: Node, payload: bytes, source: Endpoint) -> None:
        if receiver.is_up:
            receiver.receive_datagram(payload, source)

    def _live_until(self, end_s: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= end_s:
            self.now_s, _, what = heapq.heappop(heap)
            what()
        self.now_s = end_s

    # ---- what people do ----------------------------------------------------------------------------

    def _write_somewhere(self) -> None:
        up = [node for node in self.nodes.values() if node.is_up]
        if not up:
            return
        node = self.rng.choice(up)
        for _ in range(self.rng.choice((1, 1, 1, 12))):
            self._write(node)

    def _write(self, node: Node) -> None:
        rng = self.rng
        row_id = rng.choice(self._ids)
        before = node.disk.rows.get(row_id, {})
        number: Value = rng.randrange(1 << 30)
        groups: dict[Group, dict[str, Value]]
        if not is_present(before) or rng.random() < 0.1:
            groups = {group: {"n": number} for group in Group}
            groups[Group.PRESENCE] = {PRESENT: 1, "deleted": 0}
        elif rng.random() < 0.25:
            groups = {Group.PRESENCE: {PRESENT: 0, "deleted": None}}
        else:
            groups = {rng.choice((Group.IDENTITY, Group.LIMITS, Group.HEALTH)): {"n": number}}
        known = node.disk.known.ranges
        write = node.write(row_id, groups)
        self.ledger.acknowledged(write, before, known)
        others = (other.members for other in self.nodes.values() if other is not node)
        if any(members is not None and node.name not in members for members in others):
            self.ledger.uncounted.add(write.dot)

    # ---- what befalls them -------------------------------------------------------------------------

    def _crash(self) -> None:
        if (node := self._somebody_up()) is not None:
            self.seen["crash"] += 1
            self._take_down(node)
            # Now and then for so long that it is forgotten.
            self.at(self.rng.choice((0.5, 5.0, 20.0, 100.0)), partial(self._bring_up, node))

    def _restore(self) -> None:
        if (node := self._somebody_up()) is not None:
            node.backups.append(node.disk.copy())
            self.at(self.rng.uniform(0.0, 60.0), partial(self._restore_one, node))

    def _restore_one(self, node: Node) -> None:
        if node.is_up:
            self.seen["restore"] += 1
            self._take_down(node)
            self._replace_disk(node, partial(node.restore, node.backups[-1]))
            self.at(self.rng.uniform(0.0, 10.0), partial(self._bring_up, node))

    def _lose_state(self) -> None:
        if (node := self._somebody_up()) is not None:
            self.seen["lose_state"] += 1
            self._take_down(node)
            node.forget_members()
            self.at(self.rng.uniform(0.0, 10.0), partial(self._bring_up, node))

    def _partition(self) -> None:
        names = list(self.nodes)
        self.rng.shuffle(names)
        cut = self.rng.randint(1, len(names) - 1)
        self._block({(a, b) for a in names[:cut] for b in names[cut:]}, both=True)

    def _partition_one_way(self) -> None:
        names = list(self.nodes)
        self.rng.shuffle(names)
        cut = self.rng.randint(1, len(names) - 1)
        self._block({(a, b) for a in names[:cut] for b in names[cut:]}, both=False)

    def _block(self, pairs: set[tuple[str, str]], *, both: bool) -> None:
        self.seen["partition" if both else "one_way"] += 1
        if both:
            pairs |= {(b, a) for a, b in pairs}
        self._blocked |= pairs
        self._notice()
        self.at(self.rng.choice((2.0, 15.0, 40.0, 100.0)), partial(self._unblock, pairs))

    def _unblock(self, pairs: set[tuple[str, str]]) -> None:
        self._blocked -= pairs
        self._notice()

    def _jump(self) -> None:
        if (node := self._somebody_up()) is not None:
            self.seen["jump"] += 1
            node.offset_ms = self.rng.choice((-300_000, -20_000, -50, 50, 20_000, 50_000, 90_000))

    def _join(self) -> None:
        self.seen["join"] += 1
        self._new_node().start()
        self._notice()

    def _stop(self) -> None:
        """As an operator does: it says farewell, is not waited for, and comes back with what it had."""
        if (node := self._somebody_up()) is not None:
            self.seen["stop"] += 1
            node.say_farewell()
            if not self.has_membership:
                for other in self.nodes.values():
                    if other is not node:
                        self.at(self.rng.uniform(0.0, 1.0), partial(self._tell_left, other, node.name))
            self.at(2.0, partial(self._stop_one, node))

    def _stop_one(self, node: Node) -> None:
        if node.is_up:
            others = [other.disk.known for other in self.nodes.values() if other is not node]
            self.ledger.departed(node.disk.known, others)
            self._take_down(node)
        self.at(self.rng.choice((0.5, 5.0, 20.0, 100.0)), partial(self._bring_up, node))

    def _leave(self) -> None:
        if (node := self._somebody_up()) is not None and len(self.nodes) - len(self._leaving) > 2:
            self.seen["leave"] += 1
            if self.has_membership:
                self._leaving.add(node.name)
                node.say_farewell()
                self.at(2.0, partial(self._remove, node))
                return
            self._remove(node)
            for other in self.nodes.values():
                self.at(self.rng.uniform(0.0, TELL_S), partial(self._tell_left, other, node.name))

    def _tell_left(self, node: Node, gone: str) -> None:
        if node.is_up:
            node.left(gone)
        elif node.members is not None:
            node.members.discard(gone)

    def _vanish(self) -> None:
        if (node := self._somebody_up()) is not None and len(self.nodes) - len(self._leaving) > 2:
            self.seen["vanish"] += 1
            self._remove(node)

    # ---- parts of the above ------------------------------------------------------------------------

    def _new_node(self) -> Node:
        number = len(self.nodes) + len(self._gone)
        node = Node(f"n{number}", number, self)
        self.nodes[node.name] = node
        self._by_address[node.address] = node
        return node

    def _somebody_up(self) -> Node | None:
        up = [node for node in self.nodes.values() if node.is_up]
        return self.rng.choice(up) if up else None

    def _remove(self, node: Node) -> None:
        if node.name not in self.nodes:
            return
        if node.is_up:
            self._take_down(node)
        self._replace_disk(node, lambda: None, gone=True)
        del self.nodes[node.name]
        self._leaving.discard(node.name)
        self._gone.add(node.name)

    def _take_down(self, node: Node) -> None:
        self._replace_disk(node, node.crash)
        for peer in list(node.peers):
            self._disconnect(node.name, peer)
        self._notice()

    def _replace_disk(self, node: Node, replace: Callable[[], None], *, gone: bool = False) -> None:
        before = node.disk.known
        replace()
        after = Disk("").known if gone else node.disk.known
        others = [other.disk.known for other in self.nodes.values() if other is not node]
        self.ledger.disk_changed(before, after, others)

    def _bring_up(self, node: Node) -> None:
        if not node.is_up and node.name in self.nodes:
            node.start()
            self._notice()

    # ---- who is connected with whom ------------------------------------------------------------------

    def _notice(self) -> None:
        self.at(self.rng.uniform(0.1, TELL_S), self._connect_all)

    def _connect_all(self) -> None:
        self._connecting = False
        if not self.has_membership:
            self._tell_of_the_gone()
        for a, b in combinations(self.nodes.values(), 2):
            reachable = (
                a.is_up
                and b.is_up
                and (a.name, b.name) not in self._blocked
                and (b.name, a.name) not in self._blocked
                and (a.wants(b.name) or b.wants(a.name))
            )
            if not reachable:
                self._disconnect(a.name, b.name)
                if not self.has_membership:
                    for one, other in ((a, b), (b, a)):
                        if one.is_up:
                            if other.name not in (one.members or ()):
                                one.alive(other.name)
                            one.died(other.name)
            elif b.name not in a.peers:
                a.connect(b.name)
                b.connect(a.name)

    def _tell_of_the_gone(self) -> None:
        """Be the oracle: who is gone is dead."""
        for node in self.nodes.values():
            if node.is_up:
                for name in node.members or ():
                    if name not in node.peers and (name in self._gone or not self.nodes[name].is_up):
                        node.died(name)

    def _disconnect(self, a: str, b: str) -> None:
        for one, other in ((a, b), (b, a)):
            node = self.nodes.get(one)
            if node is not None and other in node.peers:
                if node.is_up:
                    node.disconnect(other)
                else:
                    node.peers.discard(other)

    # ---- the end -----------------------------------------------------------------------------------

    def _heal(self) -> None:
        self._blocked.clear()
        self._loss = 0.0
        for node in self.nodes.values():
            node.offset_ms = 0
            if not node.is_up:
                node.start()
        self._connect_all()

    def _is_settled(self) -> bool:
        first, *others = self.nodes.values()
        ranges = first.disk.known.ranges
        return (
            all(node.disk.known.ranges == ranges for node in others)
            and all(is_present(cells) for node in self.nodes.values() for cells in node.disk.rows.values())
            and all(other.name in node.peers for node, other in permutations(self.nodes.values(), 2))
            and len({node.store.fingerprint() for node in self.nodes.values()}) == 1
            and not any(self._wrong_company())
        )

    def _wrong_company(self) -> Iterator[str]:
        """Whom members see alive, and are not the others."""
        for node in self.nodes.values():
            if node.membership is not None:
                alive = {member.claim.node for member in node.membership.members.within(State.ALIVE)}
                if wrong := alive ^ (self.nodes.keys() - {node.name}):
                    yield f"{node.name} is wrong about who is there: {sorted(wrong)}"

    def _check(self) -> None:
        violations = self.ledger.violations
        first, *others = self.nodes.values()
        for other in others:
            if other.disk.known.ranges != first.disk.known.ranges:
                violations.append(f"{first.name} and {other.name} do not know the same")
            if _present(other.disk) != _present(first.disk):
                violations.append(f"{first.name} and {other.name} have different rows")
        for node in self.nodes.values():
            if missing := self.nodes.keys() - node.peers - {node.name}:
                violations.append(f"{node.name} is not connected with {sorted(missing)}")
            tombstones = len(node.disk.rows) - len(_present(node.disk))
            if tombstones:
                violations.append(f"{node.name} keeps {tombstones} tombstones")
            if not all(
                node.disk.known.has(cell.dot) for cells in node.disk.rows.values() for cell in cells.values()
            ):
                violations.append(f"{node.name} has a cell that it does not know")
            if len(node.disk.log) > self.limits.log:
                violations.append(f"{node.name} has {len(node.disk.log)} entries in its log")
        violations.extend(self._wrong_company())
        most = max(self._datagrams.values(), default=0)
        if most > MAX_DATAGRAMS + MAX_DATAGRAMS_FOR_EACH * (len(self.nodes) + len(self._gone)):
            violations.append(f"a node sent {most} datagrams of membership within a second")
        self.ledger.check_rows(_present(first.disk))


def _present(disk: Disk) -> dict[str, Cells]:
    return {row_id: cells for row_id, cells in disk.rows.items() if is_present(cells)}
