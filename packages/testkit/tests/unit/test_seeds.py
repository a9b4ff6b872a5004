from __future__ import annotations

import random

import pytest

from testkit.seeds import choose_seed, replay_hint


def test_option_wins_over_the_environment() -> None:
    assert choose_seed(0, {"TESTKIT_SEED": "7"}) == 0


def test_environment_gives_the_seed() -> None:
    assert choose_seed(None, {"TESTKIT_SEED": "7"}) == 7


def test_fresh_seed_does_not_follow_the_global_generator() -> None:
    fresh = set()
    for _ in range(5):
        random.seed(1)
        fresh.add(choose_seed(None, {}))
    assert len(fresh) > 1


def test_environment_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match="TESTKIT_SEED='one' is no whole number"):
        choose_seed(None, {"TESTKIT_SEED": "one"})


def test_replay_hint_is_a_command() -> None:
    hint = replay_hint("tests/test_x.py::test_y[a b]", 5)
    assert hint == "seed 5; replay with: pytest 'tests/test_x.py::test_y[a b]' --testkit-seed 5"
