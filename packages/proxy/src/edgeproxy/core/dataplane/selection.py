"""Which backend is best for this client, now?

The score is the product's formula, lowest wins::

    score = geo * 100 + (connections / soft_limit) / weight

    geo   0  the backend stands in the client's country
          1  ... in the client's region
          2  ... in the region of this POP
          3  elsewhere

A scan of all rows would be simplest, and costs 39 µs among 100 backends and a millisecond among
10,000. The formula has a shape that avoids it: within one geographic tier the order depends on
``load = (connections / soft_limit) / weight`` alone, and a backend that belongs to several tiers
scores best in the lowest of them. So the least loaded backend of the client's country, of its
region, of the POP's region and of the whole pool are the only four that can win; each group keeps
its members in a :class:`_LoadQueue`, and a choice looks at four heads at most, whatever the size of
the pool. A backend's own count moves it within its three groups only, so the cost of a connection
does not grow with the number of countries either.

Equal scores are decided by a draw among all that are equal: an order by row, or by the time of the
last use, would send every quiet minute's traffic to the same backend.

The POP's own verdict on a backend comes in twice. It scales the weight of one that has just recovered. And
it keeps those it doubts in queues of their own, which are looked at only in *panic*: when too few of a pool
are good, the checks are likelier to be wrong than so many backends, and clients are sent to all of them.
A pool enters and leaves panic without touching its members.

Counts change twice with every connection, and a choice seldom looks further than at one head. So a queue only
notes whose load has changed, and puts them where they belong when its head is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from heapq import heappop, heappush
from math import inf

from edgeproxy.core.model import GOOD, Backend, Verdict

GEO_WEIGHT = 100.0
"""How much one step of distance costs, in units of load."""

SAME_COUNTRY, SAME_REGION, POP_REGION, ELSEWHERE = range(4)

PANIC_THRESHOLD = 0.5
"""Share of a pool's healthy members that must be good for the POP's own verdicts to count."""

ANY_APP = "*"
"""The pool of a listener without an app: every row."""


def geo_score(backend: Backend, country: str, region: str, pop_region: str) -> int:
    """Distance tier, 0 to 3, of ``backend`` for a client of ``country`` and ``region`` ("" unknown)."""
    if country and backend.country == country:
        return SAME_COUNTRY
    if region and backend.region == region:
        return SAME_REGION
    return POP_REGION if backend.region == pop_region else ELSEWHERE


def load(backend: Backend, connections: int, weight_factor: float = 1.0) -> float:
    """Load of ``backend`` with so many connections."""
    soft_limit, weight = _load_terms(backend, weight_factor)
    return connections / soft_limit / weight


def _load_terms(backend: Backend, weight_factor: float) -> tuple[int, float]:
    """What its connections are divided by; a ``soft_limit`` or ``weight`` of 0 counts as 1."""
    return backend.soft_limit or 1, (backend.weight or 1) * weight_factor


def score(geo: int, load_: float) -> float:
    """The formula; lowest wins."""
    return geo * GEO_WEIGHT + load_


def has_room(backend: Backend, connections: int) -> bool:
    """Whether one more connection stays within ``hard_limit``, 0 being no limit."""
    return backend.hard_limit == 0 or connections < backend.hard_limit


def _counts_alike(one: Backend, other: Backend) -> bool:
    """Whether both belong to the same pools and groups, and count alike there."""
    return (
        one.healthy is other.healthy
        and one.country == other.country
        and one.region == other.region
        and one.app == other.app
    )


def is_panicking(good: int, members: int, threshold: float) -> bool:
    """Whether so few of a pool's healthy ``members`` are good that verdicts must be wrong.

    ``threshold`` is the share that must be good; 0 means that verdicts always count.
    """
    return good < members * threshold


class Chosen:
    """The outcome of a choice: the backend, its slot and the score it won with."""

    __slots__ = ("backend", "score", "slot")

    def __init__(self, backend: Backend, slot: int, score: float) -> None:
        self.backend = backend
        self.slot = slot
        self.score = score


class _Member:
    """A backend within one pool, with its place in each of its three queues."""

    __slots__ = (
        "backend", "filed", "load", "places", "queues", "room", "slot", "soft_limit", "verdict", "weight",
    )  # fmt: skip

    def __init__(self, backend: Backend, slot: int, verdict: Verdict) -> None:
        self.slot = slot
        self.verdict = verdict
        self.rewrite(backend)
        self.queues: tuple[_LoadQueue, ...] = ()
        self.filed = [inf, inf, inf]
        """The load by which it stands in each of them, ``inf`` when it does not; for the queues."""
        self.places = [0, 0, 0]
        self.load = inf
        """``inf`` while it takes no connections and belongs into no queue."""

    def rewrite(self, backend: Backend) -> None:
        """Take in its row."""
        self.backend = backend
        self.room = (backend.hard_limit or inf) if backend.healthy else 0
        self.judge(self.verdict)

    def judge(self, verdict: Verdict) -> None:
        """Take in the POP's own verdict on it."""
        self.verdict = verdict
        # What its load is made of, worked out once.
        self.soft_limit, self.weight = _load_terms(self.backend, verdict.weight_factor)

    @property
    def is_trusted(self) -> bool:
        """Whether the POP's own verdict lets clients to it."""
        return self.verdict.is_good or self.verdict.trial > 0

    def move(self, connections: int) -> None:
        """Stand where so many connections belong."""
        new = connections / self.soft_limit / self.weight if connections < self.room else inf
        if new != self.load:
            self.load = new
            for queue in self.queues:
                stale = queue.stale
                stale[self] = None
                if len(stale) >= _MOST_STALE:
                    queue.settle()

    def withdraw(self) -> None:
        """Leave all queues."""
        self.load = inf
        for queue in self.queues:
            queue.remove(self)


class _LoadQueue:
    """Members in order of load; those of equal load are drawn from with equal chance.

    A bucket per distinct load and a heap of the loads. A member leaves its bucket at once (the last
    one takes its place); an emptied bucket goes only when its load comes to the head of the heap, or
    when empty ones outnumber the members.

    Whose load has changed is moved when the head is asked for, however often it has changed meanwhile.
    """

    __slots__ = ("_buckets", "_heap", "_rank", "_size", "stale")

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._buckets: dict[float, list[_Member]] = {}
        self._heap: list[float] = []
        self._size = 0
        self.stale: dict[_Member, None] = {}
        """Whose load is another than it was, in order; many of them should be settled."""

    def remove(self, member: _Member) -> None:
        """Forget the member."""
        self.stale.pop(member, None)
        self._move(member, inf)

    def least(self) -> list[_Member] | None:
        """All members of the least load, ``None`` when there are no members."""
        if self.stale:
            self.settle()
        heap = self._heap
        while heap:
            bucket = self._buckets[heap[0]]
            if bucket:
                return bucket
            del self._buckets[heappop(heap)]
        return None

    def settle(self) -> None:
        """Move whose load has changed."""
        for member in self.stale:
            self._move(member, member.load)
        self.stale.clear()

    def _move(self, member: _Member, new: float) -> None:
        """Put the member where load ``new`` belongs; ``inf`` stands for outside."""
        rank = self._rank
        old = member.filed[rank]
        if new == old:
            return
        member.filed[rank] = new
        if old != inf:
            bucket = self._buckets[old]
            last = bucket.pop()
            if last is not member:
                place = member.places[rank]
                bucket[place] = last
                last.places[rank] = place
            self._size -= 1
        if new != inf:
            known = self._buckets.get(new)
            if known is None:
                known = self._buckets[new] = []
                heappush(self._heap, new)
            member.places[rank] = len(known)
            known.append(member)
            self._size += 1
            if len(self._heap) > 2 * self._size + 64:
                self._drop_empty_buckets()

    def _drop_empty_buckets(self) -> None:
        self._buckets = {load: bucket for load, bucket in self._buckets.items() if bucket}
        self._heap = sorted(self._buckets)


_COUNTRY, _REGION, _ALL = range(3)

_MOST_STALE = 256
"""Moved at once at the latest: a choice that gets to a queue which has not been looked at for long must not
pay for all that has changed since."""


class _Queues:
    """Members by country, by region and all together."""

    __slots__ = ("_by_country", "_by_region", "_everywhere", "_tiers")

    def __init__(self) -> None:
        self._by_country: dict[str, _LoadQueue] = {}
        self._by_region: dict[str, _LoadQueue] = {}
        self._everywhere = _LoadQueue(_ALL)
        self._tiers: dict[tuple[str, str], tuple[_LoadQueue | None, ...]] = {}
        """By country and region of a client, as far as they were asked for."""

    def of(self, backend: Backend) -> tuple[_LoadQueue, ...]:
        """Those in which ``backend`` has its places."""
        country = self._by_country.get(backend.country)
        if country is None:
            country = self._by_country[backend.country] = _LoadQueue(_COUNTRY)
            self._tiers.clear()
        region = self._by_region.get(backend.region)
        if region is None:
            region = self._by_region[backend.region] = _LoadQueue(_REGION)
            self._tiers.clear()
        return country, region, self._everywhere

    def tiers(self, country: str, region: str, pop_region: str) -> tuple[_LoadQueue | None, ...]:
        """Those whose heads a client looks at, the nearest first."""
        tiers = self._tiers.get((country, region))
        if tiers is None:
            tiers = self._tiers[country, region] = (
                self._by_country.get(country) if country else None,
                self._by_region.get(region) if region else None,
                self._by_region.get(pop_region),
                self._everywhere,
            )
        return tiers


class _Pool:
    """The candidates of one app: those that clients are sent to, and those that this POP doubts."""

    __slots__ = (
        "_doubted",
        "_good",
        "_healthy",
        "_panic_threshold",
        "_trusted",
        "is_panicking",
        "members",
        "trusted",
    )

    def __init__(self, panic_threshold: float) -> None:
        self.members: dict[int, _Member] = {}
        self.trusted = 0
        """How many healthy members are, at their limit or not."""
        self.is_panicking = False
        self._panic_threshold = panic_threshold
        self._healthy = self._good = 0
        self._trusted = _Queues()
        self._doubted = _Queues()

    def add(self, backend: Backend, slot: int, connections: int, verdict: Verdict) -> _Member:
        member = self.members[slot] = _Member(backend, slot, verdict)
        self._settle(member)
        member.move(connections)
        return member

    def discard(self, slot: int) -> None:
        member = self.members.pop(slot)
        member.withdraw()
        self._count(member, -1)

    def judge(self, slot: int, verdict: Verdict, connections: int) -> None:
        """Put the member where this verdict on it belongs."""
        member = self.members[slot]
        member.withdraw()
        self._count(member, -1)
        member.judge(verdict)
        self._settle(member)
        member.move(connections)

    def is_eligible(self, member: _Member, connections: int) -> bool:
        """Whether one more connection may be sent there, where there are so many."""
        backend = member.backend
        return backend.healthy and has_room(backend, connections) and (self.is_panicking or member.is_trusted)

    def set_panic_threshold(self, threshold: float) -> None:
        self._panic_threshold = threshold  # feature: health.panic
        self.is_panicking = is_panicking(self._good, self._healthy, threshold)

    def choose(self, country: str, region: str, pop_region: str, draw: float) -> Chosen | None:
        equals: list[list[_Member]] = []
        best = _least(self._trusted.tiers(country, region, pop_region), inf, equals)
        if self.is_panicking:
            best = _least(self._doubted.tiers(country, region, pop_region), best, equals)
        if not equals:
            return None
        return _draw(equals, best, draw)

    def _settle(self, member: _Member) -> None:
        member.queues = (self._trusted if member.is_trusted else self._doubted).of(member.backend)
        self._count(member, 1)

    def _count(self, member: _Member, change: int) -> None:
        if member.backend.healthy:
            self._healthy += change
            self._good += change * member.verdict.is_good
            self.trusted += change * member.is_trusted
            self.is_panicking = is_panicking(self._good, self._healthy, self._panic_threshold)


def _least(tiers: Iterable[_LoadQueue | None], best: float, equals: list[list[_Member]]) -> float:
    """The lowest score among the heads of ``tiers`` and ``best``; ``equals`` becomes all who have it."""
    for geo, queue in enumerate(tiers):
        if best < geo * GEO_WEIGHT:
            break
        bucket = queue.least() if queue is not None else None
        if bucket:
            candidate = score(geo, bucket[0].load)
            if candidate < best:
                best = candidate
                equals[:] = (bucket,)
            elif candidate == best:
                equals.append(bucket)
    return best


def _draw(equals: list[list[_Member]], score: float, draw: float) -> Chosen:
    if len(equals) == 1:
        (bucket,) = equals
        index = int(draw * len(bucket))
    else:
        index = int(draw * sum(map(len, equals)))
        buckets = iter(equals)
        bucket = next(buckets)
        while index >= len(bucket):
            index -= len(bucket)
            bucket = next(buckets)
    member = bucket[index]
    return Chosen(member.backend, member.slot, score)  # feature: selection.nearest


class Selection:
    """The pools of all apps, kept in order while rows and connection counts change.

    A slot is the small integer under which the routing table keeps a backend. Counts are this POP's
    open connections over all workers; the caller reports each change with :meth:`set_connections`.
    A pool is built when it is first asked for, so that apps without a listener cost nothing.
    """

    def __init__(self, pop_region: str, panic_threshold: float = PANIC_THRESHOLD) -> None:
        """``panic_threshold``: see :func:`is_panicking`."""
        self._pop_region = pop_region
        self._panic_threshold = panic_threshold
        self._backends: dict[int, Backend] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._connections: dict[int, int] = {}
        self._pools: dict[str, _Pool] = {}
        self._members: dict[int, list[_Member]] = {}
        """In all pools that a slot's backend belongs to."""

    def set_panic_threshold(self, threshold: float) -> None:
        """Go by another threshold from now on."""
        self._panic_threshold = threshold
        for pool in self._pools.values():
            pool.set_panic_threshold(threshold)

    def put(self, slot: int, backend: Backend, connections: int, verdict: Verdict = GOOD) -> None:
        """Add ``backend`` under ``slot``, or replace what the slot holds."""
        previous = self._backends.get(slot)
        if previous is not None and _counts_alike(previous, backend):
            self._backends[slot] = backend
            self._connections[slot] = connections
            for member in self._members[slot]:
                member.rewrite(backend)
                member.move(connections)
            self.judge(slot, verdict)
            return
        self.discard(slot)
        self._backends[slot] = backend
        self._verdicts[slot] = verdict
        self._connections[slot] = connections
        self._members[slot] = [
            pool.add(backend, slot, connections, verdict) for pool in self._pools_of(backend)
        ]

    def discard(self, slot: int) -> None:
        """Forget the slot; unknown ones are ignored."""
        backend = self._backends.pop(slot, None)
        if backend is not None:
            del self._connections[slot], self._verdicts[slot], self._members[slot]
            for pool in self._pools_of(backend):
                pool.discard(slot)

    def set_connections(self, slot: int, connections: int) -> None:
        """Report how many connections the slot's backend has now; unknown slots are ignored."""
        if self._connections.get(slot, connections) != connections:
            self._connections[slot] = connections
            for member in self._members[slot]:
                member.move(connections)

    def judge(self, slot: int, verdict: Verdict) -> None:
        """Change the POP's own verdict on the slot's backend; unknown slots are ignored."""
        if self._verdicts.get(slot, verdict) != verdict:
            self._verdicts[slot] = verdict
            for pool in self._pools_of(self._backends[slot]):
                pool.judge(slot, verdict, self._connections[slot])

    def eligible(self, app: str, slot: int, connections: int) -> Backend | None:
        """The slot's backend if ``app`` may send it one more than so many connections, else ``None``."""
        pool = self._pool(app)
        member = pool.members.get(slot)
        if member is None or not pool.is_eligible(member, connections):
            return None
        return member.backend

    def weight_factor(self, slot: int) -> float:
        """What scales the weight of the slot's backend, which must be known."""
        return self._verdicts[slot].weight_factor

    def is_panicking(self, app: str) -> bool:
        """Whether the POP's own verdicts on the rows of ``app`` are ignored now."""
        return self._pool(app).is_panicking

    def is_empty(self, app: str) -> bool:
        """Whether ``app`` has no healthy row that clients are sent to: waiting for a place is pointless."""
        pool = self._pool(app)
        return not (pool.trusted or pool.is_panicking)

    def choose(
        self, app: str, country: str, region: str, draw: float, tried: Collection[int] = ()
    ) -> Chosen | None:
        """The best candidate of ``app`` for a client, ``None`` when none is eligible.

        ``draw`` is uniform in [0, 1) and decides among equal scores. ``tried`` holds slots that this
        connection must not be given again.
        """
        pool = self._pools.get(app) or self._pool(app)
        if not tried:
            return pool.choose(country, region, self._pop_region, draw)
        set_aside = [slot for slot in tried if slot in pool.members]
        for slot in set_aside:
            pool.members[slot].withdraw()
        chosen = pool.choose(country, region, self._pop_region, draw)
        for slot in set_aside:
            pool.members[slot].move(self._connections[slot])
        return chosen

    def choose_several(
        self, app: str, country: str, region: str, count: int, draw: Callable[[], float]
    ) -> list[Chosen]:
        """The ``count`` best candidates of ``app`` for a client, best first, fewer when there are no more.

        ``draw`` gives for each a number as :meth:`choose` takes it.
        """
        pool = self._pool(app)
        chosen: list[Chosen] = []
        while len(chosen) < count:
            best = pool.choose(country, region, self._pop_region, draw())
            if best is None:
                break
            pool.members[best.slot].withdraw()
            chosen.append(best)
        for each in chosen:
            pool.members[each.slot].move(self._connections[each.slot])
        return chosen

    def _pool(self, app: str) -> _Pool:
        pool = self._pools.get(app)
        if pool is None:
            pool = self._pools[app] = _Pool(self._panic_threshold)
            for slot, backend in self._backends.items():
                if app in (ANY_APP, backend.app):
                    member = pool.add(backend, slot, self._connections[slot], self._verdicts[slot])
                    self._members[slot].append(member)
        return pool

    def _pools_of(self, backend: Backend) -> list[_Pool]:
        pools = []
        if (pool := self._pools.get(ANY_APP)) is not None:
            pools.append(pool)
        if backend.app != ANY_APP and (pool := self._pools.get(backend.app)) is not None:
            pools.append(pool)
        return pools
