"""Shows defects that were found: ``python tools/found.py NAME...`` plants each anew and runs what notices it.

Without a name all are shown. Ends with 1 when one is not noticed any more. ``--table`` prints what
docs/defects-found.md has.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tools" / "found.toml"
PACKAGES = ("proxy", "mock_backend", "testkit")
TIME_LIMIT_S = 300


@dataclass(frozen=True, slots=True)
class Bug:
    """A defect; without a ``file`` it is somebody else's, and still there."""

    name: str
    what: str
    by: str
    run: str
    file: str = ""
    now: str = ""
    was: str = ""

    @property
    def command(self) -> list[str]:
        """The words of ``run``, with this interpreter."""
        program, *arguments = self.run.split()
        return [sys.executable, *(["-m", program] if program != "python" else []), *arguments]

    def plant(self, root: Path) -> None:
        """Put back what was there before.

        Raises:
            ValueError: what was mended is not there once.
        """
        if not self.file:
            return
        text = (root / self.file).read_text(encoding="utf-8")
        if text.count(self.now) != 1:
            raise ValueError(
                f"{self.name}: {self.file} has {self.now!r} {text.count(self.now)} times, not once"
            )
        (root / self.file).write_text(text.replace(self.now, self.was), encoding="utf-8")


def bugs() -> list[Bug]:
    return [Bug(**entry) for entry in tomllib.loads(LIST.read_text(encoding="utf-8"))["bug"]]


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """A copy of what the repository tracks, which Python prefers to what is installed."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in listed.stdout.split("\0"):
            if name and (root / name).is_file():
                target = Path(folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / name, target)
        yield Path(folder)


def is_noticed(bug: Bug) -> bool:
    """Whether what is to notice it fails where it is planted."""
    with copied(ROOT) as folder:
        bug.plant(folder)
        sources = [str(folder), *(str(folder / "packages" / package / "src") for package in PACKAGES)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources), "PYTEST_ADDOPTS": "-n0"}
        ended = subprocess.run(
            bug.command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
        # pytest says with other codes that it ran nothing.
        noticed = ended.returncode == 1
        if not noticed:
            print(ended.stdout)
        return noticed


def table() -> str:
    rows = [f"| {bug.what} | {bug.by} | `python tools/found.py {bug.name}` |" for bug in bugs()]
    return "\n".join(["| what | found by | command |", "|---|---|---|", *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*", metavar="NAME", help="which; all without one")
    parser.add_argument("--table", action="store_true", help="print the table of the documents")
    options = parser.parse_args()
    if options.table:
        print(table())
        return 0
    known = {bug.name: bug for bug in bugs()}
    if unknown := [name for name in options.name if name not in known]:
        parser.error(f"no defect is called {', '.join(unknown)}; there are {', '.join(known)}")
    missed = 0
    for name in options.name or known:
        noticed = is_noticed(known[name])
        missed += not noticed
        print(f"{name}: {'noticed' if noticed else 'NOT NOTICED'} by {known[name].run}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
