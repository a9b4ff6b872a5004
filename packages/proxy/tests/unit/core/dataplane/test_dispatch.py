"""From a client to a lease: affinity first, limits always, and every place given back once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from edgeproxy.core.dataplane.affinity import Binding, country_code, stable_key
from edgeproxy.core.dataplane.dispatch import Dispatcher, Lease, Refusal
from edgeproxy.core.dataplane.selection import Selection
from edgeproxy.core.model import GOOD, Backend, Client, Verdict
from packages.proxy.tests.unit.core.dataplane.shared_contract import CHECKS, MakeViews

TTL_S = 600.0
GERMAN = Client("192.0.2.1", "DE", "eu")
NETWORK = 1


class FakePop:
    """Counts and bindings of a POP, in a dictionary each. Eight bindings fit in."""

    def __init__(self, workers: int) -> None:
        self.counts: dict[int, int] = {}
        self.trials: dict[int, int] = {}
        self.bindings: dict[int, Binding] = {}
        self.views = [FakeView(self) for _ in range(workers)]


class FakeView:
    """What one worker sees of a :class:`FakePop`."""

    secret = 42

    def __init__(self, pop: FakePop) -> None:
        self._pop = pop
        self.news: set[int] | None = set()
        self.locked: int | None = None

    def changed_slots(self) -> set[int] | None:
        news, self.news = self.news, set()
        return news

    def connections(self, slot: int) -> int:
        return self._pop.counts.get(slot, 0)

    def acquire(self, slot: int, hard_limit: int) -> bool:
        if hard_limit and self.connections(slot) >= hard_limit:
            return False
        self._count(slot, 1)
        return True

    def acquire_trial(self, slot: int, hard_limit: int) -> bool:
        if not self._pop.trials.get(slot) or not self.acquire(slot, hard_limit):
            return False
        self._pop.trials[slot] -= 1
        return True

    def grant_trial(self, slot: int, connections: int) -> None:
        self._pop.trials[slot] = connections

    def release(self, slot: int) -> None:
        self._count(slot, -1)

    def _count(self, slot: int, change: int) -> None:
        self._pop.counts[slot] = self.connections(slot) + change
        for view in self._pop.views:
            if view is not self and view.news is not None:
                view.news.add(slot)

    def lock(self, tag: int) -> None:
        assert self.locked is None, "locks of bindings are not nested"
        self.locked = tag

    def unlock(self, tag: int) -> None:
        assert self.locked == tag
        self.locked = None

    def get(self, tag: int) -> Binding | None:
        assert self.locked is not None
        return self._pop.bindings.get(tag)

    def put(self, tag: int, binding: Binding) -> None:
        assert self.locked is not None
        bindings = self._pop.bindings
        if tag not in bindings and len(bindings) == 8:
            del bindings[min(bindings, key=lambda known: bindings[known].last_use_s)]
        bindings[tag] = binding

    def discard(self, tag: int) -> None:
        assert self.locked is not None
        self._pop.bindings.pop(tag, None)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_fake_keeps_the_contract(check: Callable[[MakeViews], None]) -> None:
    check(lambda workers: FakePop(workers).views)


# ---- a POP to dispatch in ------------------------------------------------------------------------


def backend(
    name: str,
    *,
    app: str = "web",
    country: str = "DE",
    healthy: bool = True,
    soft_limit: int = 1,
    hard_limit: int = 0,
) -> Backend:
    return Backend(name, app, "eu", country, "127.0.0.1", 9000, healthy, 1, soft_limit, hard_limit)


class Worker:
    """A dispatcher with what it works on; ``rows`` stand in slots 0, 1, 2 …"""

    def __init__(self, view: FakeView, rows: Sequence[Backend]) -> None:
        self.view = view
        self.dispatcher = Dispatcher("eu", TTL_S, Selection("eu"), view, view)
        for slot, row in enumerate(rows):
            self.dispatcher.put(slot, row)

    def ask(
        self,
        client: Client = GERMAN,
        network: int = NETWORK,
        now_s: float = 0.0,
        app: str = "*",
        tried: Sequence[int] = (),
    ) -> Lease | Refusal:
        outcome = self.dispatcher.dispatch(app, client, network, now_s, 0.0, tried)
        assert self.view.locked is None
        return outcome

    def lease(
        self,
        client: Client = GERMAN,
        network: int = NETWORK,
        now_s: float = 0.0,
        app: str = "*",
        tried: Sequence[int] = (),
    ) -> Lease:
        outcome = self.ask(client, network, now_s, app, tried)
        assert isinstance(outcome, Lease)
        return outcome


def one_worker(*rows: Backend) -> Worker:
    return Worker(FakePop(1).views[0], rows)


def two_workers(*rows: Backend) -> tuple[Worker, Worker]:
    one, other = FakePop(2).views
    return Worker(one, rows), Worker(other, rows)


# ---- choosing and leasing ------------------------------------------------------------------------


def test_a_lease_counts_from_the_choice_to_its_release() -> None:
    worker = one_worker(backend("a"))
    lease = worker.lease()
    assert (lease.backend.id, lease.slot, lease.score, lease.from_affinity) == ("a", 0, 0.0, False)
    assert worker.view.connections(0) == 1
    worker.dispatcher.release(lease)
    assert worker.view.connections(0) == 0


def test_the_next_client_goes_where_there_is_less_load() -> None:
    worker = one_worker(backend("a"), backend("b"))
    first = worker.lease(network=1)
    assert first.backend.id == "a"
    assert worker.lease(network=2).backend.id == "b"
    worker.dispatcher.release(first)
    assert worker.lease(network=3).backend.id == "a"


def test_connections_of_other_workers_count() -> None:
    one, other = two_workers(backend("a"), backend("b"))
    assert one.lease(network=1).backend.id == "a"
    assert other.lease(network=2).backend.id == "b"


def test_a_client_that_is_bound_makes_others_choose_by_its_connections() -> None:
    worker = one_worker(backend("a", soft_limit=2), backend("b"))
    first = worker.lease(network=1)
    assert first.slot == 0
    second = worker.lease(network=1)
    third = worker.lease(network=1)
    assert second.from_affinity
    assert third.from_affinity
    assert worker.lease(network=2).slot == 1
    for lease in (first, second, third):
        worker.dispatcher.release(lease)
    assert worker.lease(network=3).slot == 0


def test_what_was_not_heard_of_is_looked_up() -> None:
    one, other = two_workers(backend("a"), backend("b"))
    one.lease(network=1)
    other.view.news = None
    assert other.lease(network=2).backend.id == "b"


def test_a_row_put_later_starts_with_the_connections_it_has() -> None:
    worker = one_worker(backend("a"))
    worker.view.acquire(1, 0)
    worker.dispatcher.put(1, backend("b"))
    assert worker.lease().score == 0.0


def test_an_app_is_kept_apart() -> None:
    worker = one_worker(backend("a", app="web"), backend("b", app="mail"))
    assert worker.lease(app="mail").backend.id == "b"
    assert worker.lease(app="web").backend.id == "a"
    assert worker.lease(app="mail").from_affinity


# ---- affinity ------------------------------------------------------------------------------------


@pytest.mark.feature("affinity.kept")
def test_a_client_comes_back_to_its_backend_though_another_has_less_load() -> None:
    worker = one_worker(backend("a"), backend("b"))
    first = worker.lease()
    again = worker.lease(now_s=TTL_S - 0.1)
    assert again.backend is first.backend
    assert again.from_affinity
    assert again.score == 1.0


def test_a_client_comes_back_in_another_worker() -> None:
    one, other = two_workers(backend("a"), backend("b"))
    assert one.lease().backend.id == other.lease().backend.id == "a"


def test_a_binding_ends_a_time_to_live_after_its_last_use() -> None:
    worker = one_worker(backend("a"), backend("b"))
    worker.lease(now_s=0.0)
    worker.lease(now_s=500.0)
    assert worker.lease(now_s=1_000.0).backend.id == "a"
    assert worker.lease(now_s=1_600.0).backend.id == "b"


def test_a_client_that_moved_to_another_country_is_chosen_for_anew() -> None:
    worker = one_worker(backend("a"), backend("b", country="FR"))
    worker.lease()
    moved = worker.lease(Client(GERMAN.address, "FR", "eu"))
    assert (moved.backend.id, moved.from_affinity) == ("b", False)


@pytest.mark.parametrize("gone", ["unhealthy", "removed", "another app"])
def test_a_bound_client_goes_elsewhere_when_its_backend_may_not_be_used(gone: str) -> None:
    worker = one_worker(backend("a"), backend("b", country="FR"))
    worker.lease(app="web")
    if gone == "unhealthy":
        worker.dispatcher.put(0, backend("a", healthy=False))
    elif gone == "removed":
        worker.dispatcher.discard(0)
    else:
        worker.dispatcher.put(0, backend("a", app="mail"))
    assert worker.lease(app="web").backend.id == "b"


def test_a_binding_follows_its_backend_to_another_slot() -> None:
    worker = one_worker(backend("a"), backend("b"))
    worker.lease()
    worker.dispatcher.put(7, backend("a"))
    worker.dispatcher.put(0, backend("c"))
    lease = worker.lease()
    assert (lease.backend.id, lease.slot, lease.from_affinity) == ("a", 7, True)


def test_backends_may_swap_slots() -> None:
    worker = one_worker(backend("a"), backend("b"))
    worker.lease()
    worker.dispatcher.put(0, backend("b"))
    worker.dispatcher.put(1, backend("a"))
    lease = worker.lease()
    assert (lease.backend.id, lease.slot, lease.from_affinity) == ("a", 1, True)


def test_an_id_that_stood_in_two_slots_can_leave_both() -> None:
    worker = one_worker(backend("a"))
    worker.dispatcher.put(1, backend("a"))
    worker.dispatcher.discard(1)
    worker.dispatcher.discard(0)
    worker.dispatcher.discard(0)
    assert worker.ask() is Refusal.NO_BACKEND


# ---- limits --------------------------------------------------------------------------------------


def test_a_bound_client_goes_elsewhere_at_the_hard_limit() -> None:
    worker = one_worker(backend("a", hard_limit=1), backend("b", country="FR"))
    worker.lease()
    assert worker.lease().backend.id == "b"
    assert worker.view.connections(0) == 1


def test_all_at_their_limit_is_told_from_none_at_all() -> None:
    worker = one_worker(backend("a", hard_limit=1), backend("b", healthy=False))
    worker.lease(network=1)
    assert worker.ask(network=2) is Refusal.AT_LIMIT
    worker.dispatcher.put(0, backend("a", healthy=False))
    assert worker.ask(network=2) is Refusal.NO_BACKEND


# ---- the POP's own verdicts ----------------------------------------------------------------------

OUT = Verdict(is_good=False)
ON_TRIAL = Verdict(is_good=False, trial=1)


def with_a_third_of_the_pool_judged(view: FakeView, verdict: Verdict) -> Worker:
    """The nearest of three backends, in slot 0, has this verdict."""
    worker = Worker(view, [backend("near"), backend("b", country="FR"), backend("c", country="FR")])
    worker.dispatcher.put(0, backend("near"), verdict)
    return worker


def test_a_bound_client_goes_elsewhere_when_its_backend_is_found_bad() -> None:
    worker = with_a_third_of_the_pool_judged(FakePop(1).views[0], GOOD)
    assert worker.lease().backend.id == "near"
    worker.dispatcher.put(0, backend("near"), OUT)
    lease = worker.lease()
    assert lease.backend.id != "near"
    assert not lease.from_affinity
    worker.dispatcher.put(0, backend("near"), GOOD)
    assert worker.lease().backend is lease.backend, "the client is bound to where it went"


def test_another_verdict_keeps_the_connections_of_a_backend() -> None:
    worker = with_a_third_of_the_pool_judged(FakePop(1).views[0], GOOD)
    first = worker.lease(network=1)
    worker.dispatcher.put(0, backend("near"), Verdict(weight_factor=0.5))
    assert worker.lease(network=2).score == 2
    worker.dispatcher.release(first)
    assert worker.view.connections(0) == 1


def test_a_bound_client_is_scored_with_the_weight_of_a_warm_up() -> None:
    worker = with_a_third_of_the_pool_judged(FakePop(1).views[0], Verdict(weight_factor=0.25))
    assert worker.lease(network=1).score == 0
    lease = worker.lease(network=1)
    assert lease.from_affinity
    assert lease.score == 4


def test_a_trial_lets_its_number_of_connections_through_over_all_workers() -> None:
    one, other = (with_a_third_of_the_pool_judged(view, ON_TRIAL) for view in FakePop(2).views)
    one.view.grant_trial(0, 3)
    given = [worker.lease(network=number).backend.id for number in range(9) for worker in (one, other)]
    assert given.count("near") == 3


def test_a_trial_ends_with_its_last_connection_until_the_next_one() -> None:
    worker = with_a_third_of_the_pool_judged(FakePop(1).views[0], ON_TRIAL)
    worker.view.grant_trial(0, 1)
    lease = worker.lease(network=1)
    assert lease.backend.id == "near"
    worker.dispatcher.release(lease)
    assert worker.lease(network=2).backend.id != "near"
    worker.view.grant_trial(0, 1)
    worker.dispatcher.put(0, backend("near"), Verdict(is_good=False, trial=2))
    assert worker.lease(network=3).backend.id == "near"


def test_a_bound_client_counts_towards_the_trial_too() -> None:
    worker = with_a_third_of_the_pool_judged(FakePop(1).views[0], GOOD)
    assert worker.lease().backend.id == "near"
    worker.dispatcher.put(0, backend("near"), ON_TRIAL)
    worker.view.grant_trial(0, 1)
    assert worker.lease().backend.id == "near"
    assert worker.lease().backend.id != "near"


def test_a_backend_that_is_good_again_needs_no_trial() -> None:
    worker = with_a_third_of_the_pool_judged(FakePop(1).views[0], ON_TRIAL)
    worker.dispatcher.put(0, backend("near"), GOOD)
    assert worker.lease().backend.id == "near"


def test_a_removed_backend_leaves_no_trial_to_the_next_in_its_slot() -> None:
    worker = with_a_third_of_the_pool_judged(FakePop(1).views[0], ON_TRIAL)
    worker.dispatcher.discard(0)
    worker.dispatcher.put(0, backend("new"))
    assert worker.lease().backend.id == "new"


def test_panic_lets_everybody_through_whatever_the_trial() -> None:
    worker = Worker(FakePop(1).views[0], [backend("a")])
    worker.dispatcher.put(0, backend("a"), ON_TRIAL)
    assert [worker.lease(network=number).backend.id for number in range(5)] == ["a"] * 5


def test_no_good_backend_is_told_from_all_at_their_limit() -> None:
    view = FakePop(1).views[0]
    dispatcher = Dispatcher("eu", TTL_S, Selection("eu", panic_threshold=0), view, view)
    dispatcher.put(0, backend("a"), OUT)
    assert dispatcher.dispatch("*", GERMAN, NETWORK, 0.0, 0.0) is Refusal.NO_BACKEND


def test_a_released_place_can_be_taken_by_another_worker() -> None:
    one, other = two_workers(backend("a", hard_limit=1))
    lease = one.lease()
    assert other.ask() is Refusal.AT_LIMIT
    one.dispatcher.release(lease)
    assert other.lease().backend.id == "a"


def test_a_place_lost_to_another_worker_is_sought_elsewhere() -> None:
    """The other worker takes the place after this one has caught up, so only the lease can refuse it."""
    one, other = two_workers(backend("a", hard_limit=1), backend("b", country="FR"))
    one.view.news = set()
    other.lease(network=2)
    one.view.news = set()  # the news is late
    assert one.lease(network=1).backend.id == "b"


def test_a_bound_place_lost_to_another_worker_is_sought_elsewhere() -> None:
    one, other = two_workers(backend("a", hard_limit=1), backend("b", country="FR"))
    one.dispatcher.release(one.lease(network=1))
    other.lease(network=2)
    one.view.news = set()
    lease = one.lease(network=1)
    assert (lease.backend.id, lease.from_affinity) == ("b", False)
    assert one.view.connections(0) == 1


# ---- retries -------------------------------------------------------------------------------------


def test_a_backend_that_was_tried_is_not_given_again() -> None:
    worker = one_worker(backend("a"), backend("b"), backend("c"))
    first = worker.lease()
    worker.dispatcher.unreachable(first)
    second = worker.lease(tried=[first.slot])
    worker.dispatcher.unreachable(second)
    third = worker.lease(tried=[first.slot, second.slot])
    assert {first.backend.id, second.backend.id, third.backend.id} == {"a", "b", "c"}
    worker.dispatcher.unreachable(third)
    assert worker.ask(tried=[0, 1, 2]) is Refusal.UNREACHABLE
    assert [worker.view.connections(slot) for slot in range(3)] == [0, 0, 0]


def test_a_bound_backend_that_was_tried_is_not_given_again() -> None:
    one, other = two_workers(backend("a"), backend("b"))
    first = one.lease()
    other.lease()
    assert one.lease(tried=[first.slot]).backend.id == "b"


def test_a_retry_binds_to_the_backend_it_got() -> None:
    worker = one_worker(backend("a"), backend("b"))
    worker.dispatcher.unreachable(worker.lease())
    worker.lease(tried=[0])
    assert worker.lease().backend.id == "b"


def test_a_client_is_not_bound_to_what_could_not_be_reached() -> None:
    worker = one_worker(backend("a", country="FR"))
    worker.dispatcher.unreachable(worker.lease())
    worker.dispatcher.put(1, backend("b"))
    assert worker.lease().backend.id == "b"


def test_a_failed_connect_leaves_a_newer_binding_alone() -> None:
    worker = one_worker(backend("a"), backend("b"))
    failing = worker.lease()
    worker.lease(tried=[0])
    worker.dispatcher.unreachable(failing)
    assert worker.lease().backend.id == "b"


# ---- renewal -------------------------------------------------------------------------------------


def test_an_open_connection_keeps_its_binding_in_use() -> None:
    worker = one_worker(backend("a"), backend("b"))
    lease = worker.lease(now_s=0.0)
    worker.dispatcher.renew(lease, 500.0)
    assert worker.view.locked is None
    assert worker.lease(now_s=1_000.0).from_affinity


def test_the_end_of_a_short_connection_is_not_noted() -> None:
    worker = one_worker(backend("a"))
    lease = worker.lease(now_s=0.0)
    worker.dispatcher.renew(lease, TTL_S / 2000)
    worker.view.lock(lease.tag)
    assert worker.view.get(lease.tag) == Binding(stable_key("a"), country_code("DE"), 0.0)
    worker.view.unlock(lease.tag)


@pytest.mark.parametrize(("elapsed_s", "noted_s"), [(TTL_S / 1000, 0.0), (TTL_S / 999, TTL_S / 999)])
def test_a_use_is_noted_when_the_last_one_is_long_enough_ago(elapsed_s: float, noted_s: float) -> None:
    worker = one_worker(backend("a"))
    worker.lease(now_s=0.0)
    lease = worker.lease(now_s=elapsed_s)
    assert lease.used_s == noted_s
    worker.view.lock(lease.tag)
    assert worker.view.get(lease.tag) == Binding(stable_key("a"), country_code("DE"), noted_s)
    worker.view.unlock(lease.tag)


def test_a_use_that_was_not_noted_is_renewed_from_the_last_one_that_was() -> None:
    worker = one_worker(backend("a"))
    worker.lease(now_s=0.0)
    lease = worker.lease(now_s=TTL_S / 2000)
    worker.dispatcher.renew(lease, TTL_S / 800)
    assert lease.used_s == TTL_S / 800


def test_renewing_leaves_a_newer_binding_alone() -> None:
    worker = one_worker(backend("a"), backend("b"))
    old = worker.lease(now_s=0.0)
    worker.lease(now_s=1.0, tried=[0])
    worker.dispatcher.renew(old, 2.0)
    worker.view.lock(old.tag)
    assert worker.view.get(old.tag) == Binding(stable_key("b"), country_code("DE"), 1.0)
    worker.view.unlock(old.tag)


def test_renewing_brings_no_binding_back() -> None:
    worker = one_worker(backend("a"))
    lease = worker.lease()
    worker.view.lock(lease.tag)
    worker.view.discard(lease.tag)
    worker.view.unlock(lease.tag)
    worker.dispatcher.renew(lease, 1.0)
    assert not worker.lease(now_s=2.0).from_affinity


def test_a_removed_backend_is_neither_renewed_nor_chosen_but_still_released() -> None:
    worker = one_worker(backend("a"))
    lease = worker.lease()
    worker.dispatcher.discard(0)
    worker.dispatcher.renew(lease, 1.0)
    worker.view.lock(lease.tag)
    assert worker.view.get(lease.tag) == Binding(stable_key("a"), country_code("DE"), 0.0)
    worker.view.unlock(lease.tag)
    worker.dispatcher.release(lease)
    assert worker.view.connections(0) == 0
    assert worker.ask() is Refusal.NO_BACKEND
