"""Which claim stands, what is told of it, and that no number of claims makes the list grow without end."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.replication.members import Endpoint, Happened, Members, State
from packages.proxy.tests.unit.core.replication.gossiping import claim

pytestmark = pytest.mark.feature("replication.membership")


@pytest.mark.parametrize(
    ("first", "second", "happened"),
    [
        (claim("a"), claim("a", State.SUSPECT), Happened.SUSPECT),
        (claim("a"), claim("a", State.DEAD), Happened.DEAD),
        (claim("a", State.SUSPECT), claim("a", State.DEAD), Happened.DEAD),
        (claim("a"), claim("a", State.LEFT), Happened.LEFT),
        (claim("a", State.SUSPECT), claim("a", State.ALIVE, 2), Happened.UP),
        (claim("a"), claim("a", incarnation=2), Happened.RENEWED),
        (claim("a"), claim("a", incarnation=2, number=5), Happened.CHANGED),
        (claim("a"), claim("a", incarnation=2, run=7), Happened.CHANGED),
        (claim("a"), claim("a", incarnation=2, oldest=0), Happened.CHANGED),
        (claim("a"), claim("a"), None),
        (claim("a", incarnation=2), claim("a", State.LEFT, 1), None),
        (claim("a", State.SUSPECT), claim("a"), None),
    ],
)
def test_a_claim_stands_until_a_greater_one_comes(first: object, second: object, happened: object) -> None:
    members = Members()
    members.merge(first, 1.0)  # type: ignore[arg-type]
    assert members.merge(second, 2.0) is happened  # type: ignore[arg-type]
    member = members.get("a")
    assert member is not None
    assert member.claim == (first if happened is None else second)
    assert member.since_s == (1.0 if happened is None else 2.0)


@pytest.mark.parametrize("state", [State.ALIVE, State.SUSPECT])
def test_who_was_not_known_is_a_member_from_now_on(state: State) -> None:
    members = Members()
    assert members.merge(claim("a", state), 1.0) == state.name.lower().replace("alive", "up")
    assert [member.claim.node for member in members.all()] == ["a"]


@pytest.mark.parametrize("state", [State.DEAD, State.LEFT])
def test_who_was_not_known_and_is_gone_stays_unknown(state: State) -> None:
    members = Members()
    assert members.merge(claim("a", state), 1.0) is None
    assert members.get("a") is None


def test_who_is_gone_for_long_is_forgotten() -> None:
    members = Members()
    for node, state in (("a", State.DEAD), ("b", State.LEFT), ("c", State.ALIVE)):
        members.merge(claim(node), 1.0)
        members.merge(claim(node, state), 2.0)
    assert members.forget(1.9) == []
    assert {each.node for each in members.forget(2.0)} == {"a", "b"}
    assert [member.claim.node for member in members.all()] == ["c"]


def test_a_full_list_gives_up_who_is_gone_for_longest_and_nobody_else() -> None:
    members = Members(limit=2)
    for at_s, node in enumerate("ab"):
        members.merge(claim(node), at_s)
        members.merge(claim(node, State.DEAD), 10.0 - at_s)
    assert members.merge(claim("c"), 20.0) is Happened.UP
    assert members.get("b") is None, "it is dead since 9 s, a since 10 s"
    assert members.merge(claim("d"), 20.0) is Happened.UP
    assert members.merge(claim("e"), 20.0) is None
    assert members.turned_away == 1
    assert {member.claim.node for member in members.all()} == {"c", "d"}


claims = st.builds(
    lambda state, incarnation, run, number: claim("a", State(state), incarnation, run, number=number),
    *(st.integers(low, high) for low, high in ((0, 3), (0, 3), (0, 1), (0, 0))),
)


@given(heard=st.lists(claims, max_size=4))
def test_in_whatever_order_claims_come_all_believe_the_same(heard: list[object]) -> None:
    believed = set()
    for order in itertools.permutations(heard):
        members = Members()
        members.merge(claim("a", incarnation=0, run=0), 0.0)
        for each in (*order, *order[:2]):
            members.merge(each, 1.0)  # type: ignore[arg-type]
        member = members.get("a")
        assert member is not None
        believed.add(member.claim.order)
    assert len(believed) == 1


def test_an_endpoint_is_written_as_people_write_it() -> None:
    assert str(Endpoint("192.0.2.1", 4001)) == "192.0.2.1:4001"
    assert str(Endpoint("2001:db8::1", 4001)) == "[2001:db8::1]:4001"
