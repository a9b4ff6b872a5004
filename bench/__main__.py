"""``./dev bench``: edgeproxy beside HAProxy and nginx, on this machine, now."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.goals import GOALS, Verdict
from bench.loads import Effort
from bench.machine import describe
from bench.peers import HAPROXY, NGINX, Missing, stage
from bench.report import terminal, write
from bench.rounds import ROWS, measure
from bench.sweep import sweep

ROOT = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> int:
    """Measure what the command line asks for; 1 when a figure is below its floor."""
    options = _parse(arguments)
    about = _about(options)
    began_s = time.monotonic()
    if shutil.which("wrk") is None:
        print("wrk is not installed: apt-get install wrk", file=sys.stderr)
        return 1
    effort = Effort(options.seconds, options.idle_connections)
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        with stage(options.workers) as ready:
            if options.splice_sweep:
                told = sweep(ready, options.rounds, effort, _tell)
                (options.output / "splice.md").write_text(told, encoding="utf-8")
                print(told)
                return 0
            outcomes = measure(
                ready, options.rows, options.rounds, effort, _tell, profiles=not options.no_profiles
            )
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    about["took"] = f"{time.monotonic() - began_s:.0f} s"
    write(options.output, outcomes, about)
    print(terminal(outcomes))
    print(f"\n{options.output}/report.md, report.json and report.svg hold all of it")
    below = [
        outcome for outcome in outcomes if GOALS[outcome.row].judge(outcome.figure) is Verdict.BELOW_FLOOR
    ]
    return 1 if below else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument(
        "--rows", type=_rows, default=list(ROWS), metavar="NAME,...", help=f"some of {', '.join(ROWS)}"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="at least three tell something")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of each load, default 2")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="or threads, of each proxy; default 1"
    )
    parser.add_argument("--idle-connections", type=int, default=5000, metavar="N", help="default 5000")
    parser.add_argument("--no-profiles", action="store_true", help="take none where a goal is missed")
    parser.add_argument(
        "--splice-sweep", action="store_true", help="measure thresholds of splicing instead, into splice.md"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "bench_reports", metavar="FOLDER", help="default bench_reports"
    )
    return parser.parse_args(arguments)


def _rows(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise argparse.ArgumentTypeError(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return names


def _about(options: argparse.Namespace) -> dict[str, str]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": commit or "unknown",
        **describe(),
        HAPROXY: _version("haproxy", "-v"),
        NGINX: _version("nginx", "-v"),
        "effort": f"{options.rounds} rounds of {options.seconds:g} s, {options.workers} worker each",
        "mind": "load generator and backend share the cores with the proxy",
    }


def _version(program: str, option: str) -> str:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        return "not installed"
    ended = subprocess.run([path, option], capture_output=True, text=True, check=False)
    first, *_ = (ended.stdout + ended.stderr).splitlines() or ["unknown"]
    # A version carries dates and addresses of its own behind the number.
    return " ".join(first.split()[:3])


def _tell(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    sys.exit(main())
