"""``./dev demo``: what it shows is true, it ends by itself, and it leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from testkit.process import Process, ProcessFactory
from testkit.wait import wait_until

pytestmark = pytest.mark.blank(containers="the demo is one program on the machine of who watches it")

_ROOT = Path(__file__).parents[1]
_DEMO = (sys.executable, "-m", "e2e.demo")
_EQUATION = re.compile(r"(\d+) ([=!]) (\d+) (connections|bytes up|bytes down)")


def _start(process_factory: ProcessFactory, folder: Path, *arguments: str) -> Process:
    # What the demo makes lies in the folder, and what it starts inherits the variable.
    return process_factory([*_DEMO, *arguments], cwd=_ROOT, env={"TMPDIR": str(folder)}, name="demo")


def _left_behind(folder: Path) -> list[str]:
    """Files of the demo, and processes that it started, that are still there."""
    return [path.name for path in folder.glob("edgeproxy-demo-*")] + _processes(folder, b"")


def _processes(folder: Path, containing: bytes) -> list[str]:
    """Ids of the processes of the demo in ``folder`` whose command line contains these bytes."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # gone meanwhile, or somebody else's
            variables = (entry / "environ").read_bytes().split(b"\0")
            if f"TMPDIR={folder}".encode() in variables and containing in (entry / "cmdline").read_bytes():
                found.append(entry.name)
    return found


def test_every_figure_of_the_proxy_is_what_the_clients_saw(
    process_factory: ProcessFactory, tmp_path: Path
) -> None:
    demo = _start(process_factory, tmp_path, "--for", "4")

    assert demo.wait_exit(timeout_s=50) == 0, demo.log
    shown = demo.log
    assert "mock-eu-1 is killed" in shown
    assert re.search(r"its clients, in .*DE.* are on mock-eu-2 now", shown)
    assert "DE -> mock-eu-2" in shown
    summary = shown.partition("Counted by the clients = counted by the proxy:")[2]
    equations = _EQUATION.findall(summary)
    assert len(equations) >= 3 * 10
    assert all(clients == proxy and sign == "=" for clients, sign, proxy, _ in equations)
    # The last three are the totals of the others.
    for total, column in zip(equations[-3:], range(3), strict=True):
        assert int(total[0]) == sum(int(each[0]) for each in equations[column:-3:3]) > 0
    assert "FAIL" not in summary
    assert _left_behind(tmp_path) == []


@pytest.mark.usefixtures("unmeasured")
def test_figures_that_differ_are_told_and_end_it_with_1(
    process_factory: ProcessFactory, tmp_path: Path
) -> None:
    demo = _start(process_factory, tmp_path, "--for", "3")
    demo.wait_output("is killed", timeout_s=40)

    os.kill(int(_processes(tmp_path, b"edgeproxy.worker")[0]), signal.SIGKILL)

    assert demo.wait_exit(timeout_s=50) == 1, demo.log
    # What the dead worker had not reported yet is missing from the proxy's figures, and the demo says so.
    assert re.search(r"^FAIL  \d+ of \d+ rows differ$", demo.log, re.MULTILINE)
    assert any(sign == "!" for _, sign, _, _ in _EQUATION.findall(demo.log))
    assert _left_behind(tmp_path) == []


@pytest.mark.usefixtures("unmeasured")
def test_who_interrupts_it_finds_nothing_left(process_factory: ProcessFactory, tmp_path: Path) -> None:
    demo = _start(process_factory, tmp_path, "--for", "5")
    demo.wait_output(r"open, .* bytes", timeout_s=40)
    assert len(_processes(tmp_path, b"edgeproxy.worker")) >= 1

    demo.kill(signal.SIGINT)

    assert demo.wait_exit(timeout_s=20) == 130
    assert "interrupted" in demo.log
    wait_until(lambda: not _left_behind(tmp_path), reason="everything to be gone")


@pytest.mark.usefixtures("unmeasured")
def test_on_a_narrow_terminal_without_colours_it_draws_a_table(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    settings = {"TERM": "xterm", "COLUMNS": "50", "LINES": "24", "NO_COLOR": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*_DEMO, "--for", "2"], cwd=_ROOT, stdout=theirs, stderr=theirs, env={**os.environ, **settings}
    ) as demo:
        os.close(theirs)
        shown = _read_all(ours)
    assert demo.returncode == 0, shown
    # Sequences that move the cursor and set weights are fine; 30 to 37 and 38;… are colours.
    assert not re.search(r"\x1b\[(\d+;)*3[0-8]", shown)
    drawn = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", shown).replace("\r", "\n")
    lines = [line.strip() for line in drawn.splitlines()]
    assert max(map(len, lines)) <= int(settings["COLUMNS"])
    assert sum(line.startswith("edgeproxy demo ") for line in lines) > 5
    assert any("─✗" in line for line in lines)
    assert "✓ every figure of the proxy equals what the" in lines


def _read_all(terminal: int) -> str:
    """Everything written to a terminal until the last process that had it open is gone."""
    pieces = []
    with suppress(OSError):  # how Linux says that there is nobody any more
        while piece := os.read(terminal, 65536):
            pieces.append(piece)
    os.close(terminal)
    return b"".join(pieces).decode()


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("duration", ["1", "soon", "nan", "1e9"])
def test_a_duration_that_makes_no_sense_is_refused(duration: str) -> None:
    ended = subprocess.run(
        [*_DEMO, "--for", duration], cwd=_ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 2
    assert "give seconds from 2 to 3600" in ended.stderr
