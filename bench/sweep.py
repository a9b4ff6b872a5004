"""After how many bytes should a direction be spliced? Every threshold in turn, round by round.

The threshold is no setting, so each proxy gets it from :mod:`sitecustomize` of ``bench/thresholds``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from bench import wrk
from bench.loads import Effort, quiet
from bench.machine import cpu_s
from bench.peers import Stage, Target

THRESHOLDS: Final = (1, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 4 << 20)
OBJECTS: Final = {
    "32 KiB": 32 << 10,
    "128 KiB": 128 << 10,
    "512 KiB": 512 << 10,
    "2 MiB": 2 << 20,
    "64 MiB": 64 << 20,
}
_PATCH: Final = Path(__file__).parent / "thresholds"


def sweep(stage: Stage, rounds: int, effort: Effort, tell: Callable[[str], None]) -> str:
    """Compare the thresholds with copying alone for objects of several sizes; the outcome as Markdown."""
    copying = stage.start_ours(settings={"relay": "copy"})
    for name, size_bytes in OBJECTS.items():
        (stage.folder / "www" / name.replace(" ", "")).write_bytes(bytes(size_bytes))
    proxies: list[tuple[str, Target]] = [("copy", copying)]
    for threshold in THRESHOLDS:
        environment = {"PYTHONPATH": str(_PATCH), "BENCH_SPLICE_AFTER_BYTES": str(threshold)}
        proxies.append((_size(threshold), stage.start_ours(environment=environment)))
    lines = ["| object | splice after | GiB/s ÷ copy | worker CPU ÷ copy |", "|---|---|---|---|"]
    for name in OBJECTS:
        samples: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            base = None
            for label, target in proxies:
                quiet()
                rate, cost = _measure(target, name.replace(" ", ""), effort.seconds)
                base = base or (rate, cost)
                samples.setdefault(label, []).append((rate / base[0], cost / base[1]))
        for label, each in samples.items():
            rate, cost = (median(column) for column in zip(*each, strict=True))
            lines.append(f"| {name} | {label} | {rate:.2f} | {cost:.2f} |")
        tell(f"{name}: done")
    for _, target in proxies:
        stage.stop(target)
    return "\n".join([*lines, ""])


def _measure(target: Target, path: str, seconds: float) -> tuple[float, float]:
    """Bytes/s, and processor time in s for each byte."""
    before_s = cpu_s(target.pids)
    load = wrk.run(target.url(path), threads=2, connections=8, seconds=seconds)
    # A cost of less than a tick would make a ratio of nothing.
    cost_s = max(cpu_s(target.pids) - before_s, 0.01)
    return load.received_bytes / load.seconds, cost_s / load.received_bytes


def _size(count: int) -> str:
    if count >= 1 << 20:
        return f"{count >> 20} MiB"
    return f"{count >> 10} KiB" if count >= 1 << 10 else f"{count} B"
