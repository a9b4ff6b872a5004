"""Whom a node dials, and when it does so again."""

from __future__ import annotations

import pytest

from edgeproxy.core.replication.dialling import (
    FIRST_DELAY_S,
    GRACE_S,
    LASTED_S,
    MAX_DELAY_S,
    Dialling,
    survivor,
)

pytestmark = pytest.mark.feature("replication.peers")


def make(node: str, *peers: str) -> Dialling[str]:
    dialling: Dialling[str] = Dialling(node)
    dialling.want({peer: f"at {peer}" for peer in peers}, 100.0)
    return dialling


def test_the_smaller_name_dials_at_once_and_the_other_later() -> None:
    dialling = make("m", "a", "z", "m")
    assert dialling.due(100.0) == [("z", "at z")]
    assert dialling.next_s() == 100.0 + GRACE_S
    assert dialling.due(100.0 + GRACE_S) == [("a", "at a")]
    assert dialling.next_s() is None
    assert dialling.due(1_000.0) == []


def test_who_is_connected_is_not_dialled() -> None:
    dialling = make("m", "a")
    dialling.connected("a", 100.0)
    assert dialling.next_s() is None
    dialling.lost("a", 200.0, draw=0.0)
    assert dialling.next_s() == 200.0 + GRACE_S


def test_connections_that_do_not_last_are_attempts_that_failed() -> None:
    dialling = make("a", "z")
    delays = []
    for _ in range(3):
        dialling.connected("z", 100.0)
        dialling.connected("z", 101.0)
        dialling.lost("z", 100.0 + LASTED_S - 1, draw=0.0)
        delays.append((dialling.next_s() or 0.0) - (100.0 + LASTED_S - 1))
    assert delays == pytest.approx([FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S])


def test_attempts_come_ever_later_up_to_a_limit() -> None:
    dialling = make("a", "z")
    delays = []
    for _ in range(12):
        assert dialling.due(dialling.next_s() or 0.0) == [("z", "at z")]
        dialling.failed("z", 0.0, draw=0.0)
        delays.append(dialling.next_s())
    assert delays[:3] == [FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert delays[-1] == MAX_DELAY_S


def test_attempts_are_spread() -> None:
    dialling = make("a", "z")
    dialling.failed("z", 0.0, draw=1.0)
    assert dialling.next_s() == FIRST_DELAY_S / 2


def test_a_connection_makes_the_next_attempt_a_first_one() -> None:
    dialling = make("a", "z")
    for _ in range(9):
        dialling.failed("z", 0.0, draw=0.0)
    dialling.connected("z", 0.0)
    dialling.lost("z", 10.0, draw=0.0)
    dialling.due(10.0)
    dialling.failed("z", 10.0, draw=0.0)
    assert dialling.next_s() == 10.0 + FIRST_DELAY_S


def test_news_shorten_the_wait_but_start_no_second_attempt() -> None:
    dialling = make("a", "z")
    for _ in range(9):
        dialling.failed("z", 0.0, draw=0.0)
    dialling.hurry("z", 1.0)
    assert dialling.due(1.0) == [("z", "at z")]
    dialling.hurry("z", 1.0)
    assert dialling.due(2.0) == []


def test_another_address_is_dialled_anew_and_the_same_is_not() -> None:
    dialling = make("a", "y", "z")
    dialling.due(100.0)
    dialling.want({"y": "at y", "z": "elsewhere"}, 200.0)
    assert dialling.due(200.0) == [("z", "elsewhere")]


def test_who_is_no_member_any_more_is_let_be() -> None:
    dialling = make("a", "z")
    dialling.want({}, 100.0)
    dialling.connected("z", 1.0)
    dialling.lost("z", 1.0, 0.0)
    dialling.hurry("z", 1.0)
    dialling.failed("z", 1.0, 0.0)
    assert dialling.next_s() is None


def test_both_ends_agree_on_whose_connection_stays() -> None:
    assert survivor("a", "b") == survivor("b", "a") == "a"
