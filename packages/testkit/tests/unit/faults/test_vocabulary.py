from __future__ import annotations

from collections.abc import Callable

import pytest

from testkit.faults.vocabulary import (
    BOTH,
    DOWN,
    UP,
    Bandwidth,
    ClockJump,
    Corruption,
    Fault,
    Latency,
    Loss,
    Partition,
    Slicing,
)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Latency(-1), "delay_s is -1"),
        (lambda: Latency(1, jitter_s=-0.1), r"jitter_s is -0\.1"),
        (lambda: Partition(probability=1.5), r"probability is 1\.5"),
        (lambda: Loss(1.1), r"share is 1\.1"),
        (lambda: Corruption(share=-1), "share is -1"),
        (lambda: Bandwidth(0), "say Partition"),
        (lambda: Bandwidth(-1), "bytes_per_s is -1"),
        (lambda: Slicing(0), "0 bytes"),
        (lambda: Slicing(-1), "size_bytes is -1"),
    ],
)
def test_what_cannot_be_is_refused(wrong: Callable[[], Fault], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wrong()


def test_a_clock_may_jump_back() -> None:
    assert ClockJump(-30).by_s == -30


def test_both_covers_either_way() -> None:
    assert [BOTH.covers(way) for way in (UP, DOWN)] == [True, True]
    assert [UP.covers(way) for way in (UP, DOWN)] == [True, False]


def test_faults_of_the_same_words_are_the_same() -> None:
    assert Latency(0.1) == Latency(0.1)
    assert len({Latency(0.1), Latency(0.1), Latency(0.1, direction=UP)}) == 2
