"""What the kernel says about processes and about this machine, all from ``/proc``."""

from __future__ import annotations

import os
import platform
import re
import resource
from collections.abc import Iterable
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pids: Iterable[int]) -> float:
    """Processor time, user and system, that the processes have used; one that is gone counts nothing."""
    return sum(map(_cpu_s, pids))


def _cpu_s(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    # The command name, in parentheses, may itself hold blanks and parentheses.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def busy_s() -> float:
    """Processor time that all cores of the machine have spent on anything, the kernel's own included."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)[1:9]
    user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, fields)
    return (user + nice + system + sum(interrupts_and_stolen)) / _TICKS_PER_S


def pss_bytes(pids: Iterable[int]) -> int:
    """Memory of the processes, what they share with others counted in proportion."""
    return sum(_rollup_bytes(pid, "Pss") for pid in pids)


def heap_bytes(pid: int) -> int:
    """Memory of the process that is nobody else's and comes from no file: what its objects take."""
    return _rollup_bytes(pid, "Pss_Anon")


def _rollup_bytes(pid: int, what: str) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(rf"^{what}: +(\d+) kB$", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def descriptors(pid: int) -> dict[str, int]:
    """How many descriptors the process has open of each kind: ``socket``, ``pipe``, ``anon_inode`` …"""
    kinds: dict[str, int] = {}
    folder = Path(f"/proc/{pid}/fd")
    for entry in folder.iterdir():
        try:
            kind = str(entry.readlink()).partition(":")[0]
        except OSError:
            continue  # closed since it was listed
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def raise_descriptor_limit() -> int:
    """Let this process open as many files as it may, and return how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def describe() -> dict[str, str]:
    """What a reader must know of the machine to judge a figure."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    load = Path("/proc/loadavg").read_text(encoding="ascii").split()[:3]
    return {
        "processor": cpu[1] if cpu is not None else platform.processor() or "unknown",
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load before": " ".join(load),
    }
