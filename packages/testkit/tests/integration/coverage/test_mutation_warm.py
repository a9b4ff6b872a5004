"""Trials in children of a pytest that is loaded already."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.coverage.mutation_trial import Baseline, Copy, Verdict, copies_of
from testkit.coverage.mutation_warm import WarmPytest

PART = "def larger(a, b):\n    return a > b\n"
WRONG = "def larger(a, b):\n    return a < b\n"
TESTS = "from part import larger\n\ndef test_it(): assert larger(2, 1)\n"
TEST = "tests/unit/test_part.py"
OPTIONS = ("-p", "no:cacheprovider")


@pytest.fixture(autouse=True)
def quick_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests of the small repository the plugins and options of this one."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for name, text in {"src/part.py": PART, TEST: TESTS, "pyproject.toml": "[tool.pytest]\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


@pytest.fixture
def copy(repository: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Copy]:
    """Of the repository as ``(file, text)`` of the test's parameter have changed it."""
    for name, text in getattr(request, "param", {}).items():
        (repository / name).write_text(text)
    with copies_of(repository, tmp_path / "copies", 1, OPTIONS) as (made,):
        yield made


def server_in(repository: Path) -> WarmPytest:
    # Measured like any other child of this process, unlike those of a campaign.
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    return WarmPytest(repository, OPTIONS, environment)


def run(server: WarmPytest, ended: list[int], timeout_s: float = 60.0) -> int | None:
    status, cpu_s = server.run([TEST], {"TRIAL": "1"}, timeout_s, 60, 2 << 30, ended.append)
    assert cpu_s > 0
    return status


def test_each_trial_sees_the_source_as_it_is_then(repository: Path) -> None:
    server, sessions = server_in(repository), list[int]()
    try:
        assert server.can_try("src/part.py")
        assert run(server, sessions) == 0
        (repository / "src" / "part.py").write_text(WRONG)
        # Compiled modules are recognized by the second of the source.
        os.utime(repository / "src" / "part.py", (1, 1))
        assert run(server, sessions) == 1
    finally:
        server.close()
    assert len(set(sessions)) == 2


def test_a_trial_has_a_session_and_limits_of_its_own(repository: Path) -> None:
    (repository / TEST).write_text(
        "import os, resource\n"
        "def test_it():\n"
        "    assert os.getsid(0) == os.getpid()\n"
        "    assert os.environ['TRIAL'] == '1'\n"
        "    assert resource.getrlimit(resource.RLIMIT_CPU) == (60, 60)\n"
        "    assert resource.getrlimit(resource.RLIMIT_DATA) == (2 << 30, 2 << 30)\n"
    )
    server = server_in(repository)
    try:
        assert server.can_try("src/part.py")
        assert run(server, []) == 0
    finally:
        server.close()


def test_a_trial_that_takes_too_long_is_handed_over_to_be_ended(repository: Path) -> None:
    (repository / TEST).write_text("import signal\ndef test_it(): signal.pause()\n")
    server = server_in(repository)
    try:
        assert server.can_try("src/part.py")
        status, _ = server.run([TEST], {}, 0.01, 60, 2 << 30, lambda session: os.kill(session, 9))
        assert status is None
    finally:
        server.close()


def test_a_pytest_that_cannot_be_loaded_is_told(repository: Path) -> None:
    server = WarmPytest(repository, ["--no-such-option"], os.environ)
    try:
        assert not server.can_try("src/part.py")
        assert not server.can_try("src/part.py")
    finally:
        server.close()


def baseline_of(copy: Copy) -> Baseline:
    return copy.measure("src/part.py", [TEST])


def test_tests_that_pass_there_are_tried_there(copy: Copy) -> None:
    baseline = baseline_of(copy)
    assert baseline.warm_cpu_s is not None
    assert copy.judge("src/part.py", PART, baseline) is Verdict.SURVIVED
    assert copy.judge("src/part.py", WRONG, baseline) is Verdict.KILLED


@pytest.mark.parametrize("copy", [{"conftest.py": "import part\n"}], indirect=True)
def test_a_defect_in_what_conftest_has_loaded_is_noticed_all_the_same(copy: Copy) -> None:
    baseline = baseline_of(copy)
    assert baseline.warm_cpu_s is None
    assert copy.judge("src/part.py", WRONG, baseline) is Verdict.KILLED


COLD = "import sys\nfrom part import larger\n\ndef test_it(): assert sys.argv[0].endswith('__main__.py')\n"


@pytest.mark.parametrize("copy", [{TEST: COLD}], indirect=True)
def test_tests_that_do_not_pass_there_are_tried_each_in_a_pytest_of_its_own(copy: Copy) -> None:
    baseline = baseline_of(copy)
    assert baseline.warm_cpu_s is None
    assert copy.judge("src/part.py", PART, baseline) is Verdict.SURVIVED
    assert copy.judge("src/part.py", "this is no python", baseline) is Verdict.KILLED


def test_a_defect_that_ends_the_loaded_pytest_is_judged_without_it_and_the_next_by_another(
    copy: Copy,
) -> None:
    baseline = baseline_of(copy)
    # A trial of its own is led by the campaign's process, which is this one.
    deadly = f"import os\nif os.getppid() != {os.getpid()}: os.kill(os.getppid(), 9)\n"
    assert copy.judge("src/part.py", deadly + PART, baseline) is Verdict.SURVIVED
    assert copy.judge("src/part.py", WRONG, baseline) is Verdict.KILLED


def test_running_out_of_processor_time_is_running_out_of_time(copy: Copy) -> None:
    exceeding = "import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)\n"
    assert copy.judge("src/part.py", exceeding + PART, baseline_of(copy)) is Verdict.TIMEOUT


def test_what_a_trial_forks_is_ended_with_it(copy: Copy, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    forking = (
        "import os, signal\n"
        "if (child := os.fork()) == 0:\n"
        "    signal.pause()\n"
        f"open({str(pid_file)!r}, 'w').write(str(child))\n"
    )
    assert copy.judge("src/part.py", forking + PART, baseline_of(copy)) is Verdict.SURVIVED
    status = Path(f"/proc/{pid_file.read_text()}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()
