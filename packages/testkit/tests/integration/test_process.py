from __future__ import annotations

import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from testkit.ports import reserved_port
from testkit.process import Process, ProcessFactory
from testkit.wait import wait_until

READY = "print('ready', flush=True)"
IGNORE_SIGTERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
EXIT_3_ON_SIGTERM = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))"
SLEEP = "time.sleep(60)"  # sleeps: until the test ends it
NAP = ["sleep", "60"]  # sleeps: until the test ends it
# sleeps: until the test ends it
CHILD_THAT_SLEEPS = "child = subprocess.Popen(['sleep', '60']); print('child', child.pid, flush=True)"


def python(*lines: str) -> list[str]:
    return [sys.executable, "-c", "\n".join(lines)]


def alive(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return False


def test_log_holds_output_and_errors(process_factory: ProcessFactory) -> None:
    process = process_factory(python("import sys", "print('out')", "print('err', file=sys.stderr)"))
    assert process.wait_exit() == 0
    assert set(process.log.split()) == {"out", "err"}


def test_waits_for_a_pattern_in_the_output(process_factory: ProcessFactory) -> None:
    process = process_factory(python("import time", "print('port 4711', flush=True)", SLEEP), ready="port")
    process.wait_ready()
    assert process.wait_output(r"^port (\d+)$")[1] == "4711"
    assert process.wait_output(re.compile("PORT", re.IGNORECASE))[0] == "port"
    assert process.running


def test_waits_for_a_callable_and_swallows_refused_connections(process_factory: ProcessFactory) -> None:
    with reserved_port() as port:
        serve = ["import socket, time", f"s = socket.create_server(('127.0.0.1', {port}))", SLEEP]

        def connects() -> bool:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return True

        process_factory(python(*serve), ready=connects).wait_ready()
        assert connects()


def test_without_readiness_a_started_process_is_ready(process_factory: ProcessFactory) -> None:
    process_factory(NAP).wait_ready(timeout_s=0)


def test_exit_before_ready_is_told_at_once_with_the_log(process_factory: ProcessFactory) -> None:
    process = process_factory(
        python("print('no such file')", "raise SystemExit(2)"), ready="ready", name="server"
    )
    with pytest.raises(AssertionError, match=r"(?s)^server .* exited 2 while waiting .*no such file"):
        process.wait_ready(timeout_s=60)


def test_output_written_just_before_the_exit_still_counts(process_factory: ProcessFactory) -> None:
    process = process_factory(python(READY))
    process.wait_exit()
    assert process.wait_output("ready")[0] == "ready"


def test_not_ready_in_time_shows_the_log(process_factory: ProcessFactory) -> None:
    process = process_factory(python("import time", "print('thinking', flush=True)", SLEEP), ready="ready")
    process.wait_output("thinking")
    with pytest.raises(TimeoutError, match=r"(?s)to print 'ready'.*end of its log:\nthinking"):
        process.wait_ready(timeout_s=0.05)


def test_wait_exit_gives_up(process_factory: ProcessFactory) -> None:
    with pytest.raises(TimeoutError, match=r"still runs after 0\.05 s"):
        process_factory(NAP).wait_exit(0.05)


def test_environment_is_passed_along_with_changes(
    process_factory: ProcessFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTKIT_A", "kept")
    monkeypatch.setenv("TESTKIT_B", "removed")
    show = "print({k: v for k, v in os.environ.items() if k.startswith('TESTKIT_')})"
    process = process_factory(python("import os", show), env={"TESTKIT_B": None, "TESTKIT_C": "added"})
    process.wait_exit()
    assert process.log == "{'TESTKIT_A': 'kept', 'TESTKIT_C': 'added'}\n"


def test_working_directory_can_be_chosen(process_factory: ProcessFactory, tmp_path: Path) -> None:
    process = process_factory(["pwd"], cwd=tmp_path)
    process.wait_exit()
    assert process.log.strip() == str(tmp_path)


def test_terminate_accepts_the_expected_exit_code(process_factory: ProcessFactory) -> None:
    process = process_factory(python(EXIT_3_ON_SIGTERM, READY, SLEEP), ready="ready")
    process.wait_ready()
    process.terminate(expect_exit=3)
    assert process.exit_code == 3
    assert not alive(process.pid)


def test_terminate_tells_another_exit_code(process_factory: ProcessFactory) -> None:
    process = process_factory(python(EXIT_3_ON_SIGTERM, READY, SLEEP), ready="ready")
    process.wait_ready()
    with pytest.raises(AssertionError, match="exited 3, expected 0"):
        process.terminate()


def test_process_that_ignores_sigterm_is_killed_and_told(process_factory: ProcessFactory) -> None:
    process = process_factory(python(IGNORE_SIGTERM, READY, SLEEP), ready="ready")
    process.wait_ready()
    with pytest.raises(AssertionError, match=r"ignored SIGTERM for 0\.2 s"):
        process.terminate(timeout_s=0.2)
    assert not alive(process.pid)


def test_stopped_process_is_woken_to_end(process_factory: ProcessFactory) -> None:
    process = process_factory(python(EXIT_3_ON_SIGTERM, READY, SLEEP), ready="ready")
    process.wait_ready()
    process.kill(signal.SIGSTOP)
    process.stop()
    assert process.exit_code == 3


def test_descendant_left_behind_is_told_and_killed(process_factory: ProcessFactory) -> None:
    process = process_factory(python("import subprocess", CHILD_THAT_SLEEPS))
    child = int(process.wait_output(r"child (\d+)")[1])
    process.wait_exit()
    assert process.group() == [child]
    with pytest.raises(AssertionError, match=rf"left processes behind: \[{child}\]"):
        process.terminate(timeout_s=0.2)
    assert not alive(child)


def test_descendants_of_a_killed_process_are_asked_to_end(process_factory: ProcessFactory) -> None:
    process = process_factory(python("import subprocess, time", CHILD_THAT_SLEEPS, SLEEP))
    child = int(process.wait_output(r"child (\d+)")[1])
    process.kill()
    assert process.wait_exit() == -signal.SIGKILL
    assert alive(child)
    process.stop()
    assert not alive(child)


def test_stop_may_be_called_again(process_factory: ProcessFactory) -> None:
    process = process_factory(NAP)
    process.kill()
    process.stop()
    process.stop()
    assert not process.running


def test_repr_tells_name_and_state(process_factory: ProcessFactory) -> None:
    process = process_factory(NAP, name="napper")
    assert repr(process) == f"<Process napper pid={process.pid} running>"
    process.stop()
    assert repr(process) == f"<Process napper pid={process.pid} exited -15>"


def test_group_reads_names_with_parentheses(process_factory: ProcessFactory, tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 ("
    odd.symlink_to("/bin/sleep")
    process = process_factory([odd, "60"])
    assert process.group() == [process.pid]


def test_group_skips_what_ends_while_it_looks(
    process_factory: ProcessFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = process_factory(NAP)
    beyond_pid_max = 2**22 + 1
    monkeypatch.setattr("testkit.process._process_ids", lambda: [beyond_pid_max, process.pid])
    assert process.group() == [process.pid]


def test_each_process_has_its_own_log(process_factory: ProcessFactory) -> None:
    processes = [process_factory(["echo", word]) for word in ("one", "two")]
    for process in processes:
        process.wait_exit()
    assert [process.log for process in processes] == ["one\n", "two\n"]


def test_stop_all_stops_every_process_and_tells_every_problem(tmp_path: Path) -> None:
    factory = ProcessFactory(tmp_path)
    stubborn = [factory(python(IGNORE_SIGTERM, READY, SLEEP), ready="ready", name=f"s{n}") for n in (0, 1)]
    mild = factory(NAP, name="mild")
    for process in stubborn:
        process.wait_ready()
    with pytest.raises(AssertionError) as info:
        factory.stop_all(timeout_s=0.2)
    assert re.findall(r"^(\w+) \(pid", str(info.value), re.MULTILINE) == ["s1", "s0"]
    assert not any(process.running for process in [*stubborn, mild])


def test_no_zombie_remains(tmp_path: Path) -> None:
    process = Process(["sleep", "0"], log_path=tmp_path / "log")
    wait_until(lambda: not process.group(), reason="the process to end")
    process.stop()
    assert not Path(f"/proc/{process.pid}").exists()
