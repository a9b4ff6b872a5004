"""Where the time of a worker goes: Python lines by sampling, and system calls by ``strace``.

The sampler is started inside the worker by :mod:`sitecustomize` of ``bench/sampler``, which the proxy's
environment names; nothing of the proxy knows of it.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.loads import Effort, Row
from bench.peers import Stage, Target

SAMPLER: Final = Path(__file__).parent / "sampler"
_FUNCTIONS = 25
_CALLS = 12


def profile(stage: Stage, row: Row, effort: Effort) -> str:
    """Put a proxy of its own under the load of ``row`` and say what its workers did, as Markdown."""
    samples = stage.folder / "samples"
    samples.mkdir(exist_ok=True)
    target = stage.start_ours(environment={"PYTHONPATH": str(SAMPLER), "BENCH_SAMPLES": str(samples)})
    try:
        row.measure(target, effort)
    finally:
        stage.stop(target)  # only then they are written
    written = list(samples.iterdir())
    told = functions([json.loads(path.read_text(encoding="utf-8")) for path in written])
    for path in written:
        path.unlink()
    target = stage.start_ours()
    try:
        told += system_calls(target, lambda: row.measure(target, effort).figure * effort.seconds)
    finally:
        stage.stop(target)
    return told


def functions(samples: list[dict[str, int]]) -> str:
    """The functions in which most samples of the workers fell, by their own time."""
    total: dict[str, int] = {}
    for each in samples:
        for function, count in each.items():
            total[function] = total.get(function, 0) + count
    everything = sum(total.values())
    if not everything:
        return "The sampler saw nothing.\n\n"
    lines = [
        f"Processor time of the workers by function, callees not included ({everything} samples):\n",
        "```",
    ]
    by_count = sorted(total.items(), key=lambda item: -item[1])[:_FUNCTIONS]
    lines += [f"{count / everything:6.1%}  {function}" for function, count in by_count]
    return "\n".join([*lines, "```", "", ""])


def system_calls(target: Target, load: Callable[[], float]) -> str:
    """How often the workers called the kernel for what ``load`` did, and returns the number of."""
    program = shutil.which("strace")
    if program is None:
        return "strace is not installed, so system calls were not counted.\n"
    workers = [pid for pid in target.pids if pid != target.process.pid]
    argv = [program, "-c", "-f", *(option for pid in workers for option in ("-p", str(pid)))]
    tracer = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_traced(workers)
        done = load()
    finally:
        tracer.send_signal(signal.SIGINT)
        said = tracer.communicate(timeout=30)[1]
    return counts(said, done)


def counts(said: str, done: float) -> str:
    """The busiest rows of ``strace -c``, divided by what was done."""
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(\d+)?\s*(\w+)$", said, re.MULTILINE)
    calls = sorted(((int(count), name) for count, _, name in rows if name != "total"), reverse=True)
    if not calls or not done:
        return f"strace counted nothing: {said}\n"
    total = sum(count for count, _ in calls)
    lines = [f"System calls of the workers, {total / done:.1f} each time:\n", "```"]
    lines += [f"{count / done:8.2f}  {name}" for count, name in calls[:_CALLS]]
    return "\n".join([*lines, "```", ""])


def _wait_until_traced(pids: list[int]) -> None:
    ends_s = time.monotonic() + 10
    while time.monotonic() < ends_s:
        status = [Path(f"/proc/{pid}/status").read_text(encoding="ascii") for pid in pids]
        if all(not re.search(r"^TracerPid:\s+0$", each, re.MULTILINE) for each in status):
            return
        time.sleep(0.01)
