"""A program that is started by fork finds what it finds in a new interpreter, and ends as it does there."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

from testkit.forked import programs_by_fork, started_as_ever
from testkit.process import ProcessFactory

LOADED = """\
import os

BY = os.getpid()
"""

REPORT = """\
import json, os, random, resource, signal, sys
import loaded

PASSED = [int(word) for word in sys.argv[1:] if word.isdigit()]
parent, group, session = os.getppid(), os.getpgrp(), os.getsid(0)
found = {
    "module": [__name__, __package__, __spec__.name, __file__],
    "arguments": [sys.argv, sys.orig_argv],
    "path": sys.path,
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "family": [parent, group == os.getpid() or group, session == os.getpid() or session],
    "identity": [os.getresuid(), os.getresgid(), os.getgroups()],
    "limits": [resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)],
    "umask": os.umask(0),
    "ignored": sorted(each for each in signal.valid_signals() if signal.getsignal(each) == signal.SIG_IGN),
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "streams": [
        [each.encoding, each.errors, each.line_buffering] for each in (sys.stdin, sys.stdout, sys.stderr)
    ],
    "inheritable": [os.get_inheritable(each) for each in (0, 1, 2, *PASSED)],
    "passed": [os.pread(each, 100, 0).decode() for each in PASSED],
    "input": sys.stdin.read(),
}
print("an error", file=sys.stderr)
print(json.dumps([found, {"forked": loaded.BY != os.getpid(), "drawn": random.random()}]))
"""

ENDINGS = """\
import atexit, os, signal, sys, threading, time

def wait():
    # Whoever runs the tests in the background, or with nohup, has had these ignored.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    print("ready", flush=True)
    # Not signal.pause(), which waits for ever when the signal came just before it.
    threading.Event().wait()

def fail():
    raise ValueError("wrong")

def leave():
    atexit.register(print, "last words")
    sys.exit(3)

def complain():
    sys.exit("ValueError: wrong")

def leave_work():
    threading.Timer(0.01, print, ["last work"]).start()

def leave_unwritten():
    atexit.register(print, "last", end=" ")
    atexit.register(sys.stdout.write, "unwritten ")

def lose():
    reading, writing = os.pipe()
    os.close(reading)
    sys.stdout = open(writing, "w")
    print("lost")

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def end_at_once():
    os._exit(4)

if sys.argv[1:] != ["return"]:
    globals()[sys.argv[1]]()
"""

STARTER = """\
import json, os, subprocess, sys

if sys.argv[1] == "unprivileged":
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
ended = subprocess.run([sys.executable, "-m", "report"], capture_output=True, check=True)
found, own = json.loads(ended.stdout)
alike = found["family"][0] == os.getpid() and found["path"] == sys.path
print(json.dumps([alike, found["identity"][0], own["forked"]]))
"""

Found = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def programs() -> Iterator[Path]:
    """The folder of the programs, which start by fork in all tests here, unless one says otherwise."""
    sources = {"loaded": LOADED, "report": REPORT, "endings": ENDINGS, "starter": STARTER}
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as environment:
        # For a program with another identity, too.
        Path(name).chmod(0o755)
        for module, source in sources.items():
            Path(name, f"{module}.py").write_text(source)
        environment.setenv("PYTHONPATH", name)
        # The standard library may be closed to those who lose their privileges.
        with programs_by_fork(["report", "endings", "starter"], ["loaded", "random"]):
            yield Path(name)


WAYS = pytest.mark.parametrize("way", [nullcontext, started_as_ever])


def children() -> set[int]:
    """Of this process, those that nobody has waited for among them."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def report(*command: str, **options: Any) -> tuple[Found, Found]:
    """What the program found, and what it knows of how it was started."""
    words = [sys.executable, *(command or ("-m", "report"))]
    # Named, because libraries of C put variables into the environment that os.environ does not know.
    given = {"env": os.environ, **options}
    ended = subprocess.run(words, capture_output=True, text=True, check=True, **given)
    assert ended.stderr.splitlines() == ["an error"]
    found, own = json.loads(ended.stdout)
    return found, own


def in_both_ways(*command: str, **options: Any) -> Found:
    """Assert that the program finds the same in both ways; return that."""
    with started_as_ever():
        expected, own = report(*command, **options)
    assert not own["forked"]
    found, own = report(*command, **options)
    assert own["forked"]
    assert found == expected
    return found


# ---- what a program finds ------------------------------------------------------------------------


def test_program_finds_its_name_arguments_and_parent() -> None:
    found = in_both_ways("-m", "report", "one", "-P", "--two=ü")
    assert found["module"][0] == "__main__"
    assert found["arguments"][1][1:] == ["-m", "report", "one", "-P", "--two=ü"]
    assert found["family"] == [os.getpid(), os.getpgrp(), os.getsid(0)]


@pytest.mark.parametrize("options", [[], ["-P"]])
def test_working_directory_is_on_the_path_unless_the_option_says_no(
    options: list[str], tmp_path: Path
) -> None:
    found = in_both_ways(*options, "-m", "report", cwd=tmp_path)
    assert found["directory"] == str(tmp_path)
    assert (str(tmp_path) in found["path"]) == (not options)


def test_program_finds_the_environment_it_was_given() -> None:
    given = {
        name: value for name, value in os.environ.items() if name.startswith(("PYTHON", "COVERAGE_", "L"))
    }
    assert in_both_ways(env={**given, "A": "b\udcff"})["environment"] == {**given, "A": "b\udcff"}


@pytest.mark.parametrize("options", [{"start_new_session": True}, {"process_group": 0}])
def test_program_leads_a_session_or_group_of_its_own(options: dict[str, Any]) -> None:
    family = in_both_ways(**options)["family"]
    assert family[1] is True
    assert (family[2] is True) == ("start_new_session" in options)


def test_program_reads_its_input_and_the_descriptors_it_is_passed(tmp_path: Path) -> None:
    with ExitStack() as files:
        passed = []
        for name in ("one", "two"):
            (tmp_path / name).write_text(name)
            passed.append(files.enter_context((tmp_path / name).open()).fileno())
        found = in_both_ways("-m", "report", *map(str, passed), pass_fds=passed, input="some input")
    assert found["passed"] == ["one", "two"]
    assert found["input"] == "some input"


@pytest.fixture
def changed_state() -> Iterator[None]:
    """Limits, mask, signals and umask of this process as no other has them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    umask = os.umask(0o027)
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 7, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGHUP, handler)
    os.umask(umask)


def test_program_inherits_what_this_process_has_become(changed_state: None) -> None:
    found = in_both_ways()
    assert (found["umask"], found["blocked"]) == (0o027, [signal.SIGUSR2])
    assert signal.SIGHUP in found["ignored"]


def test_programs_draw_different_numbers() -> None:
    assert len({report()[1]["drawn"] for _ in range(3)}) == 3


# ---- how a program ends --------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize(
    ("ending", "code", "output"),
    [
        ("return", 0, ""),
        ("fail", 1, ""),
        ("leave", 3, "last words\n"),
        ("complain", 1, ""),
        ("leave_work", 0, "last work\n"),
        ("leave_unwritten", 0, "unwritten last "),
        ("lose", 120, ""),
        ("kill", -9, ""),
        ("end_at_once", 4, ""),
    ],
)
def test_exit_code_and_last_words(way: Callable[[], Any], ending: str, code: int, output: str) -> None:
    with way():
        ended = subprocess.run(
            [sys.executable, "-m", "endings", ending], capture_output=True, text=True, check=False
        )
    assert (ended.returncode, ended.stdout) == (code, output)
    assert ended.stderr.endswith("ValueError: wrong\n") == (ending in ("fail", "complain"))


@WAYS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_a_program(
    way: Callable[[], Any], number: signal.Signals, process_factory: ProcessFactory
) -> None:
    with way():
        process = process_factory([sys.executable, "-m", "endings", "wait"], ready="ready")
    process.wait_ready()
    assert process.group() == [process.pid]
    process.kill(number)
    assert process.wait_exit() == -number
    assert process.group() == []


@WAYS
def test_directory_that_is_missing_is_an_error_at_the_start(way: Callable[[], Any], tmp_path: Path) -> None:
    before = children()
    with way(), pytest.raises(FileNotFoundError) as caught:
        report(cwd=tmp_path / "missing")
    assert str(caught.value.filename) == str(tmp_path / "missing")
    assert children() == before


# ---- who starts it -------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", ["own", "unprivileged"])
def test_programs_start_each_other_by_fork_and_as_who_they_are(identity: str) -> None:
    if identity != "own" and os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    command = [sys.executable, "-m", "starter", identity]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    uids = [65534] * 3 if identity == "unprivileged" else list(os.getresuid())
    assert json.loads(ended.stdout) == [True, uids, True]


async def test_asyncio_starts_by_fork_too() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "report"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(b"some input")
    found, own = json.loads(output)
    assert (found["input"], own["forked"], process.returncode) == ("some input", True, 0)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["-c", "import report"], {}),
        (["-W", "ignore", "-m", "report"], {}),
        (["-m", "unknown"], {}),
        (["-m", "report"], {"variables": {"PYTHONHASHSEED": "1"}}),
        (["-m", "report"], {"close_fds": False}),
        (["-m", "report"], {"umask": 0o077}),
    ],
)
def test_everything_else_is_started_as_ever(
    command: list[str], options: dict[str, Any], programs: Path
) -> None:
    (programs / "unknown.py").write_text("import runpy; runpy.run_module('report')")
    variables = {**os.environ, **options.get("variables", {})}
    others = {name: value for name, value in options.items() if name != "variables"}
    ended = subprocess.run(
        [sys.executable, *command], stdout=subprocess.PIPE, env=variables, check=True, **others
    )
    assert not json.loads(ended.stdout)[1]["forked"]


def test_several_sets_of_programs_do_not_mind_each_other(programs: Path) -> None:
    (programs / "further.py").write_text("import loaded, os; print(loaded.BY != os.getpid())")
    command = [sys.executable, "-m", "further"]
    with programs_by_fork(["further"], ["loaded"]):
        assert subprocess.check_output(command) == b"True\n"
        assert report()[1]["forked"]
    assert subprocess.check_output(command) == b"False\n"
    assert report()[1]["forked"]


def test_programs_with_another_environment_have_a_nursery_with_that_one(programs: Path) -> None:
    other = {**os.environ, "PYTHONHASHSEED": "1"}
    with programs_by_fork(["report"], ["loaded"], other):
        _, own = report(env=other)
        assert own["forked"]
    _, own = report(env=other)
    assert not own["forked"]


def test_nothing_is_left_when_it_is_over() -> None:
    before = children()
    with programs_by_fork(["further"]):
        assert len(children()) == len(before) + 1
    assert children() == before


def test_a_nursery_that_was_killed_is_an_error_that_says_so() -> None:
    before = children()
    with programs_by_fork(["further"]):
        (nursery,) = children() - before
        os.kill(nursery, signal.SIGKILL)
        with pytest.raises(ChildProcessError, match="has ended"):
            subprocess.run([sys.executable, "-m", "further"], check=False)
