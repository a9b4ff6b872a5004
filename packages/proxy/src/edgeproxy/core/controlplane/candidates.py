"""The data plane's selection as the control process runs it: same formula, nothing leased, nobody bound.

Workers keep one :class:`~edgeproxy.core.dataplane.selection.Selection` up to date as they count. So does
this, with the counts that workers share, so that a question costs what a connection costs and not a look
at every row. There is one selection for each *view*, since a question may want addresses of one IP
version only, or backends of one region only: a backend stands in two views for each IP version it has,
and in the two that take either.

Counts are taken over a few times a second at most: an answer is kept by its asker for many times longer.
Only a backend's ``hard_limit`` is compared with the count of this moment, for each backend answered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from ipaddress import IPv6Address, ip_address
from math import inf
from typing import Final, Literal, Protocol

import msgspec

from edgeproxy.core.controlplane.directory import Directory
from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.selection import PANIC_THRESHOLD, Selection, has_room
from edgeproxy.core.model import GOOD, Backend, Client, Verdict

IpVersion = Literal[4, 6]

COUNTS_MAX_AGE_S: Final = 0.1


class Table(Protocol):
    """The routing table, as far as it is read here."""

    @property
    def version(self) -> int: ...

    def snapshot(self) -> Collection[PlacedBackend]: ...


class Counts(Protocol):
    """Open connections per slot, as workers count them."""

    def changed_slots(self) -> Collection[int] | None:
        """Slots whose count changed since the last call; ``None``: any may have."""
        ...

    def connections(self, slot: int) -> int: ...


class Reachable(msgspec.Struct, frozen=True):
    """A backend with the addresses that its host means now; none while a host name does not resolve."""

    backend: Backend
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]
    verdict: Verdict = GOOD

    def addresses(self, version: IpVersion | None) -> tuple[str, ...]:
        """Those of one IP version, or all of them."""
        if version is None:
            return self.ipv4 + self.ipv6
        return self.ipv4 if version == 4 else self.ipv6


class Candidates:
    """Every backend of the table, in order of what a client would get."""

    def __init__(
        self,
        pop_region: str,
        table: Table,
        counts: Counts,
        hosts: Callable[[], Mapping[str, tuple[str, ...]]],
        panic_threshold: float = PANIC_THRESHOLD,
    ) -> None:
        """Begin empty; the first :meth:`catch_up` fills it.

        ``hosts`` gives every host name's addresses. ``counts.changed_slots`` must have no other caller.
        """
        self.directory = Directory()
        self._pop_region = pop_region
        self._table = table
        self._counts = counts
        self._hosts = hosts
        self._panic_threshold = panic_threshold
        self._version = -1
        self._counted_s = -inf
        self._resolved: Mapping[str, tuple[str, ...]] = {}
        self._reachable: dict[int, Reachable] = {}
        self._views: dict[tuple[IpVersion | None, str | None], Selection] = {}

    def set_panic_threshold(self, threshold: float) -> None:
        """Go by another threshold from now on."""
        self._panic_threshold = threshold
        for view in self._views.values():
            view.set_panic_threshold(threshold)

    def catch_up(self, now_s: float) -> None:
        """Take in what changed. To be called before each question; ``now_s`` is on any steady clock."""
        if self._table.version != self._version:
            self._version = self._table.version
            self._follow_table()
        if now_s - self._counted_s >= COUNTS_MAX_AGE_S:
            self._counted_s = now_s
            self._follow_hosts()
            changed = self._counts.changed_slots()
            for slot in self._reachable if changed is None else changed:
                self._count(slot)

    def of_slot(self, slot: int) -> Reachable:
        """What the slot holds; it must be one that the directory gave."""
        return self._reachable[slot]

    def nearest(
        self,
        app: str,
        asker: Client,
        count: int,
        draw: Callable[[], float],
        *,
        version: IpVersion | None = None,
        region: str | None = None,
    ) -> list[Reachable]:
        """The ``count`` best backends of ``app`` for ``asker``, best first, fewer when there are no more.

        Each can take a connection and has an address of ``version``, of any version when that is
        ``None``; with a ``region``, each stands in it. ``draw`` is called for each and gives numbers
        uniform in [0, 1). ``app`` must have been in the table, or be ``ANY_APP``: pools are kept.
        """
        view = self._views.get((version, region))
        if view is None:
            return []
        while True:
            chosen = view.choose_several(app, asker.country, asker.region, count, draw)
            full = [each.slot for each in chosen if not self._has_room_now(each.slot, each.backend)]
            if not full:
                return [self._reachable[each.slot] for each in chosen]
            # They are in no view now, so there are fewer to choose from each time.

    def _has_room_now(self, slot: int, backend: Backend) -> bool:
        return not backend.hard_limit or has_room(backend, self._count(slot))

    def _follow_table(self) -> None:
        placed_by_slot = {placed.slot: placed for placed in self._table.snapshot()}
        for slot in self._reachable.keys() - placed_by_slot.keys():
            self._discard(slot)
        for slot, placed in placed_by_slot.items():
            known = self._reachable.get(slot)
            if known is None or known.backend is not placed.backend or known.verdict != placed.verdict:
                self._put(slot, placed.backend, placed.verdict)

    def _follow_hosts(self) -> None:
        resolved = self._hosts()
        if resolved != self._resolved:
            self._resolved = resolved
            for slot, known in list(self._reachable.items()):
                if _addresses(known.backend.host, resolved) != known.addresses(None):
                    self._put(slot, known.backend, known.verdict)

    def _put(self, slot: int, backend: Backend, verdict: Verdict) -> None:
        self._discard(slot)
        addresses = _addresses(backend.host, self._resolved)
        reachable = Reachable(
            backend,
            tuple(address for address in addresses if ":" not in address),
            tuple(address for address in addresses if ":" in address),
            verdict,
        )
        self._reachable[slot] = reachable
        self.directory.put(slot, backend)
        connections = self._counts.connections(slot)
        # A trial is for as many connections as workers count. How many follow an answer, nobody counts.
        verdict = msgspec.structs.replace(verdict, trial=0)
        for view in self._views_of(reachable):
            view.put(slot, backend, connections, verdict)

    def _discard(self, slot: int) -> None:
        known = self._reachable.pop(slot, None)
        if known is not None:
            self.directory.discard(slot)
            for view in self._views_of(known):
                view.discard(slot)

    def _count(self, slot: int) -> int:
        connections = self._counts.connections(slot)
        known = self._reachable.get(slot)
        if known is not None:
            for view in self._views_of(known):
                view.set_connections(slot, connections)
        return connections

    def _views_of(self, reachable: Reachable) -> Iterator[Selection]:
        versions: tuple[IpVersion | None, ...] = (None, 4, 6)
        for version in versions:
            if reachable.addresses(version):
                for region in (None, reachable.backend.region):
                    view = self._views.get((version, region))
                    if view is None:
                        view = self._views[version, region] = Selection(
                            self._pop_region, self._panic_threshold
                        )
                    yield view


def _addresses(host: str, resolved: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The addresses of ``host`` that mean the same everywhere, IPv4 first.

    An IPv4 address mapped into IPv6 becomes IPv4. One with a zone (``fe80::1%eth0``) is left out: it
    means something on this machine alone.
    """
    found = []
    for text in resolved.get(host, (host,)):
        try:
            address = ip_address(text)
        except ValueError:
            continue  # a name that was not resolved yet
        if isinstance(address, IPv6Address):
            if address.scope_id is not None:
                continue
            address = address.ipv4_mapped or address
        found.append(address)
    return tuple(map(str, sorted(dict.fromkeys(found), key=lambda address: address.version)))
