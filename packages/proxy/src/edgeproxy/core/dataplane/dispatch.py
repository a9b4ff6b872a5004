"""From a client to a leased backend: affinity first, then selection, never beyond a limit.

The binding is locked from the look-up until the lease is taken, so that two first connections of
one client that arrive in different workers at the same moment end up on the same backend. The
place on the backend is reserved before the connect, so that a burst cannot overshoot
``hard_limit``; whoever was given a lease gives it back exactly once.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from math import inf
from typing import Protocol

import msgspec

from edgeproxy.core.dataplane.affinity import (
    Binding,
    binding_tag,
    country_code,
    holds,
    stable_key,
    worth_renewing,
)
from edgeproxy.core.dataplane.selection import Selection, geo_score, load, score
from edgeproxy.core.model import GOOD, Backend, Client, Verdict


class Bindings(Protocol):
    """Affinity as all workers see it."""

    secret: int

    def lock(self, tag: int) -> None:
        """Keep others from the binding of ``tag`` until :meth:`unlock`."""
        ...

    def unlock(self, tag: int) -> None: ...

    def get(self, tag: int) -> Binding | None: ...

    def put(self, tag: int, binding: Binding) -> None:
        """Store under ``tag``; where there is no room, what was used least recently goes."""
        ...

    def discard(self, tag: int) -> None:
        """Forget what is stored under ``tag``, if anything is."""
        ...


class Leases(Protocol):
    """Open connections per backend as all workers count them."""

    def changed_slots(self) -> Collection[int] | None:
        """Slots whose count others changed since the last call; ``None``: any of them may have."""
        ...

    def connections(self, slot: int) -> int: ...

    def acquire(self, slot: int, hard_limit: int) -> bool:
        """Count one more connection, unless that would exceed ``hard_limit`` (0: no limit)."""
        ...

    def acquire_trial(self, slot: int, hard_limit: int) -> bool:
        """As :meth:`acquire`, and take one of the connections that the trial lets through, if any is left."""
        ...

    def release(self, slot: int) -> None: ...


class Refusal(StrEnum):
    """Why a client is given no backend."""

    NO_BACKEND = "no_backend"
    """No row of the app is healthy, or this POP finds none of them good."""
    AT_LIMIT = "at_limit"
    """There are healthy ones, all at their ``hard_limit``."""
    UNREACHABLE = "unreachable"
    """Those with room were tried and could not be reached."""


class Lease:
    """A place on a backend, and how it was come by. Give it back with :meth:`Dispatcher.release`."""

    __slots__ = ("backend", "from_affinity", "score", "slot", "tag", "used_s")

    def __init__(
        self, backend: Backend, slot: int, score: float, tag: int, used_s: float, from_affinity: bool
    ) -> None:
        self.backend = backend
        self.slot = slot
        self.score = score
        self.tag = tag
        self.from_affinity = from_affinity
        self.used_s = used_s
        """Last use of the client's binding that was noted for this lease."""


class Dispatcher:
    """Gives clients their backends."""

    def __init__(
        self,
        pop_region: str,
        binding_ttl_s: float,
        selection: Selection,
        bindings: Bindings,
        leases: Leases,
    ) -> None:
        self._pop_region = pop_region
        self.binding_ttl_s = binding_ttl_s
        self._selection = selection
        self._bindings = bindings
        self._leases = leases
        self._slot_by_key: dict[int, int] = {}
        self._key_by_slot: dict[int, int] = {}
        self._key_by_app: dict[str, int] = {}
        self._trials: set[int] = set()
        self._stale: set[int] = set()
        """Slots whose count the selection must be told before it chooses."""

    def put(self, slot: int, backend: Backend, verdict: Verdict = GOOD) -> None:
        """The routing table has a new or changed row, or the POP another verdict on it."""
        key = stable_key(backend.id)
        if self._key_by_slot.get(slot) != key:
            self.discard(slot)
            self._slot_by_key[key] = slot
            self._key_by_slot[slot] = key
        self._selection.put(slot, backend, self._leases.connections(slot), verdict)
        if verdict.trial:
            self._trials.add(slot)
        else:
            self._trials.discard(slot)

    def discard(self, slot: int) -> None:
        """The routing table has lost the row of ``slot``."""
        key = self._key_by_slot.pop(slot, None)
        if key is not None:
            if self._slot_by_key.get(key) == slot:
                del self._slot_by_key[key]
            self._trials.discard(slot)
            self._selection.discard(slot)

    def dispatch(
        self,
        app: str,
        client: Client,
        network: int,
        now_s: float,
        draw: float,
        tried: Collection[int] = (),
    ) -> Lease | Refusal:
        """Lease a backend of ``app`` for ``client``.

        ``network`` is the client's affinity network, ``now_s`` the time on the clock that all
        workers share, ``draw`` uniform in [0, 1). ``tried`` holds the slots that this connection
        could not reach before.
        """
        self._catch_up()
        bindings = self._bindings
        tag = binding_tag(bindings.secret, self._app_key(app), network)
        bindings.lock(tag)
        try:
            lease = self._bound(app, client, tag, now_s, tried)
            if lease is not None and not worth_renewing(lease.used_s, now_s, self.binding_ttl_s):
                return lease
            if lease is None and (lease := self._best(app, client, tag, draw, tried)) is None:
                return self._refusal(app, tried)
            lease.used_s = now_s
            bindings.put(tag, Binding(self._key_by_slot[lease.slot], country_code(client.country), now_s))
            return lease
        finally:
            bindings.unlock(tag)

    def release(self, lease: Lease) -> None:
        """Give back a place; the binding stays."""
        self._leases.release(lease.slot)
        self._stale.add(lease.slot)

    def unreachable(self, lease: Lease) -> None:
        """Give back a place that could not be connected to; the client is bound there no more."""
        self._bindings.lock(lease.tag)
        try:
            if self._binding_behind(lease) is not None:
                self._bindings.discard(lease.tag)
        finally:
            self._bindings.unlock(lease.tag)
        self.release(lease)

    def renew(self, lease: Lease, now_s: float) -> None:
        """An open connection keeps its binding in use, unless the client has been bound elsewhere."""
        if not worth_renewing(lease.used_s, now_s, self.binding_ttl_s):
            return
        lease.used_s = now_s
        self._bindings.lock(lease.tag)
        try:
            binding = self._binding_behind(lease)
            if binding is not None:
                self._bindings.put(lease.tag, msgspec.structs.replace(binding, last_use_s=now_s))
        finally:
            self._bindings.unlock(lease.tag)

    def _catch_up(self) -> None:
        """Hear of what other workers counted."""
        changed = self._leases.changed_slots()
        if changed is None:
            self._stale.update(self._key_by_slot)
        elif changed:
            self._stale.update(changed)

    def _binding_behind(self, lease: Lease) -> Binding | None:
        """The client's binding while it names the backend of ``lease``; the caller holds the lock."""
        binding = self._bindings.get(lease.tag)
        if binding is not None and binding.backend_key == self._key_by_slot.get(lease.slot):
            return binding
        return None

    def _app_key(self, app: str) -> int:
        key = self._key_by_app.get(app)
        if key is None:
            key = self._key_by_app[app] = stable_key(app)
        return key

    def _bound(
        self, app: str, client: Client, tag: int, now_s: float, tried: Collection[int]
    ) -> Lease | None:
        binding = self._bindings.get(tag)
        if binding is None or not holds(binding, country_code(client.country), now_s, self.binding_ttl_s):
            return None
        slot = self._slot_by_key.get(binding.backend_key)
        if slot is None or slot in tried:
            return None
        connections = self._leases.connections(slot)
        backend = self._selection.eligible(app, slot, connections)
        if backend is None or not self._acquire(app, slot, backend):
            return None
        geo = geo_score(backend, client.country, client.region, self._pop_region)
        score_ = score(geo, load(backend, connections, self._selection.weight_factor(slot)))
        return Lease(backend, slot, score_, tag, binding.last_use_s, True)  # feature: affinity.kept

    def _best(self, app: str, client: Client, tag: int, draw: float, tried: Collection[int]) -> Lease | None:
        selection, leases, stale = self._selection, self._leases, self._stale
        while True:
            for slot in stale:
                selection.set_connections(slot, leases.connections(slot))
            stale.clear()
            chosen = selection.choose(app, client.country, client.region, draw, tried)
            if chosen is None:
                return None
            if self._acquire(app, chosen.slot, chosen.backend):
                return Lease(chosen.backend, chosen.slot, chosen.score, tag, -inf, False)
            # Another worker took the last place, or the last one of a trial; the selection is told, so the
            # next choice differs.

    def _acquire(self, app: str, slot: int, backend: Backend) -> bool:
        self._stale.add(slot)
        if self._trials and slot in self._trials and not self._selection.is_panicking(app):
            return self._acquire_trial(slot, backend)
        return self._leases.acquire(slot, backend.hard_limit)

    def _acquire_trial(self, slot: int, backend: Backend) -> bool:
        acquired = self._leases.acquire_trial(slot, backend.hard_limit)
        if not acquired:
            # Until the next verdict: what this trial lets through is on its way already.
            self._trials.discard(slot)
            self._selection.judge(slot, Verdict(is_good=False))
        return acquired

    def _refusal(self, app: str, tried: Collection[int]) -> Refusal:
        if tried:
            return Refusal.UNREACHABLE
        # feature: selection.hard_limit
        return Refusal.NO_BACKEND if self._selection.is_empty(app) else Refusal.AT_LIMIT
