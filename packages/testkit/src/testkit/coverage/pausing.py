"""Stop measuring where a test does the same hundreds of times: measured, every line costs twice.

- Tests marked ``untraced`` are not measured at all, their fixtures included: inputs by the thousand for code
  that others cover, or nothing but tools of the tests themselves.
- With ``measured_examples = N`` in pytest's settings each test of Hypothesis, be it a function or a state
  machine, is measured up to its Nth example (``@example`` comes first).
- All processes of pytest-xdist collect all tests, and import the same for it: only the first measures that.
  What hands tests out to them runs none, and is not measured while it does.

What is measured is then a lower bound of what ran, never more, and depends on no time. Threads that a test
starts, and its child processes, are measured as ever. Where coverage measures through ``sys.monitoring``,
this does nothing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from functools import wraps
from typing import Any

import pytest
from coverage import Coverage


def pause() -> bool:
    """Stop measuring this thread; returns whether it was measured, and so has to be again."""
    # Debuggers trace too, but start no coverage; without threading's function there were no way back.
    if Coverage.current() is None or sys.gettrace() is None or threading.gettrace() is None:
        return False
    sys.settrace(None)
    return True


def resume() -> None:
    """Measure what this thread calls from now on."""
    # As a new thread, with a tracer of its own. The old one has a stack of the functions it was stopped in,
    # and would take lines of others for lines of theirs. The new one begins with a call; up to there, lines
    # of functions under way are still told to the old one.
    sys.settrace(threading.gettrace())
    _nothing()


def _nothing() -> None:
    pass


class Pauses:
    """What a test's marker and pytest's settings leave unmeasured; a plugin of pytest."""

    def __init__(self, examples: int | None) -> None:
        """``examples`` of each test of Hypothesis are measured, all with ``None``."""
        self._examples = examples

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self, session: pytest.Session) -> Generator[None, object, object]:
        worker = getattr(session.config, "workerinput", {"workerid": "gw0"})
        return (yield from _paused(worker["workerid"] != "gw0"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        return (yield from _paused(session.config.pluginmanager.has_plugin("dsession")))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from _paused(item.get_closest_marker("untraced") is not None))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        test, examples = getattr(item, "obj", None), self._examples
        if examples is None or not getattr(test, "is_hypothesis_test", False):
            return (yield)
        began, paused = 0, False

        def begin() -> None:
            nonlocal began, paused
            began += 1
            if began > examples and not paused:
                paused = pause()

        with pytest.MonkeyPatch.context() as patch:
            _call_before_each_example(test, begin, patch)
            try:
                return (yield)
            finally:
                if paused:
                    resume()


def _paused(needless: bool) -> Generator[None, object, object]:
    paused = needless and pause()
    try:
        return (yield)
    finally:
        if paused:
            resume()


def _call_before_each_example(test: Any, begin: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    if hasattr(test, "hypothesis"):
        patch.setattr(test.hypothesis, "inner_test", _preceded(test.hypothesis.inner_test, begin))
    else:
        # A state machine's test has no such handle, but makes a machine for each example.
        from hypothesis.stateful import RuleBasedStateMachine

        patch.setattr(RuleBasedStateMachine, "__init__", _preceded(RuleBasedStateMachine.__init__, begin))


def _preceded(function: Callable[..., Any], begin: Callable[[], None]) -> Callable[..., Any]:
    # Hypothesis looks through the wrapper for the source, of which it makes the key of its database.
    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        begin()
        return function(*arguments, **named)

    return call
