"""``python -m testkit.coverage``: combine, report, judge."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.gate import Failure, find_failures
from testkit.coverage.matrix import build_matrix
from testkit.coverage.measurement import MeasurementStore
from testkit.coverage.policy import load_policy
from testkit.coverage.report import to_json, to_markdown, to_text
from testkit.coverage.sources import assign_sources


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every threshold is met, 1 when one is missed, 2 when there can be no verdict."""
    parser = argparse.ArgumentParser(
        prog="python -m testkit.coverage",
        description="Combine what the tests measured by layer and kind, write reports, check the thresholds.",
        epilog="Exit codes: 0 all thresholds met, 1 one is missed, 2 there can be no verdict.",
    )
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the repository, with its pyproject.toml (.)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("coverage_reports"),
        help="where the reports go, with the measurements in data/ below it (coverage_reports)",
    )
    options = parser.parse_args(arguments)
    try:
        failures = report(options.root.resolve(), options.output.resolve())
    except CoverageInputError as error:
        for problem in error.problems:
            print(f"coverage: {problem}", file=sys.stderr)
        return 2
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def report(root: Path, output: Path) -> list[Failure]:
    """Write coverage.json, coverage.md and html/ into ``output``, print the table, return what failed.

    Raises:
        CoverageInputError: policy, sources or measurements cannot be used.
    """
    policy = load_policy(root / "pyproject.toml")
    sources = assign_sources(root, policy)
    files = [file for layer_files in sources.values() for file in layer_files]
    store = MeasurementStore(output / "data", root)
    rows = build_matrix(policy, sources, {kind: store.measure(kind, files) for kind in policy.kinds})
    failures = find_failures(rows)
    (output / "coverage.json").write_text(to_json(rows, failures), encoding="utf-8")
    (output / "coverage.md").write_text(to_markdown(rows, failures), encoding="utf-8")
    store.write_html(policy.kinds, files, output / "html")
    print(to_text(rows, failures))
    return failures


if __name__ == "__main__":
    sys.exit(main())
