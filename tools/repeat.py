"""``nox -s repeat -- TIMES SESSION... [ARGUMENT...]``: run sessions again and again, to find flakes.

Each run draws its own seeds. A line of each says the seeds, pytest's closing lines and how long it took; what
a failed run printed is kept beside. Nothing is run again because it failed. Exits with 1 if any run failed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_SEED = re.compile(r"^Using --randomly-seed=(\d+)$", re.MULTILINE)
_CLOSING_LINE = re.compile(r"^=+ ((?:\d+ \w+(?:, )?)+) in ", re.MULTILINE)


def main(arguments: Sequence[str]) -> int:
    """Run the command behind the number, so many times; return the exit code."""
    times, *command = arguments
    folder = Path(tempfile.mkdtemp(prefix="repeat-"))
    failed = 0
    for number in range(1, int(times) + 1):
        began_s = time.perf_counter()
        done = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        taken_s = time.perf_counter() - began_s
        print(
            f"run {number:2}  {taken_s:5.0f} s  {summary(done.stdout)}  exit code {done.returncode}",
            flush=True,
        )
        if done.returncode:
            failed += 1
            kept = folder / f"run-{number}.txt"
            kept.write_text(done.stdout)
            print(f"        what it printed: {kept}")
    print(f"{times} runs, {failed} failed")
    return 1 if failed else 0


def summary(output: str) -> str:
    """Seeds and outcomes of every pytest that ran, in order: ``seed 17: 158 passed``."""
    seeds, outcomes = _SEED.findall(output), _CLOSING_LINE.findall(output)
    return (
        "; ".join(f"seed {seed}: {outcome}" for seed, outcome in zip(seeds, outcomes, strict=False))
        or "no test"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
