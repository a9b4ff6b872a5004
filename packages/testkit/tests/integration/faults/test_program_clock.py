"""Real programs whose time of day is set ahead and back while they run."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packages.testkit.tests.integration.cluster.stories import one_clock
from testkit.cluster.processes import ProcessCluster
from testkit.cluster.topology import Node, Program, Topology
from testkit.faults import program_clock as module
from testkit.faults.program_clock import ProgramClock, find_library, sweep
from testkit.faults.vocabulary import ClockJump, UnavailableError
from testkit.process import Process, ProcessFactory
from testkit.wait import wait_until

TELLS_WHEN_ASKED = """
import os, signal, time
# Not signal.pause(), which waits for ever when the signal came just before it; and not for ever, for who is
# measured hears SIGTERM only between two calls.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print("ready", flush=True)
while True:
    if signal.sigtimedwait({signal.SIGUSR1}, 0.02):
        print("told", time.time(), time.monotonic(), os.stat("/proc/self/exe").st_mtime, flush=True)
"""
HOUR_S = 3600.0
pytest_plugins = ["pytester"]


@contextmanager
def asking(
    process_factory: ProcessFactory, environment: dict[str, str]
) -> Iterator[tuple[Process, Callable[[], list[float]]]]:
    """A process, and how to ask it for the time of day, the monotonic time, and when a file was changed."""
    process = process_factory([sys.executable, "-c", TELLS_WHEN_ASKED], env=environment, ready="ready")
    process.wait_ready()
    asked = 0

    def ask() -> list[float]:
        nonlocal asked
        asked += 1
        os.kill(process.pid, 10)
        # Whole lines: an interpreter that does not buffer writes them word by word.
        told = wait_until(
            lambda: found if len(found := re.findall(r"told (.*)\n", process.log)) == asked else None,
            reason="the time to be told",
        )
        return [float(word) for word in told[-1].split()]

    yield process, ask


def test_program_takes_the_time_that_is_set(
    process_factory: ProcessFactory, program_clock: ProgramClock
) -> None:
    with asking(process_factory, program_clock.environment) as (_, ask):
        for ahead_s in (0, 5 * HOUR_S, -HOUR_S, 0):
            program_clock.set_ahead(ahead_s)
            assert round((ask()[0] - time.time() - ahead_s) / HOUR_S, 1) == 0


def test_intervals_and_files_keep_their_times(
    process_factory: ProcessFactory, program_clock: ProgramClock
) -> None:
    with asking(process_factory, program_clock.environment) as (_, ask):
        _, before_s, changed_s = ask()
        program_clock.set_ahead(5 * HOUR_S)
        _, after_s, still_changed_s = ask()
    assert 0 <= after_s - before_s < HOUR_S
    assert still_changed_s == changed_s


def test_it_is_known_who_has_loaded_the_library(
    process_factory: ProcessFactory, program_clock: ProgramClock
) -> None:
    with asking(process_factory, program_clock.environment) as (process, _):
        assert program_clock.moves([os.getpid(), process.pid])
        assert not program_clock.moves([os.getpid()])
    process.terminate(expect_exit=-15)
    assert not program_clock.moves([process.pid])


@pytest.mark.usefixtures("program_clock")
def test_clock_outlasts_what_was_started_with_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        SOURCE = "import signal, sys, time\\n"
        SOURCE += "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\\n"
        SOURCE += "print('ready', flush=True)\\n"
        SOURCE += "signal.sigwait({signal.SIGTERM})\\n"
        SOURCE += "sys.exit(time.time() < 0)\\n"

        def test_it(process_factory, program_clock):
            # The clock is asked for last, so pytest takes it down before the process.
            process = process_factory(
                [sys.executable, "-c", SOURCE],
                env=program_clock.environment,
                ready="ready",
            )
            process.wait_ready()
            sys.modules["kept"] = process

        def test_it_has_ended_in_order():
            assert sys.modules["kept"].exit_code == 0
    """)
    # In this order, and without plugins that warn of what an empty configuration says.
    pytester.runpytest("-p", "no:randomly", "-p", "no:asyncio").assert_outcomes(passed=2)


def test_what_is_preloaded_already_stays(
    monkeypatch: pytest.MonkeyPatch, program_clock: ProgramClock, tmp_path: Path
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/lib/other.so")
    clock = ProgramClock(program_clock.folder / "libfaketime.so.1", tmp_path, seen_at="/elsewhere")
    assert clock.environment["LD_PRELOAD"] == "/elsewhere/libfaketime.so.1 /lib/other.so"
    assert clock.environment["FAKETIME_TIMESTAMP_FILE"].startswith("/elsewhere/")


def test_what_the_dead_shared_is_removed_and_what_the_living_share_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, process_factory: ProcessFactory
) -> None:
    monkeypatch.setattr(module, "_SHARED", tmp_path)
    gone = process_factory(["true"])
    gone.wait_exit()
    of_the_dead = [tmp_path / f"{kind}_{gone.pid}" for kind in ("faketime_shm", "sem.faketime_sem")]
    others = [tmp_path / f"faketime_shm_{os.getpid()}", tmp_path / "faketime_shm_of_mine", tmp_path / "else"]
    for path in (*of_the_dead, *others):
        path.touch()
    sweep()
    assert sorted(tmp_path.glob("*")) == sorted([*others, tmp_path / "process-logs"])


def test_library_is_where_debian_has_it_or_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_DEBIAN", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert find_library() is None
    debian = tmp_path / "x86_64-linux-gnu" / "faketime" / "libfaketime.so.1"
    debian.parent.mkdir(parents=True)
    debian.touch()
    assert find_library() == debian


async def test_program_that_does_not_load_it_is_refused_the_fault(
    program_clock: ProgramClock, tmp_path: Path
) -> None:
    told = one_clock().node("a").program
    assert told is not None
    deaf = Program(("env", "--unset=LD_PRELOAD", *told.command), movable_clock=True)
    topology = Topology((Node("a", program=deaf),))
    async with ProcessCluster(topology, tmp_path) as cluster:
        with pytest.raises(UnavailableError, match="has not loaded libfaketime"):
            await cluster.inject("a", ClockJump(1))


async def test_without_the_library_the_fault_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("testkit.cluster.addressed.find_library", lambda: None)
    async with ProcessCluster(one_clock(), tmp_path) as cluster:
        assert cluster.unavailable("a", ClockJump(1)) == module.INSTALL
