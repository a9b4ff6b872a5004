"""What is left unmeasured, and that what comes after it is measured again."""

from __future__ import annotations

import sys
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest
from coverage import Coverage

from testkit.coverage.pausing import pause, resume

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.usefixtures("testkits_plugin_alone")


PART = """
import sys
def before(): return "before"
def early(): return "early"
def late(): return "late"
def hidden(): return "hidden"
def after(): return "after"
"""
STORIES = """
import part, pytest
from hypothesis import example, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

calls = []

@settings(max_examples=8, database=None)
@given(st.integers())
@example(1)
@example(2)
def test_function(number):
    calls.append(number)
    part.early() if len(calls) <= 3 else part.late()

def test_all_examples_were_tried():
    assert calls[:2] == [1, 2] and len(calls) > 3
    part.after()

class Machine(RuleBasedStateMachine):
    made = 0

    def __init__(self):
        super().__init__()
        Machine.made += 1

    @rule()
    def step(self):
        part.early() if Machine.made <= 3 else part.late()

Machine.TestCase.settings = settings(max_examples=8, stateful_step_count=2, database=None)
TestMachine = Machine.TestCase

def test_all_machines_were_made():
    assert Machine.made > 3
    part.after()

@pytest.fixture
def prepared():
    return part.hidden()

@pytest.mark.untraced
def test_marked(prepared):
    assert part.hidden() == "hidden"

def test_behind_it():
    part.after()
"""


def measured(pytester: pytest.Pytester, *tests: str, ini: str = "", conftest: str = "") -> AbstractSet[str]:
    """Run those stories in this process; returns which functions of PART were measured, and its import."""
    pytester.makeconftest(conftest)
    part = pytester.makepyfile(part=PART)
    pytester.makepyfile(test_stories=STORIES)
    pytester.makeini(f"[pytest]\n{ini}\n")
    pytester.syspathinsert()
    coverage = Coverage(data_file=None, branch=True, include=[str(part)], config_file=False)
    coverage.set_option("run:core", "ctrace")
    with coverage.collect():
        names = [f"test_stories.py::{test}" for test in tests]
        ran = pytester.inline_run("-p", "no:cacheprovider", *names)
    ran.assertoutcome(passed=len(tests))
    # A definition and its body share a line, but only a call gives the way back out of it.
    return functions_in(part, coverage)


def functions_in(part: Path, coverage: Coverage) -> AbstractSet[str]:
    lines = part.read_text().splitlines()
    left = {-end for _, end in coverage.get_data().arcs(str(part)) or () if end < 0}
    return {lines[number - 1].partition("def ")[2].partition("(")[0] or lines[number - 1] for number in left}


@pytest.mark.parametrize(
    ("test", "after"),
    [
        ("test_function", "test_all_examples_were_tried"),
        ("TestMachine::runTest", "test_all_machines_were_made"),
    ],
)
def test_only_the_first_examples_are_measured(pytester: pytest.Pytester, test: str, after: str) -> None:
    assert measured(pytester, test, after, ini="measured_examples = 3") == {"import sys", "early", "after"}


def test_without_the_setting_all_are(pytester: pytest.Pytester) -> None:
    assert measured(pytester, "test_function") == {"import sys", "early", "late"}


def test_what_is_marked_is_not_measured_nor_its_fixtures(pytester: pytest.Pytester) -> None:
    assert measured(pytester, "test_marked", "test_behind_it") == {"import sys", "after"}


def test_only_the_first_process_of_several_measures_what_all_import(pytester: pytest.Pytester) -> None:
    for worker, found in (("gw1", {"after"}), ("gw0", {"import sys", "after"})):
        conftest = f"def pytest_configure(config): config.workerinput = {{'workerid': '{worker}'}}"
        assert measured(pytester, "test_behind_it", conftest=conftest) == found


def test_what_hands_tests_out_is_not_measured(pytester: pytest.Pytester) -> None:
    conftest = "def pytest_configure(config): config.pluginmanager.register(object(), 'dsession')"
    assert measured(pytester, "test_behind_it", conftest=conftest) == {"import sys"}


def test_lines_of_the_functions_that_pause_are_not_taken_for_others(pytester: pytest.Pytester) -> None:
    part = pytester.makepyfile(part=PART)
    pytester.syspathinsert()
    coverage = Coverage(data_file=None, branch=True, include=[str(part)], config_file=False)
    coverage.set_option("run:core", "ctrace")
    with coverage.collect():
        import part as loaded  # type: ignore[import-not-found]

        loaded.before()
        stop_measuring_deep_down(3)
        loaded.hidden()
        resume()
        loaded.after()
    assert functions_in(part, coverage) == {"import sys", "before", "after"}


def stop_measuring_deep_down(depth: int) -> None:
    if depth:
        stop_measuring_deep_down(depth - 1)
    else:
        assert pause()
        assert not pause()


def test_what_is_not_coverage_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coverage, "current", lambda: None)
    tracing = sys.gettrace()
    assert not pause()
    assert sys.gettrace() is tracing
