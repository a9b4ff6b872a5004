"""This POP's verdict on every backend, out of checks and of how connections went.

Three machines look at each backend: its checks (:mod:`.health`), its circuit (:mod:`.outlier`), and the
warm-up after a recovery, during which its weight grows back in steps. Here they come to one
:class:`~edgeproxy.core.model.Verdict`, and what holds for several backends together is decided: how many
of a pool may be ejected at a time.

All of it belongs to this POP. The operator's word is not looked at, except that a row with ``healthy = 0``
is no member of its pool, so it counts neither for nor against the others.

Time comes in through :meth:`Verdicts.advance`; verdicts that changed are taken out with
:meth:`Verdicts.take_changed`, what people should hear of with :meth:`Verdicts.take_events`.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import islice
from math import ceil, inf

import msgspec

from edgeproxy.core.controlplane.events import Event, Priority, Topic
from edgeproxy.core.controlplane.health import Health, HealthSettings, Status
from edgeproxy.core.controlplane.outlier import Circuit, CircuitSettings, CircuitStatus, State
from edgeproxy.core.controlplane.routing_table import PlacedBackend, TableChange
from edgeproxy.core.dataplane.outcomes import Outcome
from edgeproxy.core.dataplane.selection import ANY_APP, is_panicking
from edgeproxy.core.model import GOOD, Backend, Verdict

WARM_UP_STEPS = 10
"""The weight grows back by a tenth at a time, because each step is a message to all workers."""

_ROUNDING = 1e-6
"""In steps: a timer that fires at its very time must find its step reached."""

_LEFT_OUT = Verdict(is_good=False)


class VerdictSettings(msgspec.Struct, frozen=True):
    """What looks at backends, and how. A part that is ``None`` is switched off."""

    checks: HealthSettings | None = None
    circuits: CircuitSettings | None = None
    slow_start_s: float = 30.0
    """How long the weight takes to grow back, 0 for at once."""
    max_ejected_percent: int = 10
    """Of a pool, rounded down, but at least one."""
    panic_threshold: float = 0.5
    """Share of a pool that must be good for verdicts to count. Workers go by it, here it is news."""


class BackendStatus(msgspec.Struct, frozen=True):
    """One backend as ``stats`` shows it."""

    is_good: bool
    weight_factor: float
    why: str
    """Why it is left out or takes less, empty when neither is so."""
    check: Status | None
    circuit: CircuitStatus | None


class _Pool:
    """The backends of one app: how many there are, how many are good, and how many ejected."""

    __slots__ = ("app", "ejected", "good", "is_panicking", "members", "rows")

    def __init__(self, app: str) -> None:
        self.app = app
        self.rows = 0
        """All of them. The other counts leave out those that are unhealthy by the operator's word."""
        self.members = self.good = self.ejected = 0
        self.is_panicking = False


class _Watched:
    """Everything known of one backend."""

    __slots__ = (
        "backend", "circuit", "failure", "health", "is_ejected", "is_overdue", "pools", "recovered_at_s",
        "timer_s", "verdict",
    )  # fmt: skip

    def __init__(self, backend: Backend, settings: VerdictSettings) -> None:
        self.backend = backend
        self.pools: tuple[_Pool, ...] = ()
        self.health = Health(settings.checks) if settings.checks is not None else None
        self.circuit = Circuit(settings.circuits) if settings.circuits is not None else None
        self.failure = ""
        """What opened the circuit."""
        self.is_ejected = False
        """The circuit is not closed, and so it is counted in its pools."""
        self.is_overdue = False
        """It would be ejected if its pool could spare it."""
        self.recovered_at_s: float | None = None
        """Since when it warms up."""
        self.timer_s = inf
        self.verdict = GOOD


def _in_words(status: CircuitStatus) -> str:
    """What opened a circuit."""
    kinds = (
        (status.connect_failures, "failed connect", "failed connects"),
        (status.drops, "reset before the first byte", "resets before the first byte"),
    )
    return ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in kinds if count)


class Verdicts:
    """The verdicts of one POP. ``now_s`` is everywhere the time on one steady clock."""

    def __init__(self, settings: VerdictSettings, *, all_are_a_pool: bool = False) -> None:
        """``all_are_a_pool``: a listener without an app chooses among all rows, so they are one pool, too."""
        self._settings = settings
        self._all_are_a_pool = all_are_a_pool
        self._watched: dict[str, _Watched] = {}
        self._pools: dict[str, _Pool] = {}
        self._timers: list[tuple[float, str]] = []
        self._changed: dict[str, None] = {}
        self._events: list[Event] = []

    def change_settings(self, settings: VerdictSettings, now_s: float) -> None:
        """Go by other settings from now on. What is switched on or off must be so in both."""
        self._settings = settings
        for watched in self._watched.values():
            if watched.health is not None and settings.checks is not None:
                watched.health.settings = settings.checks
            if watched.circuit is not None and settings.circuits is not None:
                watched.circuit.change_settings(settings.circuits)
            self._judge(watched, now_s)
        self._look_for_panic(self._pools.values())

    # ---- what is told ------------------------------------------------------------------------

    def follow(self, change: TableChange) -> None:
        """Take in what changed in the routing table.

        A backend that is found at another address is another backend: nothing of the old one holds for it.
        """
        for placed in change.removed:
            self._forget(placed.backend.id)
        for placed in change.upserts:
            self._take_in(placed)

    def checked(self, backend_id: str, why: str | None, began_s: float, now_s: float) -> None:
        """A check that began at ``began_s`` has passed (``None``), or failed for the reason ``why``."""
        watched = self._watched.get(backend_id)
        if watched is None or watched.health is None:
            return
        before = watched.health.status
        if watched.health.checked(why):
            self._tell_status(watched, before)
        circuit = watched.circuit
        if why is None and circuit is not None and circuit.readmit(began_s, now_s):
            self._readmitted(watched, "it passed a check")
        self._judge(watched, now_s)

    def went(self, backend_id: str, outcomes: Iterable[str], now_s: float) -> None:
        """How connections with a backend went, each an :class:`~.outcomes.Outcome`, in their order."""
        watched = self._watched.get(backend_id)
        if watched is None or (circuit := watched.circuit) is None:
            return
        for outcome in outcomes:
            match outcome:
                case Outcome.CONNECTED:
                    if circuit.connected(now_s):
                        self._readmitted(watched, "its trial succeeded")
                case Outcome.SERVED:
                    circuit.served()
                case Outcome.CONNECT_FAILED:
                    if circuit.connect_failed(now_s, self._can_be_spared(watched)):
                        self._ejected(watched, now_s)
                case _:  # dropped
                    if circuit.dropped(now_s, self._can_be_spared(watched)):
                        self._ejected(watched, now_s)
        self._look_whether_overdue(watched, now_s)
        self._judge(watched, now_s)

    def advance(self, now_s: float) -> None:
        """Let time pass: trials begin, weights grow back."""
        while self.next_at_s() <= now_s:
            watched = self._watched[heappop(self._timers)[1]]
            watched.timer_s = inf
            circuit = watched.circuit
            if circuit is not None:
                before = circuit.state
                if circuit.advance(now_s) and before is State.OPEN:
                    self._tell("a backend is on trial", watched, connections=self.trial_connections)
            self._judge(watched, now_s)

    def next_at_s(self) -> float:
        """When :meth:`advance` must be called, ``inf`` while time alone changes nothing."""
        while self._timers:
            at_s, backend_id = self._timers[0]
            watched = self._watched.get(backend_id)
            if watched is not None and watched.timer_s == at_s:
                return at_s
            heappop(self._timers)  # set for something that is no more
        return inf

    # ---- what is asked -----------------------------------------------------------------------

    @property
    def trial_connections(self) -> int:
        """How many connections one trial lets through."""
        circuits = self._settings.circuits
        return circuits.success_threshold if circuits is not None else 0

    @property
    def has_changes(self) -> bool:
        """Whether verdicts wait for :meth:`take_changed`."""
        return bool(self._changed)

    def take_changed(self, limit: int) -> dict[str, Verdict]:
        """Verdicts that changed since they were last taken, by backend id; at most so many."""
        taken = list(islice(self._changed, limit))
        for backend_id in taken:
            del self._changed[backend_id]
        return {backend_id: self._watched[backend_id].verdict for backend_id in taken}

    def take_events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def next_check_s(self, backend_id: str, draw: float) -> float | None:
        """Time between the beginnings of two checks of this backend; ``None`` when it is not checked."""
        watched = self._watched.get(backend_id)
        if watched is None or watched.health is None:
            return None
        return watched.health.next_interval_s(draw)

    def why(self, backend_id: str, now_s: float) -> str:
        """Why the backend is left out or takes less, empty when neither is so."""
        watched = self._watched.get(backend_id)
        return self._why(watched, now_s) if watched is not None else ""

    def statuses(self, now_s: float) -> dict[str, BackendStatus]:
        """All backends by id."""
        return {
            backend_id: BackendStatus(
                is_good=watched.verdict.is_good,
                weight_factor=watched.verdict.weight_factor,
                why=self._why(watched, now_s),
                check=watched.health.status if watched.health is not None else None,
                circuit=watched.circuit.status(now_s) if watched.circuit is not None else None,
            )
            for backend_id, watched in self._watched.items()
        }

    # ---- rows --------------------------------------------------------------------------------

    def _take_in(self, placed: PlacedBackend) -> None:
        backend = placed.backend
        known = self._watched.get(backend.id)
        if known is not None and (known.backend.host, known.backend.port) == (backend.host, backend.port):
            self._leave_pools(known)
            known.backend = backend
        else:
            self._forget(backend.id)
            known = self._watched[backend.id] = _Watched(backend, self._settings)
            if placed.verdict != GOOD:
                self._changed[backend.id] = None
        self._join_pools(known)

    def _forget(self, backend_id: str) -> None:
        watched = self._watched.pop(backend_id, None)
        if watched is not None:
            self._leave_pools(watched)
            self._changed.pop(backend_id, None)

    def _join_pools(self, watched: _Watched) -> None:
        backend = watched.backend
        apps = dict.fromkeys((backend.app, ANY_APP) if self._all_are_a_pool else (backend.app,))
        watched.pools = tuple(self._pools.setdefault(app, _Pool(app)) for app in apps)
        for pool in watched.pools:
            pool.rows += 1
        self._count(watched, 1)
        self._look_for_panic(watched.pools)

    def _leave_pools(self, watched: _Watched) -> None:
        self._count(watched, -1)
        for pool in watched.pools:
            pool.rows -= 1
            if not pool.rows:
                del self._pools[pool.app]
        self._look_for_panic(watched.pools)

    def _count(self, watched: _Watched, change: int) -> None:
        if watched.backend.healthy:
            for pool in watched.pools:
                pool.members += change
                pool.good += change * watched.verdict.is_good
                pool.ejected += change * watched.is_ejected

    def _look_for_panic(self, pools: Iterable[_Pool]) -> None:
        for pool in pools:
            is_now = is_panicking(pool.good, pool.members, self._settings.panic_threshold)
            if is_now is not pool.is_panicking:
                pool.is_panicking = is_now
                name = (
                    "too few backends are good, clients are sent to all of them"
                    if is_now
                    else "enough backends are good again"
                )
                fields = {"app": pool.app, "good": pool.good, "backends": pool.members}
                level = "error" if is_now else "info"
                self._events.append(Event(Topic.HEALTH, name, fields, Priority.CRITICAL, level))

    # ---- judging -----------------------------------------------------------------------------

    def _judge(self, watched: _Watched, now_s: float) -> None:
        """Bring the verdict up to date, and the time at which it must be looked at again."""
        self._count(watched, -1)
        before, watched.verdict = watched.verdict, self._verdict(watched, now_s)
        watched.is_ejected = watched.circuit is not None and watched.circuit.state is not State.CLOSED
        self._count(watched, 1)
        if watched.verdict != before:
            self._changed[watched.backend.id] = None
            self._look_for_panic(watched.pools)
        timer_s = self._next_step_s(watched)
        if watched.circuit is not None:
            timer_s = min(timer_s, watched.circuit.next_at_s())
        if timer_s != watched.timer_s:
            watched.timer_s = timer_s
            if timer_s < inf:
                heappush(self._timers, (timer_s, watched.backend.id))

    def _verdict(self, watched: _Watched, now_s: float) -> Verdict:
        health, circuit = watched.health, watched.circuit
        since_s, watched.recovered_at_s = watched.recovered_at_s, None
        if health is not None and health.status is Status.UNHEALTHY:
            return _LEFT_OUT
        if circuit is not None and circuit.state is State.OPEN:
            return _LEFT_OUT
        if circuit is not None and circuit.state is State.HALF_OPEN:
            return Verdict(is_good=False, trial=circuit.trial)
        if not watched.verdict.is_good:
            since_s = now_s
        if since_s is None or (steps := self._steps(now_s - since_s)) >= WARM_UP_STEPS:
            return GOOD
        watched.recovered_at_s = since_s
        return Verdict(weight_factor=max(1, steps) / WARM_UP_STEPS)

    def _steps(self, elapsed_s: float) -> int:
        slow_start_s = self._settings.slow_start_s  # feature: health.slow_start
        return int(elapsed_s / slow_start_s * WARM_UP_STEPS + _ROUNDING) if slow_start_s else WARM_UP_STEPS

    def _next_step_s(self, watched: _Watched) -> float:
        if watched.recovered_at_s is None:
            return inf
        steps = round(watched.verdict.weight_factor * WARM_UP_STEPS) + 1
        return watched.recovered_at_s + steps * self._settings.slow_start_s / WARM_UP_STEPS

    # ---- circuits ----------------------------------------------------------------------------

    def _can_be_spared(self, watched: _Watched) -> bool:
        percent = self._settings.max_ejected_percent
        return not watched.backend.healthy or all(
            pool.ejected < max(1, pool.members * percent // 100) for pool in watched.pools
        )

    def _ejected(self, watched: _Watched, now_s: float) -> None:
        assert watched.circuit is not None
        status = watched.circuit.status(now_s)
        watched.failure = _in_words(status)
        self._tell(
            "a backend is ejected",
            watched,
            level="warning",
            why=watched.failure,
            for_s=round(status.retry_in_s, 3),
            ejections=status.ejections,
        )

    def _readmitted(self, watched: _Watched, why: str) -> None:
        self._tell("a backend is readmitted", watched, why=why)

    def _look_whether_overdue(self, watched: _Watched, now_s: float) -> None:
        assert watched.circuit is not None
        is_overdue = watched.circuit.is_overdue(now_s)
        if is_overdue and not watched.is_overdue:
            self._tell(
                "a backend keeps failing, but its pool can spare no more",
                watched,
                level="warning",
                max_ejected_percent=self._settings.max_ejected_percent,
            )
        watched.is_overdue = is_overdue

    # ---- for people --------------------------------------------------------------------------

    def _tell_status(self, watched: _Watched, before: Status) -> None:
        assert watched.health is not None
        if watched.health.status is Status.UNHEALTHY:
            self._tell("a backend fails its checks", watched, level="warning", why=watched.health.why)
        elif before is Status.UNHEALTHY:
            self._tell("a backend passes its checks again", watched)

    def _tell(self, name: str, watched: _Watched, level: str = "info", **fields: object) -> None:
        backend = watched.backend
        named = {"backend": backend.id, "app": backend.app, **fields}
        self._events.append(Event(Topic.HEALTH, name, named, level=level))

    def _why(self, watched: _Watched, now_s: float) -> str:
        health, circuit = watched.health, watched.circuit
        if health is not None and health.status is Status.UNHEALTHY:
            return f"failing its checks: {health.why}"
        if circuit is not None and circuit.state is State.OPEN:
            retry_in_s = ceil(circuit.status(now_s).retry_in_s)
            return f"ejected for {retry_in_s} s more: {watched.failure}"
        if circuit is not None and circuit.state is State.HALF_OPEN:
            return f"on trial with {self.trial_connections} connections after {watched.failure}"
        if not watched.verdict.weight_factor < 1:
            return ""
        return f"slow start at {watched.verdict.weight_factor:.0%}".replace("%", " %")
