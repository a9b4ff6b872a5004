"""A small share of the fuzzing, and every input that once showed a defect."""

from __future__ import annotations

from random import Random

import pytest

from packages.proxy.tests.fuzz import regressions
from packages.proxy.tests.fuzz.engine import draw, examine_range
from packages.proxy.tests.fuzz.properties import Target
from packages.proxy.tests.fuzz.targets import TARGETS

# What parsers do is covered by the tests that say what it is.
pytestmark = pytest.mark.untraced

INPUTS = 2000
FIXED_SEED = 1
BY_NAME = {target.name: target for target in TARGETS}


def assert_nothing_found(target: Target, seed: int, inputs: int) -> None:
    outcome = examine_range(target, seed, range(inputs))
    assert outcome.finding is None, outcome.finding
    assert outcome.inputs == inputs


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_holds_for_the_same_inputs_each_time(target: Target) -> None:
    assert_nothing_found(target, FIXED_SEED, INPUTS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_holds_for_fresh_inputs(target: Target, seed: int) -> None:
    assert_nothing_found(target, seed, INPUTS // 4)


def test_holds_for_every_input_that_once_showed_a_defect() -> None:
    for name, data in regressions.kept():
        BY_NAME[name].check(data)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_inputs_are_neither_all_accepted_nor_all_refused(target: Target, rng: Random) -> None:
    changed = [data for number in range(300) for data, valid in [draw(target, 7, number)] if not valid]
    accepted = sum(map(target.check, changed))
    assert 0.02 < accepted / len(changed) < 0.8
    assert target.check(target.sample(rng))
