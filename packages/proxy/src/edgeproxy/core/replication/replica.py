"""One replica: what it tells its peers and asks of them, so that all come to have the same rows.

Facts go in (something was written here, a message came, the store has done something, time passes), commands
come out; the machine reads no clock and touches nothing. Three things happen:

- *Push.* What is written here goes to every peer at once. It may be lost.
- *Comparison.* Now and then, and when a connection begins, two members exchange digests of what they know.
  Each then *pulls* what it lacks, from one peer at a time and in bounded portions, and so learns what pushes
  missed.
- *Snapshot.* Who lacks what has been dropped from logs, or what others have collected tombstones for, pulls
  a snapshot instead, part by part, and after it what was written meanwhile.

Beside its vector a digest bears a fingerprint of the rows. Two members that know the same writes have the
same rows, unless a member came back after it had been forgotten, or a file was tampered with. Then both pull
a snapshot of each other, which makes their rows equal (:func:`~edgeproxy.core.replication.rows.installed`).

Nothing here grows with a slow peer: pushes that it does not take are dropped by the transport, one pull is
under way at a time, and while the store is behind what is pushed to us is not taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from edgeproxy.core.replication.acknowledgements import Acknowledgements
from edgeproxy.core.replication.clock import ahead_ms
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
from edgeproxy.core.replication.messages import (
    MAX_RANGES,
    Changes,
    Digest,
    Gone,
    Message,
    Ranges,
    SnapshotPart,
    SnapshotWanted,
    Want,
    batches,
)
from edgeproxy.core.replication.model import Dot, RowState, Stamp, Write
from edgeproxy.core.replication.vector import Known, bounded, common

PULL_TIMEOUT_S: Final = 10.0
"""A peer that lets us wait for longer is not asked again before the next comparison."""
MAX_APPLYING: Final = 8_192
"""Writes that wait for the store. What comes beyond is dropped; a comparison brings it back."""


class Now(NamedTuple):
    """A moment, on two clocks."""

    s: float
    """Of a clock that nobody sets."""
    wall_ms: int
    """Milliseconds since 1970, as this node has it."""


class Terms(NamedTuple):
    """How a replica behaves."""

    sync_interval_s: float = 5.0
    """Between two comparisons that this node begins."""
    retention_s: float = 86_400.0
    """After being dead for so long a member is forgotten, and tombstones are no longer kept for it."""


class _Pull(msgspec.Struct):
    """What was asked of one peer, and has not come yet."""

    peer: str
    deadline_s: float
    asked: Known
    """Writes; none while it is a snapshot."""
    snapshot: bool = False
    origin: str | None = None
    """Of the peer, when the snapshot began."""
    known: Ranges = {}
    """The snapshot's vector."""
    after: str | None = None
    """The next part of the snapshot begins behind this id."""


class Replica:
    """The machine of one node. Every fact returns what to do about it, in order.

    The shell reports local writes once they are durable, and what became of the commands to the store, all in
    the order in which the store did it.
    """

    def __init__(
        self,
        node: str,
        origin: str,
        known: Ranges,
        terms: Terms,
        now: Now,
        members: Iterable[str] | None = None,
    ) -> None:
        """``origin`` and ``known`` are those of the store, ``members`` those remembered from the last run.

        A node that remembers none, as a new one, may not have heard of all: it collects no tombstone before
        a member it does not know of would have been forgotten.
        """
        self.node = node
        self.origin = origin
        self.drift_ms: dict[str, int] = {}
        """Connected peer to how far its wall clock was ahead of ours when its last digest came."""
        self._terms = terms
        self._known = Known(known)
        self._acknowledgements = Acknowledgements(terms.retention_s)
        for member in members or ():
            # Perhaps nobody will ever say a word about it, because it is gone for ever.
            self._acknowledgements.alive(member)
            self._acknowledgements.dead(member, now.s)
        self._collect_from_s = now.s + (terms.retention_s if members is None else 0.0)
        self._peers: list[str] = []
        self._round: list[str] = []
        """Peers that are still to be compared with, before any is again."""
        self._next_sync_s = now.s
        self._pull: _Pull | None = None
        self._applying = 0
        self._stable: Ranges = {}
        """What all members had acknowledged when tombstones were last collected."""
        self._collected = Known()
        """All that tombstones were ever collected for. With a new member less is stable than before."""
        self._may_collect = False
        """Whether a snapshot has come since, which may have brought some that were collected here."""
        self._renewing = False
        self._given = 0
        """The last number that the store is known to have given, perhaps to a write of another process."""
        self._fingerprint: tuple[Ranges, int] | None = None
        self._quiet: Ranges | None = None
        """What was known at the last comparison that this node began."""
        self._owing = Known()
        """Vectors of snapshots. A part removes rows, so until all is known rows and vector disagree."""

    # ---- what is known of the others ---------------------------------------------------------------

    @property
    def known(self) -> Mapping[str, tuple[tuple[int, int], ...]]:
        """What this node knows."""
        return self._known.ranges

    @property
    def lag(self) -> Mapping[str, int]:
        """Origin to how many writes members are known to have that are not known here."""
        result: dict[str, int] = {}
        for ranges in self._acknowledgements.others_know():
            for origin, spans in self._known.lacks(ranges).items():
                missing = sum(last - first + 1 for first, last in spans)
                result[origin] = max(missing, result.get(origin, 0))
        return result

    @property
    def pulling(self) -> str | None:
        """The peer of which something is being pulled."""
        return None if self._pull is None else self._pull.peer

    def alive(self, node: str) -> None:
        """Membership: it is a member, and not known to be dead."""
        self._acknowledgements.alive(node)

    def dead(self, node: str, now: Now) -> None:
        """Membership: it is dead, or cannot be reached."""
        self._acknowledgements.dead(node, now.s)

    def left(self, node: str) -> None:
        """Membership: it is a member no more, by its own will or an operator's."""
        self._acknowledgements.left(node)

    def connected(self, peer: str, now: Now) -> Commands:
        """Messages can be sent to a peer, and it has proven who it is. That makes it no member yet."""
        if peer not in self._peers:
            self._peers = sorted((*self._peers, peer))
        return [Send(peer, self._digest(now, answer=True))]

    def disconnected(self, peer: str) -> None:
        """Nothing can be sent to it any more."""
        self._peers = [each for each in self._peers if each != peer]
        self.drift_ms.pop(peer, None)
        if self._pull is not None and self._pull.peer == peer:
            self._pull = None

    # ---- time --------------------------------------------------------------------------------------

    def next_s(self) -> float:
        """When :meth:`tick` is due; earlier and later do no harm."""
        return self._next_sync_s if self._pull is None else min(self._next_sync_s, self._pull.deadline_s)

    def tick(self, now: Now, draw: float) -> Commands:
        """Time has passed; ``draw`` is from 0 up to 1."""
        if self._pull is not None and now.s >= self._pull.deadline_s:
            self._pull = None
        commands: list[Command] = [
            Warn(Cause.FORGOTTEN, node) for node in self._acknowledgements.forget(now.s)
        ]
        if now.s < self._next_sync_s:
            return commands
        self._round = [each for each in self._round if each in self._peers] or list(self._peers)
        place, jitter = divmod(draw * max(1, len(self._round)), 1)
        # In step, all would compare at once; so intervals differ by up to a quarter.
        self._next_sync_s = now.s + self._terms.sync_interval_s * (0.75 + jitter / 2)
        commands += self._collect(now)
        known = self._known.ranges
        if known == self._quiet and self._fingerprint is None and self._known.covers(self._owing.ranges):
            commands.append(ReadFingerprint())
        self._quiet = known
        if self._round:
            commands.append(Send(self._round.pop(int(place)), self._digest(now, answer=True)))
        return commands

    # ---- the store ---------------------------------------------------------------------------------

    def written(self, writes: Sequence[Write]) -> Commands:
        """Writes of this node are durable in the store, in the order of their numbers."""
        for write in writes:
            self._learned(write.dot)
        return [Send(peer, Changes(each)) for each in batches(writes) for peer in self._peers]

    def applied(self, command: ApplyWrites, now: Now) -> Commands:
        """The store has done it."""
        self._applying -= len(command.writes)
        for write in command.writes:
            self._learned(write.dot)
        return self._go_on(command.peer, command.writes, now)

    def log_read(self, command: ReadLog, writes: Sequence[Write], *, gone: bool) -> Commands:
        """The store has read these writes; ``gone`` says that it has dropped some that it knows."""
        commands: list[Command] = [Send(command.peer, Changes(each)) for each in batches(writes)]
        if gone:
            commands.append(Send(command.peer, Gone()))
        return commands

    def rows_read(
        self, command: ReadRows, rows: Sequence[RowState], until: str | None, known: Ranges
    ) -> Commands:
        """The store has read these rows and, in the same transaction, what is known."""
        if spans := known.get(self.origin):
            self._given = max(self._given, spans[-1][1])
        part = SnapshotPart(self.origin, command.after, until, known, tuple(rows))
        return [Send(command.peer, part)]

    def installed(self, command: InstallRows, now: Now) -> Commands:
        """The store has merged this part of a snapshot."""
        self._fingerprint = None
        self._may_collect = True
        for row in command.rows:
            for cell in row.cells.values():
                self._known.add(cell.dot)
        if command.learn:
            self._known.learn(command.known)
        pull = self._pull
        if pull is None or pull.peer != command.peer or not pull.snapshot:
            return []
        if command.learn:
            self._pull = None
            return [Send(command.peer, self._digest(now, answer=True))]
        pull.deadline_s = now.s + PULL_TIMEOUT_S
        return [Send(command.peer, SnapshotWanted(pull.after))]

    def fingerprint_read(self, known: Ranges, fingerprint: int) -> None:
        """The store has read both in one transaction."""
        self._fingerprint = (dict(known), fingerprint)

    def renewed(self, origin: str) -> None:
        """What is written here from now on belongs to this new origin."""
        self.origin = origin
        self._given = 0
        self._renewing = False

    def store_failed(self, command: Command) -> None:
        """The store could not do it now. It will be asked again in the course of things."""
        if isinstance(command, ApplyWrites):
            self._applying -= len(command.writes)
        elif isinstance(command, InstallRows):
            self._pull = None
        elif isinstance(command, Renew):
            self._renewing = False

    # ---- messages ----------------------------------------------------------------------------------

    def received(self, peer: str, message: Message, now: Now) -> Commands:
        """A message came from a peer that has proven who it is."""
        match message:
            case Changes():
                return self._received_changes(peer, message, now)
            case Digest():
                return self._received_digest(peer, message, now)
            case Want():
                return self._received_want(peer, message)
            case Gone():
                return self._received_gone(peer, now)
            case SnapshotWanted():
                return [ReadRows(peer, message.after)]
            case _:
                return self._received_part(peer, message, now)

    def _received_changes(self, peer: str, message: Changes, now: Now) -> Commands:
        commands: list[Command] = []
        fresh = []
        for write in message.writes:
            if self._known.has(write.dot):
                continue
            commands += self._own_numbers(peer, write.dot.origin, write.dot.sequence)
            if early_ms := ahead_ms(write.stamp, now.wall_ms):
                commands.append(_too_early(write.stamp, write.dot, early_ms))
            else:
                fresh.append(write)
        if fresh and self._applying + len(fresh) <= MAX_APPLYING:
            self._applying += len(fresh)
            commands.append(ApplyWrites(peer, tuple(fresh)))
        return commands

    def _received_digest(self, peer: str, message: Digest, now: Now) -> Commands:
        self._acknowledgements.said(peer, message.known, now.s)
        self.drift_ms[peer] = message.wall_ms - now.wall_ms
        commands: list[Command] = []
        if message.answer:
            commands.append(Send(peer, self._digest(now, answer=False)))
        own = message.known.get(self.origin)
        if own:
            commands += self._own_numbers(peer, self.origin, own[-1][1])
        if self._pull is not None:
            return commands
        if missing := self._known.lacks(message.known):
            return [*commands, *self._want(peer, missing, now)]
        if self._differs(message):
            return [*commands, Warn(Cause.DIFFERENT_ROWS, peer), *self._want_snapshot(peer, now)]
        return commands

    def _received_want(self, peer: str, message: Want) -> Commands:
        # Whoever lacks what all had acknowledged may have rows whose tombstones are gone.
        if common([message.ranges, self._collected.ranges]):
            return [Send(peer, Gone())]
        return [ReadLog(peer, bounded(message.ranges, MAX_RANGES))]

    def _received_gone(self, peer: str, now: Now) -> Commands:
        pull = self._pull
        if pull is None or pull.peer != peer or pull.snapshot:
            return []
        return [Warn(Cause.SNAPSHOT, peer), *self._want_snapshot(peer, now)]

    def _received_part(self, peer: str, message: SnapshotPart, now: Now) -> Commands:
        pull = self._pull
        if pull is None or pull.peer != peer or not pull.snapshot or pull.after != message.after:
            return []
        if pull.origin not in (None, message.origin):
            # It went back to an earlier state, so the vector of the first part says nothing of this one.
            self._pull = None
            return []
        for row in message.rows:
            for cell in row.cells.values():
                if early_ms := ahead_ms(cell.stamp, now.wall_ms):
                    self._pull = None
                    return [_too_early(cell.stamp, cell.dot, early_ms)]
        if pull.origin is None:
            pull.origin, pull.known = message.origin, message.known
        self._owing.learn(pull.known)
        pull.after = message.until
        pull.deadline_s = now.s + PULL_TIMEOUT_S
        last = message.until is None
        part = InstallRows(peer, message.after, message.until, pull.known, message.rows, last)
        own = pull.known.get(self.origin)
        return [*self._own_numbers(peer, self.origin, own[-1][1] if own else 0), part]

    # ---- parts of the above ------------------------------------------------------------------------

    def _learned(self, dot: Dot) -> None:
        if self._known.add(dot):
            self._fingerprint = None

    def _digest(self, now: Now, *, answer: bool) -> Digest:
        known = self._known.ranges
        fingerprint = None
        if self._fingerprint is not None and self._fingerprint[0] == known:
            fingerprint = self._fingerprint[1]
        return Digest(self.origin, known, fingerprint, now.wall_ms, answer)

    def _differs(self, message: Digest) -> bool:
        mine = self._fingerprint
        return (
            mine is not None
            and message.fingerprint is not None
            and mine[0] == message.known
            and mine[1] != message.fingerprint
        )

    def _want(self, peer: str, missing: Ranges, now: Now) -> Commands:
        ranges = bounded(missing, MAX_RANGES)
        self._pull = _Pull(peer, now.s + PULL_TIMEOUT_S, Known(ranges))
        return [Send(peer, Want(ranges))]

    def _want_snapshot(self, peer: str, now: Now) -> Commands:
        self._pull = _Pull(peer, now.s + PULL_TIMEOUT_S, Known(), snapshot=True)
        return [Send(peer, SnapshotWanted(None))]

    def _go_on(self, peer: str, writes: Sequence[Write], now: Now) -> Commands:
        """Ask for the rest of what is being pulled, if these writes are part of it."""
        pull = self._pull
        if pull is None or pull.peer != peer or not any(pull.asked.has(each.dot) for each in writes):
            return []
        if missing := self._known.lacks(pull.asked.ranges):
            return self._want(peer, missing, now)
        self._pull = None
        # There may be more than was asked for, and more may have come since.
        return [Send(peer, self._digest(now, answer=True))]

    def _own_numbers(self, peer: str, origin: str, sequence: int) -> Commands:
        """See to it that no number is given again that a peer has a write under."""
        if origin != self.origin or self._renewing or sequence <= max(self._known.last(origin), self._given):
            return []
        self._renewing = True
        return [Warn(Cause.NUMBERS_REUSED, peer, origin), Renew(origin)]

    def _collect(self, now: Now) -> Commands:
        if now.s < self._collect_from_s:
            return []
        stable = self._acknowledgements.stable(self._known)
        if stable is None or (stable == self._stable and not self._may_collect):
            return []
        self._stable = stable
        self._collected.learn(stable)
        self._may_collect = False
        return [Collect(stable)]


def _too_early(stamp: Stamp, dot: Dot, early_ms: int) -> Warn:
    return Warn(Cause.CLOCK_AHEAD, stamp.node, dot.origin, early_ms)
