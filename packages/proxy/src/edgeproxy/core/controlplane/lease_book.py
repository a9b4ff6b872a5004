"""Which leases this POP holds, when each was renewed, and what is due to be written about them.

Heartbeats are many and change nothing that anybody routes by, so they are noted here and stored in
batches. Two clocks are at work: what decides is one that nobody sets, so that a step of the wall clock ends
no lease; what is stored is wall time. After a restart every lease counts from there, because it was the
proxy that was away, not the backends.

POPs that replicate share leases. The one that got the last heartbeat owns the lease, and while that POP is
there it alone lets the lease run out; when it is gone every other may, counting from then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from edgeproxy.core.controlplane.leases import (
    AlreadyUnhealthy,
    HeardElsewhere,
    Outcome,
    expiry,
    removal,
    renewal,
)
from edgeproxy.ports import Lease, LeaseOperation, LeaseWrite

REMOVED_AFTER_TTLS: Final = 3


class Held(msgspec.Struct):
    """One lease as this process sees it."""

    id: str
    registered_at_s: float
    """Wall time."""
    heard_s: float
    """When the last heartbeat came, or when this process began to wait for one."""
    saved_s: float
    """The ``heard_s`` that the store knows of."""
    stored_at_s: float
    """The last heartbeat as the store has it, in wall time."""
    ran_out: bool
    """Whether what happens at the TTL has happened."""
    owner: str
    """The POP that got the last heartbeat, as far as is known here."""


class Due(msgspec.Struct, frozen=True):
    """Something to be written about one lease."""

    id: str
    operation: LeaseOperation[Outcome]
    heard_s: float
    """What the operation knows of; a later heartbeat is not in it."""


class LeaseBook:
    """All leases of this POP. ``now_s`` is a clock that nobody sets, ``wall_s`` the time of day."""

    def __init__(
        self, ttl_s: float, owner: str, is_elsewhere: Callable[[str], bool] = lambda _owner: False
    ) -> None:
        """``owner`` is the name of this POP; ``is_elsewhere`` tells of another whether it is there."""
        self.ttl_s = ttl_s
        self._owner = owner
        self._is_elsewhere = is_elsewhere
        self._held: dict[str, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def held(self) -> Iterable[Held]:
        """All of them, in no particular order."""
        return self._held.values()

    def get(self, backend_id: str) -> Held | None:
        return self._held.get(backend_id)

    def is_current(self, held: Held, now_s: float) -> bool:
        """Whether its last heartbeat is no older than the TTL."""
        return now_s - held.heard_s <= self.ttl_s

    def beat(self, backend_id: str, now_s: float) -> bool:
        """Note a heartbeat; false when only the store can take it.

        That is when the lease is unknown, another POP's, or ran out, be it that this is only about to be
        written.
        """
        held = self._held.get(backend_id)
        if held is None or held.ran_out or not self.is_current(held, now_s):
            return False
        if held.owner != self._owner:
            return False
        held.heard_s = now_s
        return True

    def put(self, lease: Lease, now_s: float) -> None:
        """Hold a lease that is renewed as of now."""
        self._held[lease.id] = Held(
            id=lease.id,
            registered_at_s=lease.registered_at_s,
            heard_s=now_s,
            saved_s=now_s,
            stored_at_s=lease.heartbeat_at_s,
            ran_out=lease.expired,
            owner=lease.owner,
        )

    def drop(self, backend_id: str) -> None:
        """Forget a lease; an unknown one is ignored."""
        self._held.pop(backend_id, None)

    def replace(self, stored: Iterable[Lease], now_s: float) -> None:
        """Hold exactly those that are in the store; one that is new here counts from now."""
        before, self._held = self._held, {}
        for lease in stored:
            known = before.get(lease.id)
            if known is None or (known.owner != lease.owner and not self._is_ahead(known)):
                self.put(lease, now_s)
            else:
                known.ran_out = known.ran_out if lease.owner == self._owner else lease.expired
                self._held[lease.id] = known

    def _is_ahead(self, held: Held) -> bool:
        """Whether this POP heard something that the store does not know of."""
        return held.owner == self._owner and held.heard_s > held.saved_s

    def due(self, now_s: float, wall_s: float) -> list[Due]:
        """What is to be written now. It stays due until :meth:`take` hears that it was."""
        found = []
        for held in self._held.values():
            if held.owner != self._owner and self._is_elsewhere(held.owner):
                held.heard_s = held.saved_s = now_s  # feature: replication.leases
                continue
            operation = self._due(held, now_s, wall_s)
            if operation is not None:
                found.append(Due(held.id, operation, held.heard_s))
        return found

    def _due(self, held: Held, now_s: float, wall_s: float) -> LeaseOperation[Outcome] | None:
        silent_s = now_s - held.heard_s
        if silent_s > REMOVED_AFTER_TTLS * self.ttl_s:
            return removal(held.id, known_at_s=held.stored_at_s)
        if silent_s > self.ttl_s:
            return None if held.ran_out else expiry(held.id, known_at_s=held.stored_at_s)
        if held.heard_s > held.saved_s:
            return renewal(held.id, at_s=wall_s - silent_s, owner=self._owner)
        return None

    def take(self, due: Due, outcome: Outcome, now_s: float) -> None:
        """Learn what the store made of something that was due."""
        held = self._held.get(due.id)
        if held is None:
            return
        match outcome:
            case LeaseWrite(lease=Lease() as lease):
                held.saved_s = due.heard_s
                held.stored_at_s = lease.heartbeat_at_s
                held.ran_out = lease.expired
                held.owner = lease.owner
            case AlreadyUnhealthy():
                held.saved_s = due.heard_s
                held.ran_out = True
            case HeardElsewhere(lease):
                self.put(lease, now_s)
            case _:
                self.drop(due.id)
