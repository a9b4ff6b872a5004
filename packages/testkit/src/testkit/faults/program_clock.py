"""The wall clock of one program, set off: what `ClockJump` is made of where programs really run.

The library libfaketime stands between a program and the C library (``LD_PRELOAD``), and adds to the time of
day what a file says. It looks at the file whenever it is asked for the time, so that a jump is in force, and
over, as soon as the file is another one. Nothing else of the machine is moved, and intervals stay what they
are: ``CLOCK_MONOTONIC`` does not jump on a machine whose clock is set, either.

The library comes with Debian's package ``libfaketime`` or the extra ``clock`` of this one. It is passed over
by programs that are linked statically, and of no use to those that ask the kernel by themselves (Go);
:meth:`ProgramClock.moves` says whether a process has loaded it. It takes no locks: of a program's threads
one may see a time between both, once, in the very moment of a jump.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

INSTALL = "no libfaketime: install edgeproxy-testkit[clock], or Debian's libfaketime"

_DEBIAN = Path("/usr/lib")
_SHARED = Path("/dev/shm")
_LIBRARY = "libfaketime.so.1"
_FILE = "ahead"


def find_library() -> Path | None:
    """Return where libfaketime is; None if it is nowhere."""
    found = sorted(_DEBIAN.glob(f"*/faketime/{_LIBRARY}"))
    package = importlib.util.find_spec("libfaketime")
    if package is not None and package.origin is not None:
        found.append(Path(package.origin).parent / "vendor" / "libfaketime" / "src" / _LIBRARY)
    return next((path for path in found if path.exists()), None)


class ProgramClock:
    """What the programs that get ``environment`` take for the time of day; right at first."""

    def __init__(self, library: Path, folder: Path, *, seen_at: str | None = None) -> None:
        """``folder``: holds the library and the file; ``seen_at``: where the program has it, if elsewhere."""
        self.folder = folder
        shutil.copy(library, folder / _LIBRARY)
        self.set_ahead(0)
        at = seen_at or str(folder)
        preloaded = [f"{at}/{_LIBRARY}", *os.environ.get("LD_PRELOAD", "").split()]
        self.environment = {
            "LD_PRELOAD": " ".join(preloaded),
            "FAKETIME_TIMESTAMP_FILE": f"{at}/{_FILE}",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Files keep the times that they have, or every watcher of files would see all of them change.
            "NO_FAKE_STAT": "1",
        }
        """To be laid over that of the program, before it starts."""

    def set_ahead(self, by_s: float) -> None:
        """From now on show so much more than it is; less, if that is negative."""
        new = self.folder / f"{_FILE}.new"
        new.write_text(f"{by_s:+f}\n", encoding="ascii")
        # In one step: nobody reads half of it.
        new.replace(self.folder / _FILE)

    def moves(self, pids: Iterable[int]) -> bool:
        """Whether one of these processes has loaded the library. Those of others' are not looked into."""
        return any(_LIBRARY in _maps(pid) for pid in pids)


@contextmanager
def program_clock(library: Path, *, seen_at: str | None = None) -> Iterator[ProgramClock]:
    """A clock with a folder of its own; ``seen_at``: where programs have that, if elsewhere."""
    with tempfile.TemporaryDirectory(prefix="testkit-clock-") as folder:
        # Programs may run as somebody else.
        Path(folder).chmod(0o755)
        try:
            yield ProgramClock(library, Path(folder), seen_at=seen_at)
        finally:
            sweep()


def sweep() -> None:
    """Remove what the library shares between a process and its children, where that process is gone.

    It never does so itself.
    """
    for path in _SHARED.glob("*faketime_s*"):
        owner = path.name.rpartition("_")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            path.unlink(missing_ok=True)


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
