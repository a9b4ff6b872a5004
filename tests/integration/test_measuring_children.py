"""The repository's own settings of coverage.py see what child processes run, however these end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[2]

PRODUCT = """\
import asyncio
import os
import signal
import sys


def killed():
    print("ready", flush=True)
    while True:
        signal.pause()


def drained():
    async def main():
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
        print("ready", flush=True)
        await asked.wait()
        print("drained")

    asyncio.run(main())


def left_at_once():
    print("ready", flush=True)
    os._exit(0)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
"""

TESTS = """\
import asyncio
import sys

import pytest


@pytest.mark.parametrize("ending", ["killed", "drained", "left_at_once"])
def test_child(ending, tmp_path):
    async def main():
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "product", ending, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        await child.stdout.readline()
        if ending != "left_at_once":
            child.terminate()
        await child.wait()

    asyncio.run(main())
"""


def function_lines(name: str) -> set[int]:
    """Return the lines of a function of PRODUCT up to the one that says it is ready."""
    lines = PRODUCT.splitlines()
    start = lines.index(f"def {name}():")
    ready = next(number for number in range(start, len(lines)) if '"ready"' in lines[number])
    return {number + 1 for number in range(start + 1, ready + 1) if lines[number].strip()}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> set[int]:
    """The lines of the product that running TESTS with xdist executed in children of children."""
    folder = tmp_path_factory.mktemp("children")
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = 'include = ["*/packages/*/src/*"]'
    assert packages in settings
    (folder / "pyproject.toml").write_text(settings.replace(packages, 'include = ["*/product.py"]'))
    (folder / "product.py").write_text(PRODUCT)
    (folder / "test_children.py").write_text(TESTS)
    (folder / "data").mkdir()
    # What measures this test must not measure its children as well: one interpreter holds one tracer.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment |= {"COVERAGE_FILE": str(folder / "data" / ".coverage"), "PYTHONPATH": str(folder)}
    command = [
        "coverage",
        "run",
        "--context=unit",
        "-m",
        "pytest",
        "--numprocesses=2",
        *("-p", "no:schemathesis", "-p", "no:anyio", "-p", "no:mock_backend"),  # slow to import
        "-q",
        "test_children.py",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr

    data = coverage.CoverageData(str(folder / "combined"))
    for part in (folder / "data").iterdir():
        single = coverage.CoverageData(str(part))
        single.read()
        data.update(single)
        single.close(force=True)
    contexts, lines = data.measured_contexts(), data.lines(str(folder / "product.py"))
    data.close(force=True)
    assert contexts == {"unit"}
    return set(lines or ())


@pytest.mark.parametrize("ending", ["killed", "drained", "left_at_once"])
def test_a_child_that_ends_by_signal_or_at_once_is_measured(executed: set[int], ending: str) -> None:
    assert function_lines(ending) <= executed


def test_what_a_child_runs_after_sigterm_is_measured(executed: set[int]) -> None:
    assert PRODUCT.splitlines().index('        print("drained")') + 1 in executed
