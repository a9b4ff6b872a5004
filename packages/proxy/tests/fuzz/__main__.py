"""``nox -s fuzz -- [--inputs N] [--seed S] [--target NAME]... [--number N]``.

Exits with 1 when an input shows a defect; it is made small, kept in ``regressions/`` where the tests
repeat it from then on, and printed with the command that repeats it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from packages.proxy.tests.fuzz import regressions
from packages.proxy.tests.fuzz.engine import Finding, Outcome, examine, examine_range
from packages.proxy.tests.fuzz.targets import TARGETS

_CHUNK_INPUTS = 5000
_BY_NAME = {target.name: target for target in TARGETS}


def main() -> int:
    """Fuzz what the command line asks for and return the exit code."""
    options = _parse()
    names = options.target or list(_BY_NAME)
    print(f"seed {options.seed}", flush=True)
    if options.number is not None:
        findings = [examine(_BY_NAME[name], options.seed, options.number).finding for name in names]
    else:
        with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            findings = [_fuzz(pool, name, options.seed, options.inputs) for name in names]
    found = [finding for finding in findings if finding is not None]
    for finding in found:
        _print(finding)
    return 1 if found else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s fuzz --", description="Fuzz the parsers.")
    parser.add_argument("--inputs", type=int, default=1_000_000, metavar="N", help="of each parser")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbits(32), metavar="S", help="fresh by default"
    )
    parser.add_argument("--target", action="append", choices=list(_BY_NAME), help="a parser, all by default")
    parser.add_argument("--number", type=int, metavar="N", help="try only the input of this number")
    return parser.parse_args()


def _fuzz(pool: ProcessPoolExecutor, name: str, seed: int, inputs: int) -> Finding | None:
    began_s = time.perf_counter()
    chunks = [
        pool.submit(_examine_chunk, name, seed, start, min(start + _CHUNK_INPUTS, inputs))
        for start in range(0, inputs, _CHUNK_INPUTS)
    ]
    outcome = sum((chunk.result() for chunk in chunks), Outcome())
    taken_s = time.perf_counter() - began_s
    print(
        f"{name:20} {outcome.inputs:>9,} inputs, {outcome.accepted / max(outcome.inputs, 1):4.0%} accepted, "
        f"{taken_s:6.1f} s, {outcome.inputs / taken_s:>7,.0f} inputs/s, "
        f"slowest {outcome.slowest_s * 1e3:.1f} ms",
        flush=True,
    )
    return outcome.finding


def _examine_chunk(name: str, seed: int, start: int, end: int) -> Outcome:
    return examine_range(_BY_NAME[name], seed, range(start, end))


def _print(finding: Finding) -> None:
    file = regressions.keep(finding.target, finding.data)
    print(
        f"\n{finding.target}: {finding.error}\n"
        f"  input  {finding.data!r}\n"
        f"  kept   {file}\n"
        f"  repeat nox -s fuzz -- --target {finding.target} --seed {finding.seed} --number {finding.number}"
    )


if __name__ == "__main__":
    sys.exit(main())
