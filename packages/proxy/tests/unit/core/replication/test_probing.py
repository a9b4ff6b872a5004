"""Whom to ask, which answers count, and what is concluded when there are none."""

from __future__ import annotations

from random import Random

import pytest

from edgeproxy.core.replication.members import Endpoint
from edgeproxy.core.replication.probing import MAX_DOUBT, MAX_RELAYED, Probing, Relay, sample

pytestmark = pytest.mark.feature("replication.membership")

ORIGIN = Endpoint("192.0.2.1", 4001)


def make(seed: int = 1) -> Probing:
    return Probing(Random(seed).random)


def test_each_is_asked_once_in_a_round_and_rounds_differ() -> None:
    probing, nodes = make(), [f"n{number}" for number in range(8)]
    rounds = [[probing.next_target(nodes) for _ in nodes] for _ in range(3)]
    assert all(sorted(map(str, each)) == nodes for each in rounds)
    assert rounds[0] != rounds[1] != rounds[2]


def test_who_is_no_more_is_not_asked() -> None:
    probing = make()
    first = probing.next_target(["a", "b", "c"])
    second, _gone = sorted({"a", "b", "c"} - {first})
    assert probing.next_target([str(first), second]) == second
    assert probing.next_target([]) is None


def test_who_is_being_asked_is_not_asked_again() -> None:
    probing = make()
    probing.begin("a", 0.0, 1.0)
    assert [probing.next_target(["a", "b"]) for _ in range(3)] == ["b"] * 3
    probing.begin("b", 0.0, 1.0)
    assert probing.next_target(["a", "b"]) is None


def test_a_question_goes_through_others_and_then_fails() -> None:
    probing = make()
    sequence = probing.begin("a", 10.0, 1.0)
    assert probing.to_relay(10.4) == []
    assert probing.to_relay(10.5) == [(sequence, "a")]
    assert probing.to_relay(10.6) == []
    assert probing.failed(11.4) == []
    assert probing.failed(11.5) == ["a"]
    assert probing.failed(99.0) == []
    assert not probing.answered(sequence, "a"), "too late"


def test_only_the_answer_to_a_question_counts() -> None:
    probing = make()
    sequence = probing.begin("a", 10.0, 1.0)
    assert not probing.answered(sequence, "b")
    assert not probing.answered(sequence + 1, "a")
    assert probing.answered(sequence, "a")
    assert not probing.answered(sequence, "a"), "it was answered"
    assert probing.failed(99.0) == []


def test_numbers_of_questions_begin_anywhere() -> None:
    assert make(1).next_sequence() != make(2).next_sequence()
    assert Probing(lambda: 1 - 2.0**-33).next_sequence() == 0
    assert Probing(lambda: 0.75).next_sequence() == 0.75 * 2**32 + 1, "they fit into 32 bits"


def test_who_gets_no_answers_doubts_itself_and_waits_for_longer() -> None:
    probing = make()
    for expected in (1, 2, 3, 4, 4):
        probing.begin("a", 0.0, 1.0)
        probing.failed(99.0)
        assert probing.doubt == expected
    assert probing.patience == MAX_DOUBT + 1
    sequence = probing.begin("a", 0.0, 1.0)
    assert probing.to_relay(2.4) == []
    assert probing.failed(7.4) == []
    assert probing.answered(sequence, "a")
    assert probing.doubt == 3
    probing.doubt_itself()
    assert probing.doubt == 4


def test_who_gets_answers_does_not_doubt_itself() -> None:
    probing = make()
    probing.doubt_itself()
    for _ in range(3):
        assert probing.answered(probing.begin("a", 0.0, 1.0), "a")
        assert probing.doubt == 0


def test_standing_still_puts_off_what_is_due() -> None:
    probing = make()
    sequence = probing.begin("a", 0.0, 1.0)
    probing.suspend(60.0)
    assert probing.to_relay(60.4) == []
    assert probing.failed(61.4) == []
    assert probing.to_relay(60.5) == [(sequence, "a")]
    assert probing.failed(61.5) == ["a"]


def test_an_answer_for_another_goes_to_whoever_asked() -> None:
    probing = make()
    relay = Relay(ORIGIN, 7, "a", 2.0)
    sequence = probing.relay(relay)
    assert sequence is not None
    assert probing.relayed(sequence, "b") is None
    assert probing.relayed(sequence, "a") == relay
    assert probing.relayed(sequence, "a") is None


def test_questions_for_others_are_bounded_and_forgotten_in_time() -> None:
    probing = make()
    found = [probing.relay(Relay(ORIGIN, 7, "a", 2.0)) for _ in range(MAX_RELAYED + 1)]
    assert found[-1] is None
    assert None not in found[:-1]
    probing.failed(2.0)
    assert probing.relay(Relay(ORIGIN, 7, "a", 4.0)) is not None


def test_a_sample_holds_nothing_twice() -> None:
    draw = Random(3).random
    assert sorted(sample("abc", 9, draw)) == ["a", "b", "c"]
    assert len(set(sample(range(100), 10, draw))) == 10
    assert {tuple(sample("ab", 1, draw)) for _ in range(50)} == {("a",), ("b",)}
