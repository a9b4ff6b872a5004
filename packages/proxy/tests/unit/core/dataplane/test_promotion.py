"""When a connection is chatty, and how much credit each of its directions gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.dataplane.promotion import (
    LARGEST_CREDIT_BYTES,
    LONG_TURN_BYTES,
    SMALLEST_CREDIT_BYTES,
    SMALLEST_REST_BYTES,
    Credit,
    Run,
    Talk,
    grant,
)


def test_a_turn_is_what_one_side_says_until_the_other_speaks() -> None:
    talk = Talk()
    for speaker, turns in ((3, 1), (3, 1), (4, 2), (4, 2), (3, 3)):
        talk.hear(speaker, 1)
        assert talk.turns == turns


def test_a_long_turn_begins_the_count_anew_in_however_many_pieces() -> None:
    talk = Talk()
    for speaker in (3, 4, 3, 4):
        talk.hear(speaker, LONG_TURN_BYTES)
    assert talk.turns == 4
    talk.hear(4, 1)
    assert talk.turns == 0
    talk.hear(4, 1)
    assert talk.turns == 0
    talk.hear(3, 1)
    assert talk.turns == 1


def test_credit_is_half_of_the_room_and_told_of_at_its_half() -> None:
    assert grant(1_000, 40_000) == Credit(21_000, 11_000)


def test_credit_has_a_bound_whatever_the_room() -> None:
    assert grant(0, 1 << 30) == Credit(LARGEST_CREDIT_BYTES, LARGEST_CREDIT_BYTES // 2)


@pytest.mark.parametrize("room", [-5, 0, 2 * SMALLEST_CREDIT_BYTES - 1])
def test_too_little_room_is_no_credit(room: int) -> None:
    assert grant(0, room) is None


def test_the_rest_of_a_credit_is_told_of_once_more() -> None:
    assert Credit(10_000, 5_000).split(6_000) == Credit(10_000, 8_000)


def test_a_small_rest_is_not_split() -> None:
    credit = Credit(10_000, 5_000)
    assert credit.split(10_000 - SMALLEST_REST_BYTES) is not None
    assert credit.split(10_000 - SMALLEST_REST_BYTES + 1) is None
    assert credit.split(12_000) is None


@given(charged=st.integers(0, 1 << 60), room=st.integers(-(1 << 20), 1 << 40))
def test_a_notice_always_lies_between_now_and_the_limit(charged: int, room: int) -> None:
    credit = grant(charged, room)
    while credit is not None:
        assert charged < credit.notice_at < credit.limit <= charged + LARGEST_CREDIT_BYTES
        charged = credit.notice_at
        credit = credit.split(charged)


def test_a_run_is_delivered_when_the_receiver_has_taken_what_was_directed_to_it() -> None:
    run = Run(written=100, redirected=1_000, sent=40)
    assert run.is_delivered(100, 1_000)
    assert not run.is_delivered(149, 1_050)
    assert run.is_delivered(150, 1_050)
    assert run.sent_by(149) == 89
