"""Git repositories with a product of one file, and measurements of it that say what a test wants."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from coverage import CoverageData

from testkit.__main__ import main

CORE = """\
def sign(number):
    if number < 0:
        return -1
    return 1


def never():
    return None
"""
# What runs when CORE is imported, and when sign() is called: line of the code object, lines.
IMPORT = (1, (1, 7))
NEGATIVE = (1, (2, 3))
POSITIVE = (1, (2, 4))
NEVER = (7, (8,))

Frame = tuple[int, Sequence[int]]
EVERYTHING: tuple[Frame, ...] = (IMPORT, NEGATIVE, POSITIVE, NEVER)

SETTINGS = """\
[tool.coverage.run]
branch = true

[tool.testkit.coverage]
kinds = ["unit"]
sources = ["*.py"]
overall = { kinds = ["unit"] }
base = ["main"]

[tool.testkit.coverage.layers]
core = { paths = ["*.py"], kinds = ["unit"] }
"""

RATCHET = """
[tool.testkit.coverage.ratchet]
critical = ["core.py"]
loss = 100
"""
NEW_CODE = """
[tool.testkit.coverage.new_code]
threshold = 90
"""
NEW_FUNCTION = """

def added(number):
    if number:
        return 1
    return 2
"""

PRAGMA = "# pragma" + ": no cover"
"""In two parts, for it is about those files and not this one."""

Output = pytest.CaptureFixture[str]


def broken(output: Output) -> list[str]:
    """Return the first line of each failure."""
    return [line for line in output.readouterr().err.splitlines() if not line.startswith("    ")]


class Repository:
    """A git repository at ``root`` with SETTINGS and CORE on its branch main."""

    def __init__(self, root: Path, settings: str = SETTINGS) -> None:
        self.root = root
        self.git("init", "--quiet", "--initial-branch=main")
        self.write("pyproject.toml", settings)
        self.write("core.py", CORE)
        self.write(".gitignore", "out/\n")
        self.first = self.commit()

    def write(self, name: str, text: str) -> None:
        """Create or replace a file."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def replace(self, name: str, old: str, new: str) -> None:
        """Edit a file."""
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))

    def commit(self) -> str:
        """Commit everything and return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=a change")
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        """Run git and return what it prints, stripped."""
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, check=True
        ).stdout.strip()

    def measure(self, **frames: Sequence[Frame]) -> None:
        """Replace the measurements by those of kinds that executed these frames of core.py."""
        for stale in (self.root / "out" / "data").glob("*"):
            stale.unlink()
        for kind, executed in frames.items():
            self.record(f".coverage.{kind}.host.1", {"core.py": executed})

    def record(self, name: str, executed: Mapping[str, Sequence[Frame]], folder: str = "out/data") -> None:
        """Write one data file."""
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        data = CoverageData(str(self.root / folder / name))
        for file, frames in executed.items():
            data.add_arcs({str(self.root / file): [arc for frame in frames for arc in _arcs(*frame)]})
        data.write()
        data.close(force=True)

    def coverage(self, command: str, *arguments: str) -> int:
        """Run ``testkit coverage COMMAND`` in this process and return the exit code."""
        folders = ("--root", str(self.root), "--output", str(self.root / "out"))
        return main(["coverage", command, *folders, *arguments])


def _arcs(first_line: int, lines: Sequence[int]) -> list[tuple[int, int]]:
    places = [-first_line, *lines, -first_line]
    return list(itertools.pairwise(places))
