"""``nox -s simulate -- [--seeds N] [--first S] [--seed S] [--max-nodes N] [--plant NAME]``.

Exits with 1 when a seed shows a defect; it is kept in ``regressions.txt``, which the tests run from then on,
and printed with the command that repeats it. A defect that was planted is not kept.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from packages.proxy.tests.simulation import history, regressions
from packages.proxy.tests.simulation.history import MAX_NODES, Outcome
from packages.proxy.tests.simulation.plants import Plant


def main(arguments: Sequence[str] | None = None) -> int:
    """Live through what the command line asks for and return the exit code."""
    options = _parse(arguments)
    plant = None if options.plant is None else Plant(options.plant)
    began_s = time.perf_counter()
    if options.seed is not None:
        outcomes = iter([history.run(options.seed, options.max_nodes, plant)])
    else:
        print(f"first seed {options.first}", flush=True)
        outcomes = _in_parallel(range(options.first, options.first + options.seeds), options.max_nodes, plant)
    count = nodes = failed = 0
    seen: Counter[str] = Counter()
    for outcome in outcomes:
        count += 1
        nodes += outcome.nodes
        seen += outcome.seen
        if outcome.violations:
            failed += 1
            _print(outcome, options.max_nodes, plant)
    what = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in sorted(seen.items()))
    print(f"seen: {what}")
    print(
        f"{count:,} seeds with {nodes:,} nodes lived through in {time.perf_counter() - began_s:.1f} s, "
        f"{failed:,} failed"
    )
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s simulate --", description="Live through histories.")
    parser.add_argument("--seeds", type=int, default=2_000, metavar="N", help="how many")
    parser.add_argument(
        "--first",
        type=int,
        default=secrets.randbits(32),
        metavar="S",
        help="the first of them, drawn by default",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="only this one")
    parser.add_argument("--max-nodes", type=int, default=MAX_NODES, metavar="N", help="of one history")
    parser.add_argument("--plant", choices=[plant.value for plant in Plant], help="a defect to look for")
    return parser.parse_args(arguments)


def _in_parallel(seeds: range, max_nodes: int, plant: Plant | None) -> Iterator[Outcome]:
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(partial(history.run, max_nodes=max_nodes, plant=plant), seeds, chunksize=4)


def _print(outcome: Outcome, max_nodes: int, plant: Plant | None) -> None:
    command = f"nox -s simulate -- --seed {outcome.seed} --max-nodes {max_nodes}"
    print(f"\nseed {outcome.seed}, {outcome.nodes} nodes at first:", flush=True)
    for violation in outcome.violations[:5]:
        print(f"  {violation}")
    if plant is None:
        regressions.keep(outcome.seed, max_nodes, outcome.violations[0])
        print(f"  kept   {regressions.FILE}")
    else:
        command += f" --plant {plant}"
    print(f"  repeat {command}\n")


if __name__ == "__main__":
    sys.exit(main())
