from __future__ import annotations

import base64
import json
import os

import coverage
import pytest

from testkit.coverage.per_test import in_context, pytest_runtest_protocol

INHERITED = "COVERAGE_PROCESS_CONFIG"


class Recorder:
    """In place of what measures this very test."""

    def __init__(self) -> None:
        self.contexts: list[str] = []

    def switch_context(self, name: str) -> None:
        self.contexts.append(name)


def inherited_context() -> str:
    context: str = json.loads(base64.b64decode(os.environ[INHERITED]))["context"]
    return context


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(coverage.Coverage, "current", lambda: recorder)
    settings = base64.b64encode(json.dumps({"context": "unit", "branch": True}).encode()).decode()
    monkeypatch.setenv(INHERITED, settings)
    return recorder


def test_this_process_and_its_children_are_measured_in_the_context(recorder: Recorder) -> None:
    with in_context("test_a.py::test_it"):
        assert recorder.contexts == ["test_a.py::test_it"]
        assert inherited_context() == "test_a.py::test_it"
    assert recorder.contexts == ["test_a.py::test_it", ""]
    assert inherited_context() == "unit"


def test_each_test_is_a_context(recorder: Recorder, request: pytest.FixtureRequest) -> None:
    protocol = pytest_runtest_protocol(request.node)
    next(protocol)
    assert recorder.contexts == [request.node.nodeid]
    with pytest.raises(StopIteration) as info:
        protocol.send("outcome")
    assert info.value.value == "outcome"


def test_without_measurement_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage.Coverage, "current", lambda: None)
    monkeypatch.delenv(INHERITED, raising=False)
    with in_context("test"):
        assert INHERITED not in os.environ
