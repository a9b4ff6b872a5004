"""Every suite that testkit brings: held by its reference, and it bites."""

from __future__ import annotations

import pytest

from testkit.contracts.planted import Bug, Suite
from testkit.contracts.suites import NAMES, load

SUITES = [load(name) for name in NAMES]


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_reference_holds_its_contract(suite: Suite) -> None:
    suite.check_reference().require()


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_suite_has_its_name_and_at_least_five_bugs(suite: Suite) -> None:
    assert load(suite.name) is suite
    assert len(suite.bugs) >= 5
    names = [bug.name for bug in suite.bugs]
    assert len({*names}) == len(names)


@pytest.mark.parametrize(
    "bug",
    [pytest.param(bug, id=f"{suite.name}-{bug.name}") for suite in SUITES for bug in suite.bugs],
)
def test_bug_is_rejected(bug: Bug) -> None:
    # The bugs of this one, nodes that gossip for minutes, take a third of what those of all contracts take.
    bug.reject(briefly=bug.contract.contract == "membership")
