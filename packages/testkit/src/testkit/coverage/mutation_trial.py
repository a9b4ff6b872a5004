"""Running tests against a defect, in a copy of the repository, within limits of time and memory.

A copy holds what git knows of or would take, so neither the checkout nor its caches are touched. Its source
folders come first on ``PYTHONPATH``, in child processes too; a measured run of the tests without a defect
shows that they execute the copy, how long they take, and which lines they reach. Where the tests pass in a
child of a pytest that is loaded already, too, trials take that way; else each loads its own.
"""

from __future__ import annotations

import math
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import coverage

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.mutation_warm import WarmPytest

_MARK = "TESTKIT_MUTATION_TRIAL"
_MEMORY_BYTES = 2 << 30
"""Of one process's own data; a defect may turn a loop into one that never ends collecting."""
GRACE_S = 10.0
_SLOWER = 4
"""How many times the tests may take what they took without a defect; parallel trials slow one another."""
_GRACE_CPU_S = 4
"""Of processor time, which other trials do not take away."""


class Verdict(StrEnum):
    KILLED = "killed"
    TIMEOUT = "timeout"
    """The tests did not end in time, which counts as noticed."""
    SURVIVED = "survived"


@dataclass(frozen=True, slots=True)
class Baseline:
    """The tests of one module without a defect."""

    tests: tuple[str, ...]
    seconds: float
    lines: frozenset[int]
    """Lines of the module that they executed."""
    warm_cpu_s: float | None
    """Processor time that they take in a pytest that was loaded before; None where they cannot run there."""


class Copy:
    """One copy of the repository, in which one trial runs at a time."""

    def __init__(
        self, root: Path, folder: Path, pytest_options: Sequence[str] = (), grace_s: float = GRACE_S
    ) -> None:
        """Copy ``root`` to the empty ``folder``.

        A trial may take ``grace_s`` longer than the tests without a defect do, slowed down as trials are.

        Raises:
            CoverageInputError: git cannot tell which files there are.
        """
        self._folder = folder.resolve()
        self._pytest_options = tuple(pytest_options)
        self._grace_s = grace_s
        # Compiled modules are recognized by their source's whole second and size: no two trials share a
        # second.
        self._edited_at_s = int(time.time())
        for name in _tracked(root):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target, follow_symlinks=False)
        self._warm = WarmPytest(self._folder, self._pytest_options, self._environment(""))

    def measure(self, file: str, tests: Sequence[str]) -> Baseline:
        """Run ``tests`` without a defect.

        Raises:
            CoverageInputError: they fail, or do not execute this copy of ``file``.
        """
        data_file = self._folder / f".mutation.{secrets.token_hex(4)}"
        began_s = time.monotonic()
        status, output = self._run(
            [*("coverage", "run", f"--data-file={data_file}", "-m"), *self._pytest(tests)], timeout_s=600.0
        )
        seconds = time.monotonic() - began_s
        if status != 0:
            tail = "\n".join(output.splitlines()[-20:])
            raise CoverageInputError([f"{file}: its tests fail without a defect: {', '.join(tests)}\n{tail}"])
        measured = coverage.Coverage(
            data_file=str(data_file), config_file=str(self._folder / "pyproject.toml")
        )
        measured.combine([str(part) for part in self._folder.glob(f"{data_file.name}*")])
        lines = frozenset(measured.get_data().lines(str(self._folder / file)) or ())
        measured.get_data().close(force=True)
        for part in self._folder.glob(f"{data_file.name}*"):
            part.unlink()
        baseline = Baseline(tuple(tests), seconds, lines, warm_cpu_s=None)
        if self._warm.can_try(file):
            status, cpu_s = self._run_warm(baseline)
            if status == 0:
                return replace(baseline, warm_cpu_s=cpu_s)
        return baseline

    def judge(self, file: str, text: str, baseline: Baseline) -> Verdict:
        """Run the tests of ``baseline`` with ``text`` in the place of ``file``; put the file back."""
        path = self._folder / file
        original = path.read_bytes()
        self._write(path, text.encode())
        try:
            status = self._status_of(file, baseline)
        finally:
            self._write(path, original)
        if status in (None, -signal.SIGXCPU):
            return Verdict.TIMEOUT
        return Verdict.SURVIVED if status == 0 else Verdict.KILLED

    def _status_of(self, file: str, baseline: Baseline) -> int | None:
        if baseline.warm_cpu_s is not None and self._warm.can_try(file):
            with suppress(ConnectionError):
                return self._run_warm(baseline)[0]
        return self._run([*self._pytest(baseline.tests), "--exitfirst"], self._timeout_s(baseline))[0]

    def close(self) -> None:
        """End the pytest that is kept loaded."""
        self._warm.close()

    def _run_warm(self, baseline: Baseline) -> tuple[int | None, float]:
        trial = secrets.token_hex(8)
        usual_cpu_s = baseline.seconds if baseline.warm_cpu_s is None else baseline.warm_cpu_s
        return self._warm.run(
            baseline.tests,
            {_MARK: trial},
            timeout_s=self._timeout_s(baseline),
            cpu_s=math.ceil(usual_cpu_s * _SLOWER) + _GRACE_CPU_S,
            memory_bytes=_MEMORY_BYTES,
            # Whatever the tests started is in their session or carries the trial's mark.
            end=lambda session: _kill_all(f"{_MARK}={trial}".encode(), session),
        )

    def _timeout_s(self, baseline: Baseline) -> float:
        return baseline.seconds * _SLOWER + self._grace_s

    def _pytest(self, tests: Sequence[str]) -> list[str]:
        return ["pytest", "-q", *self._pytest_options, *tests]

    def _write(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        self._edited_at_s += 1
        os.utime(path, (self._edited_at_s, self._edited_at_s))

    def _run(self, arguments: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
        """Return exit status and output of ``python -m ...``, None in place of the status when time is up."""
        trial = secrets.token_hex(8)
        # A file, not a pipe: what the tests left running would hold a pipe open.
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self._folder,
                env=self._environment(trial),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
            try:
                status: int | None = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                # Whatever the tests started is in their session or carries the trial's mark.
                _kill_all(f"{_MARK}={trial}".encode(), process.pid)
                process.wait()
            output.seek(0)
            return status, output.read().decode(errors="replace")

    def _environment(self, trial: str) -> Mapping[str, str]:
        # What measures this process must not measure the trial: one interpreter holds one tracer.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        sources = sorted({str(path) for path in self._folder.glob("**/src") if path.is_dir()})
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join([str(self._folder), *sources]),
            "PYTEST_ADDOPTS": "",
            _MARK: trial,
        }


@contextmanager
def copies_of(
    root: Path, folder: Path, number: int, pytest_options: Sequence[str], grace_s: float = GRACE_S
) -> Iterator[list[Copy]]:
    """Make ``number`` copies of ``root`` in ``folder``, removed at the end."""
    folders = [folder / f"copy{position}" for position in range(number)]
    for each in folders:
        each.mkdir(parents=True)
    copies = [Copy(root, each, pytest_options, grace_s) for each in folders]
    try:
        yield copies
    finally:
        for copy in copies:
            copy.close()
        for each in folders:
            shutil.rmtree(each)


def _tracked(root: Path) -> Iterator[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        raise CoverageInputError([f"{root}: {listed.stderr.decode(errors='replace').strip()}"])
    for name in os.fsdecode(listed.stdout).split("\0"):
        if name and (root / name).is_file():
            yield name


def _kill_all(mark: bytes, session: int) -> None:
    """Kill every process of ``session`` or with ``mark`` in its environment, until none is left."""
    while pids := [
        pid for pid in _processes() if mark in _environment_of(pid) or _session_of(pid) == session
    ]:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _session_of(pid: int) -> int | None:
    """Return the session of a process, None when it has ended."""
    try:
        state, _, _, session, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else int(session)
