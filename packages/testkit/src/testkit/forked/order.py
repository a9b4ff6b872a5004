"""What is to be started, and all that a new process takes over from the one that starts it."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_READ_AT_START = re.compile(r"PYTHON|COVERAGE_|LD_|LC_|LANG$|TZ$")
_LIMITS = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
_PATH = tuple(sys.path)
"""Where an interpreter with ``-P``, as the nursery is, looks for modules."""
_OF_EACH_INTERPRETER = {signal.SIGPIPE, signal.SIGXFSZ}
"""Ignored or not, whatever it was started with."""


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that an interpreter, the C library, or what measures it, reads when it starts."""
    return {name: value for name, value in environment.items() if _READ_AT_START.match(name)}


@dataclass(frozen=True)
class Order:
    """``python [-P] -m MODULE ARGUMENTS``, and what becomes of the process that is to run it."""

    safe_path: bool
    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    working_directory: str
    descriptors: Sequence[int]
    """The numbers under which the program has the descriptors that come with the order."""
    new_session: bool
    group: int
    """The process group to join, 0 for a new one."""
    inherited: Inherited

    def written(self) -> bytes:
        return json.dumps(asdict(self)).encode("ascii")

    @classmethod
    def read(cls, data: bytes) -> Order:
        fields: dict[str, Any] = json.loads(data)
        return cls(**{**fields, "inherited": Inherited(**fields["inherited"])})

    def carry_out(self) -> None:
        """Make this process one that was started so; its descriptors are somebody else's business.

        Raises:
            OSError: there is no such directory, or something is not permitted.
        """
        if self.new_session:
            os.setsid()
        else:
            os.setpgid(0, self.group)
        self.inherited.take_over()
        os.chdir(self.working_directory)
        os.environ.clear()
        os.environ.update(self.environment)
        options = ["-P", "-m"] if self.safe_path else ["-m"]
        sys.orig_argv = [sys.executable, *options, self.module, *self.arguments]
        sys.argv = ["-m", *self.arguments]
        sys.path[:] = _PATH if self.safe_path else [str(Path.cwd()), *_PATH]


@dataclass(frozen=True)
class Inherited:
    """What a child has from its parent without being told."""

    umask: int
    limits: Mapping[str, Sequence[int]]
    ignored: Sequence[int]
    blocked: Sequence[int]
    groups: Sequence[int]
    gids: Sequence[int]
    uids: Sequence[int]

    @classmethod
    def of_this_process(cls) -> Inherited:
        signals = signal.valid_signals() - _OF_EACH_INTERPRETER
        return cls(
            umask=_umask(),
            limits={str(limit): resource.getrlimit(limit) for limit in _LIMITS},
            ignored=sorted(each for each in signals if signal.getsignal(each) == signal.SIG_IGN),
            blocked=sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            groups=os.getgroups(),
            gids=os.getresgid(),
            uids=os.getresuid(),
        )

    def take_over(self) -> None:
        os.umask(self.umask)
        for limit, (soft, hard) in self.limits.items():
            if resource.getrlimit(int(limit)) != (soft, hard):
                resource.setrlimit(int(limit), (soft, hard))
        for number in self.ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked)
        # Whoever may not change them does not differ in them.
        if os.getgroups() != list(self.groups):
            os.setgroups(self.groups)
        if os.getresgid() != tuple(self.gids):
            os.setresgid(*self.gids)
        if os.getresuid() != tuple(self.uids):
            os.setresuid(*self.uids)


def _umask() -> int:
    # os.umask() tells it only by changing it, for a moment and for all threads.
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^Umask:\s*([0-7]+)", status, re.MULTILINE)
    assert found is not None
    return int(found[1], 8)
