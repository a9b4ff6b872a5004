"""Real processes in tests: started, watched, logged, and gone when the test is over."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from testkit.wait import wait_until

Readiness = str | re.Pattern[str] | Callable[[], object]
"""A regular expression to be found in the output, or a callable that returns something truthy.

A callable that raises `OSError` (a refused connection) is asked again.
"""

UNMEASURED: Mapping[str, None] = dict.fromkeys(("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"))
"""Changes of an environment that keep coverage.py from measuring a program, and what that starts."""

T = TypeVar("T")

_TAIL_CHARS = 8_000


class Process:
    """One command, running from construction on, in a process group of its own.

    Standard output and error go into one file, so nothing is lost when the process dies and nobody has
    to read along. ``env`` is laid over this process's environment (``None`` removes a variable), so that
    what measures coverage in subprocesses reaches them. ``pass_fds`` are inherited under their numbers.

    Linux only: descendants are found through ``/proc``, as long as they stay in the process group.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        log_path: Path,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        ready: Readiness | None = None,
        name: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.argv = tuple(os.fspath(word) for word in argv)
        self.name = name or Path(self.argv[0]).name
        self.log_path = log_path
        self._ready = ready
        with log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_merged(env or {}),
                cwd=cwd,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    def __repr__(self) -> str:
        state = "running" if self.running else f"exited {self.exit_code}"
        return f"<Process {self.name} pid={self.pid} {state}>"

    @property
    def pid(self) -> int:
        """Process id, also of the process group."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """``None`` while it runs, negative when a signal ended it."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        return self.exit_code is None

    @property
    def log(self) -> str:
        """Everything written so far to standard output and error."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Wait for the readiness given at construction; without one a started process is ready.

        Raises:
            AssertionError: the process ended instead; carries the exit code and the end of the log.
            TimeoutError: it is not ready in time.
        """
        ready = self._ready
        if ready is None:
            return
        if not callable(ready):
            self.wait_output(ready, timeout_s)
            return
        self._wait_alive(ready, f"{self.name} to be ready", timeout_s)

    def wait_output(self, pattern: str | re.Pattern[str], timeout_s: float = 10.0) -> re.Match[str]:
        """Wait for ``pattern`` anywhere in the output and return the first match (say, with the port in it).

        Raises:
            AssertionError: the process ended without it.
            TimeoutError: it does not appear in time.
        """
        compiled = re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
        return self._wait_alive(
            lambda: compiled.search(self.log), f"{self.name} to print {compiled.pattern!r}", timeout_s
        )

    def wait_exit(self, timeout_s: float = 10.0) -> int:
        """Wait for the process to end by itself and return its exit code.

        Raises:
            TimeoutError: it still runs after ``timeout_s``.
        """
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(self._story(f"still runs after {timeout_s} s")) from None

    def kill(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send ``sig`` to the process, not to its group; nothing happens when it has ended."""
        self._popen.send_signal(sig)

    def terminate(self, *, expect_exit: int = 0, timeout_s: float = 10.0) -> None:
        """Ask it to end with SIGTERM, as service supervisors do, and check how it does.

        Raises:
            AssertionError: another exit code, no exit within ``timeout_s``, or descendants left behind.
        """
        self.stop(timeout_s)
        if self.exit_code != expect_exit:
            raise AssertionError(self._story(f"exited {self.exit_code}, expected {expect_exit}"))

    def stop(self, timeout_s: float = 10.0) -> None:
        """Make sure that the process and its group are gone; may be called again.

        SIGTERM comes first, so that a clean shutdown can save its measurements. Descendants of a process
        that was killed get SIGTERM too: nobody else tells them.

        Raises:
            AssertionError: something outlived ``timeout_s`` and had to be killed. It is gone by then.
        """
        problems = []
        self.kill(signal.SIGTERM)
        # A stopped process would keep the signal pending for ever.
        self.kill(signal.SIGCONT)
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            problems.append(f"ignored SIGTERM for {timeout_s} s")
            self.kill()
            self._popen.wait()
        if self.exit_code == -signal.SIGKILL:
            _signal_group(self.pid, signal.SIGTERM)
        try:
            wait_until(lambda: not self.group(), reason="the process group to end", timeout_s=timeout_s)
        except TimeoutError:
            problems.append(f"left processes behind: {self.group()}")
            _signal_group(self.pid, signal.SIGKILL)
            wait_until(lambda: not self.group(), reason="killed processes to be gone")
        if problems:
            raise AssertionError(self._story("; ".join(problems)))

    def group(self) -> list[int]:
        """Return the process ids in its group, itself included, that have not ended."""
        return [pid for pid in _process_ids() if _is_member(pid, self.pid)]

    def _wait_alive(self, condition: Callable[[], T | None], reason: str, timeout_s: float) -> T:
        def met_or_dead() -> T | None:
            ended = not self.running
            found = condition()
            if ended and not found:
                raise AssertionError(self._story(f"exited {self.exit_code} while waiting for {reason}"))
            return found

        try:
            return wait_until(met_or_dead, reason=reason, timeout_s=timeout_s, swallow=(OSError,))
        except TimeoutError as error:
            raise TimeoutError(self._story(str(error))) from error

    def _story(self, what: str) -> str:
        return f"{self.name} (pid {self.pid}) {what}; end of its log:\n{self.log[-_TAIL_CHARS:]}"


class ProcessFactory:
    """Starts processes whose logs lie in one folder, and stops them all."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self.processes: list[Process] = []

    def __call__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        ready: Readiness | None = None,
        name: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Process:
        """Start ``argv`` and return at once; see `Process` for the arguments."""
        log_path = self._log_dir / f"process-{len(self.processes)}.log"
        process = Process(
            argv, log_path=log_path, env=env, cwd=cwd, ready=ready, name=name, pass_fds=pass_fds
        )
        self.processes.append(process)
        return process

    def stop_all(self, timeout_s: float = 10.0) -> None:
        """Stop all processes, the last started first.

        Raises:
            AssertionError: one line or more for each that did not go by itself. All are gone by then.
        """
        problems = []
        for process in reversed(self.processes):
            try:
                process.stop(timeout_s)
            except AssertionError as problem:
                problems.append(str(problem))
        if problems:
            raise AssertionError("\n".join(problems))


def _merged(changes: Mapping[str, str | None]) -> dict[str, str]:
    merged = {**os.environ, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def _signal_group(group: int, sig: signal.Signals) -> None:
    try:
        os.killpg(group, sig)
    except ProcessLookupError:
        return


def _process_ids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _is_member(pid: int, group: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    # The command name, in parentheses, may itself hold spaces and parentheses.
    state, _parent, its_group = stat.rpartition(")")[2].split()[:3]
    return int(its_group) == group and state != "Z"
