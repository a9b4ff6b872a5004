from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.controlplane.candidates import COUNTS_MAX_AGE_S, Candidates, IpVersion
from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.selection import ANY_APP
from edgeproxy.core.model import GOOD, Backend, Client, Verdict

POP_REGION = "eu"
BRAZILIAN = Client("200.160.2.3", "BR", "sa")
NOWHERE = Client("192.0.2.9", "", "")


def backend(
    backend_id: str,
    host: str = "192.0.2.1",
    *,
    app: str = "shop",
    region: str = "eu",
    country: str = "DE",
    healthy: bool = True,
    weight: int = 1,
    soft_limit: int = 10,
    hard_limit: int = 0,
) -> Backend:
    return Backend(backend_id, app, region, country, host, 80, healthy, weight, soft_limit, hard_limit)


class World:
    """The table, the counts and the resolved names that a :class:`Candidates` follows."""

    def __init__(self, *backends: Backend, hosts: dict[str, tuple[str, ...]] | None = None) -> None:
        self.rows = {slot: PlacedBackend(slot, each) for slot, each in enumerate(backends)}
        self.version = 1
        self.counts: dict[int, int] = {}
        self.changed: set[int] | None = set()
        self.hosts = hosts or {}
        self.now_s = 1000.0
        self.candidates = Candidates(POP_REGION, self, self, lambda: dict(self.hosts))
        self.candidates.catch_up(self.now_s)

    def snapshot(self) -> Collection[PlacedBackend]:
        return tuple(self.rows.values())

    def connections(self, slot: int) -> int:
        return self.counts.get(slot, 0)

    def changed_slots(self) -> Collection[int] | None:
        changed, self.changed = self.changed, set()
        return changed

    def put(self, slot: int, each: Backend) -> None:
        self.rows[slot] = PlacedBackend(slot, each)
        self.version += 1

    def judge(self, slot: int, verdict: Verdict) -> None:
        self.rows[slot] = PlacedBackend(slot, self.rows[slot].backend, verdict)
        self.version += 1

    def discard(self, slot: int) -> None:
        del self.rows[slot]
        self.version += 1

    def count(self, slot: int, connections: int) -> None:
        self.counts[slot] = connections
        if self.changed is not None:
            self.changed.add(slot)

    def catch_up(self, after_s: float = 0.0) -> None:
        self.now_s += after_s
        self.candidates.catch_up(self.now_s)

    def nearest(
        self,
        asker: Client = NOWHERE,
        amount: int = 99,
        *,
        app: str = "shop",
        version: IpVersion | None = None,
        region: str | None = None,
    ) -> list[str]:
        found = self.candidates.nearest(app, asker, amount, lambda: 0.0, version=version, region=region)
        return [each.backend.id for each in found]


def formula(each: Backend, connections: int, asker: Client) -> float:
    """The product's score, written down a second time."""
    if asker.country and each.country == asker.country:
        geo = 0
    elif asker.region and each.region == asker.region:
        geo = 1
    else:
        geo = 2 if each.region == POP_REGION else 3
    return geo * 100 + (connections / (each.soft_limit or 1)) / (each.weight or 1)


PLACES = st.sampled_from([("eu", "DE"), ("eu", "FR"), ("sa", "BR"), ("sa", "CL"), ("us", "US"), ("us", "BR")])


@given(
    rows=st.lists(
        st.tuples(
            PLACES, st.integers(0, 3), st.integers(0, 3), st.integers(0, 4), st.integers(0, 5), st.booleans()
        ),
        max_size=12,
    ),
    asker=st.sampled_from([BRAZILIAN, NOWHERE, Client("192.0.2.8", "FR", "eu")]),
    amount=st.integers(1, 12),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=13, max_size=13),
    region=st.sampled_from([None, "eu", "sa", "us"]),
)
def test_the_nearest_are_those_with_the_lowest_scores_in_order(
    rows: list[tuple[tuple[str, str], int, int, int, int, bool]],
    asker: Client,
    amount: int,
    draws: list[float],
    region: str | None,
) -> None:
    world = World(
        *(
            backend(
                f"b{number}",
                region=place[0],
                country=place[1],
                weight=weight,
                soft_limit=soft,
                hard_limit=hard,
                healthy=healthy,
            )
            for number, (place, weight, soft, hard, _, healthy) in enumerate(rows)
        )
    )
    for slot, row in enumerate(rows):
        world.count(slot, row[4])
    world.catch_up(COUNTS_MAX_AGE_S)
    supply = iter(draws)
    for _ in range(2):  # what was answered once is a candidate again
        found = world.candidates.nearest("shop", asker, amount, lambda: next(supply, 0.5), region=region)
        scores = [formula(each.backend, rows[int(each.backend.id[1:])][4], asker) for each in found]
        expected = sorted(
            formula(placed.backend, rows[slot][4], asker)
            for slot, placed in world.rows.items()
            if placed.backend.healthy
            and (placed.backend.hard_limit == 0 or rows[slot][4] < placed.backend.hard_limit)
            and region in (None, placed.backend.region)
        )
        assert scores == pytest.approx(expected[:amount])
        assert len({each.backend.id for each in found}) == len(found)


@pytest.mark.parametrize(("draw", "winner"), [(0.0, "a"), (0.49, "a"), (0.5, "b"), (0.99, "b")])
def test_a_draw_decides_among_equals(draw: float, winner: str) -> None:
    (found,) = World(backend("a"), backend("b")).candidates.nearest("shop", NOWHERE, 1, lambda: draw)
    assert found.backend.id == winner


def test_each_choice_has_a_draw_of_its_own() -> None:
    world = World(*map(backend, "abcd"))
    draws = count()

    def draw() -> float:
        next(draws)
        return 0.0

    world.candidates.nearest("shop", NOWHERE, 3, draw)
    assert next(draws) == 3


def test_other_apps_are_no_candidates_and_any_app_means_all() -> None:
    world = World(backend("a"), backend("b", app="blog"))
    assert world.nearest() == ["a"]
    assert sorted(world.nearest(app=ANY_APP)) == ["a", "b"]


def test_a_region_or_version_without_a_backend_has_no_candidates() -> None:
    world = World(backend("a"))
    assert world.nearest(region="ap") == []
    assert world.nearest(version=6) == []
    assert world.nearest(region="ap", version=6) == []


class TestAddresses:
    def test_a_backend_is_a_candidate_for_each_version_that_it_has(self) -> None:
        world = World(backend("four"), backend("six", "2001:db8::1"))
        assert world.nearest(version=4) == ["four"]
        assert world.nearest(version=6) == ["six"]
        assert sorted(world.nearest()) == ["four", "six"]

    def test_a_host_name_means_what_it_resolves_to_now(self) -> None:
        world = World(backend("named", "db.example"))
        assert world.nearest() == []
        world.hosts["db.example"] = ("2001:db8::1", "192.0.2.7", "192.0.2.8")
        world.catch_up(COUNTS_MAX_AGE_S)
        assert world.nearest(version=4) == world.nearest(version=6) == ["named"]
        named = world.candidates.of_slot(0)
        assert named.addresses(4) == ("192.0.2.7", "192.0.2.8")
        assert named.addresses(6) == ("2001:db8::1",)
        assert named.addresses(None) == ("192.0.2.7", "192.0.2.8", "2001:db8::1")
        world.hosts["db.example"] = ("192.0.2.9",)
        world.catch_up(COUNTS_MAX_AGE_S)
        assert world.candidates.of_slot(0).addresses(None) == ("192.0.2.9",)
        assert world.nearest(version=6) == []

    def test_a_change_of_one_name_leaves_other_backends_alone(self) -> None:
        world = World(backend("four"), backend("named", "db.example"))
        before = world.candidates.of_slot(0)
        world.hosts["db.example"] = ("192.0.2.9",)
        world.catch_up(COUNTS_MAX_AGE_S)
        assert world.candidates.of_slot(0) is before

    def test_a_name_that_stopped_resolving_is_no_candidate(self) -> None:
        world = World(backend("named", "db.example"), hosts={"db.example": ("192.0.2.7",)})
        assert world.nearest() == ["named"]
        world.hosts["db.example"] = ()
        world.catch_up(COUNTS_MAX_AGE_S)
        assert world.nearest() == []
        assert world.candidates.of_slot(0).addresses(None) == ()

    def test_a_row_added_later_uses_names_that_are_resolved_already(self) -> None:
        world = World(hosts={"db.example": ("192.0.2.7",)})
        world.put(0, backend("named", "db.example"))
        world.catch_up()
        assert world.nearest(version=4) == ["named"]

    def test_an_ipv4_address_mapped_into_ipv6_is_ipv4(self) -> None:
        world = World(backend("mapped", "::ffff:192.0.2.5"))
        assert world.candidates.of_slot(0).addresses(4) == ("192.0.2.5",)
        assert world.nearest(version=6) == []

    def test_an_address_with_a_zone_means_nothing_to_others(self) -> None:
        assert World(backend("local", "fe80::1%eth0")).nearest() == []

    def test_an_address_that_means_nothing_leaves_the_others(self) -> None:
        resolved = ("fe80::1%eth0", "no address", "192.0.2.7")
        world = World(backend("named", "db.example"), hosts={"db.example": resolved})
        assert world.candidates.of_slot(0).addresses(None) == ("192.0.2.7",)


class TestFollowing:
    def test_an_added_row_is_a_candidate(self) -> None:
        world = World(backend("a"))
        world.put(1, backend("b"))
        world.catch_up()
        assert sorted(world.nearest()) == ["a", "b"]

    def test_a_removed_row_is_none_any_more(self) -> None:
        world = World(backend("a"), backend("b"))
        world.discard(0)
        world.catch_up()
        assert world.nearest() == ["b"]
        assert world.candidates.directory.backends_text("shop") == "b eu"

    def test_a_changed_row_counts_as_it_is_now(self) -> None:
        world = World(backend("a"), backend("b", region="us"))
        assert world.nearest(amount=1) == ["a"]
        world.put(0, backend("a", healthy=False))
        world.catch_up()
        assert world.nearest() == ["b"]

    def test_a_moved_row_leaves_its_old_region(self) -> None:
        world = World(backend("a"))
        world.put(0, backend("a", region="us"))
        world.catch_up()
        assert world.nearest(region="eu") == []
        assert world.nearest(region="us") == ["a"]

    def test_a_slot_may_come_to_belong_to_another_backend(self) -> None:
        world = World(backend("a"))
        world.put(0, backend("b", app="blog"))
        world.catch_up()
        assert world.nearest() == []
        assert world.nearest(app="blog") == ["b"]

    def test_nothing_is_read_again_while_the_version_stays(self) -> None:
        world = World(backend("a"))
        world.rows.clear()
        world.catch_up()
        assert world.nearest() == ["a"]


class TestCounts:
    def test_counts_reorder_the_candidates(self) -> None:
        world = World(backend("a"), backend("b"))
        world.count(0, 5)
        world.catch_up(COUNTS_MAX_AGE_S)
        assert world.nearest() == ["b", "a"]
        world.count(1, 9)
        world.catch_up(COUNTS_MAX_AGE_S)
        assert world.nearest() == ["a", "b"]

    def test_counts_are_read_a_few_times_a_second_at_most(self) -> None:
        world = World(backend("a"), backend("b"))
        world.count(0, 5)
        world.catch_up(COUNTS_MAX_AGE_S / 2)
        assert world.nearest() == ["a", "b"]
        world.catch_up(COUNTS_MAX_AGE_S)
        assert world.nearest() == ["b", "a"]

    def test_all_are_read_when_any_may_have_changed(self) -> None:
        world = World(backend("a"), backend("b"))
        world.counts[0] = 5
        world.changed = None
        world.catch_up(COUNTS_MAX_AGE_S)
        assert world.nearest() == ["b", "a"]

    def test_a_row_that_comes_back_brings_its_connections(self) -> None:
        world = World(backend("a"), backend("b"))
        world.discard(0)
        world.counts[0] = 5
        world.catch_up()
        world.put(0, backend("a"))
        world.catch_up()
        assert world.nearest() == ["b", "a"]

    def test_counts_of_slots_without_a_row_are_ignored(self) -> None:
        world = World(backend("a"))
        world.count(7, 3)
        world.catch_up(COUNTS_MAX_AGE_S)
        assert world.nearest() == ["a"]

    def test_a_limit_is_compared_with_the_count_of_this_moment(self) -> None:
        world = World(backend("a", hard_limit=2), backend("b", region="us"))
        world.counts[0] = 2
        assert world.nearest() == ["b"]
        world.counts[0] = 1
        world.changed = {0}
        world.catch_up(COUNTS_MAX_AGE_S)
        assert world.nearest() == ["a", "b"]

    def test_with_all_at_their_limit_there_is_none(self) -> None:
        world = World(*(backend(name, hard_limit=1) for name in "abc"))
        world.counts = {0: 1, 1: 1, 2: 1}
        assert world.nearest(amount=1) == []


def test_a_question_costs_no_look_at_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(*(backend(f"b{number}") for number in range(50)))
    world.nearest(amount=1)
    looks: Iterator[int] = count()
    monkeypatch.setattr(world, "connections", lambda _slot: next(looks))
    monkeypatch.setattr(world, "snapshot", lambda: pytest.fail("the table is read"))
    for _ in range(10):
        world.catch_up()
        world.nearest(amount=1)
    assert next(looks) == 0


def test_a_verdict_of_the_pop_counts_here_too() -> None:
    world = World(backend("a"), backend("b"), backend("c"))
    world.judge(1, Verdict(is_good=False))
    world.catch_up()
    assert sorted(world.nearest()) == ["a", "c"]
    world.judge(1, GOOD)
    world.catch_up()
    assert len(world.nearest()) == 3


def test_a_backend_on_trial_is_no_candidate() -> None:
    world = World(backend("a"), backend("b"), backend("c"))
    world.judge(1, Verdict(is_good=False, trial=3))
    world.catch_up()
    assert sorted(world.nearest()) == ["a", "c"]


def test_a_verdict_outlasts_a_change_of_addresses() -> None:
    world = World(backend("a", "one.test"), backend("b"), backend("c"), hosts={"one.test": ("192.0.2.7",)})
    world.judge(0, Verdict(is_good=False))
    world.catch_up()
    world.hosts["one.test"] = ("192.0.2.8",)
    world.catch_up(COUNTS_MAX_AGE_S)
    assert sorted(world.nearest()) == ["b", "c"]


def test_the_panic_threshold_is_the_callers() -> None:
    world = World(backend("a"))
    world.candidates = Candidates(POP_REGION, world, world, dict, panic_threshold=0)
    world.judge(0, Verdict(is_good=False))
    world.catch_up()
    assert world.nearest() == []
    world.candidates.set_panic_threshold(0.5)
    assert world.nearest() == ["a"]
    world.put(1, backend("b", region="us"))
    world.judge(1, Verdict(is_good=False))
    world.catch_up()
    assert world.nearest(region="us") == ["b"]
