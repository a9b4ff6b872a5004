"""How often a claim is told, and that it is told within the room there is."""

from __future__ import annotations

import pytest

from edgeproxy.core.replication.members import State
from edgeproxy.core.replication.news import News, size_of, times_told
from packages.proxy.tests.unit.core.replication.gossiping import claim

pytestmark = pytest.mark.feature("replication.membership")


def test_a_claim_is_told_a_number_of_times_and_then_no_more() -> None:
    news = News()
    news.add(claim("a"))
    told = [news.take(1_000, 3, but="") for _ in range(10)]
    assert told == [[claim("a")]] * times_told(3) + [[]] * (10 - times_told(3))
    assert len(news) == 0


@pytest.mark.parametrize(("members", "times"), [(2, 4), (9, 4), (10, 8), (50, 8), (1_000, 16)])
def test_it_is_told_more_often_where_there_are_more(members: int, times: int) -> None:
    assert times_told(members) == times


def test_the_latest_claim_takes_the_place_of_the_former() -> None:
    news = News()
    news.add(claim("a"))
    news.take(1_000, 9, but="")
    news.add(claim("a", State.DEAD))
    assert [news.take(1_000, 9, but="") for _ in range(5)] == [[claim("a", State.DEAD)]] * 4 + [[]]


def test_what_was_told_least_goes_first_and_nothing_beyond_the_room() -> None:
    news = News()
    for node in "abc":
        news.add(claim(node))
    room = 2 * size_of(claim("a"))
    assert [each.node for each in news.take(room, 9, but="")] == ["a", "b"]
    assert [each.node for each in news.take(room, 9, but="")] == ["c", "a"]
    assert news.take(size_of(claim("a")) - 1, 9, but="") == []


def test_what_was_told_before_waits_behind_what_was_not() -> None:
    news = News()
    for node in "aba":
        news.add(claim(node))
    assert [each.node for each in news.take(size_of(claim("a")), 9, but="")] == ["b"]


def test_nobody_is_told_about_himself() -> None:
    news = News()
    news.add(claim("a"))
    assert news.take(1_000, 9, but="a") == []
    assert len(news) == 1
    news.add(claim("b"))
    assert [each.node for each in news.take(1_000, 9, but="a")] == ["b"]
