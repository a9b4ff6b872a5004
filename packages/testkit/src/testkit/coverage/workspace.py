"""Where a command finds the repository and the measurements."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of one invocation, absolute."""

    root: Path
    """The repository, with its pyproject.toml."""
    output: Path
    """Where reports go."""
    pyproject: Path
    """The file with the policy and the settings of coverage.py."""

    @property
    def data(self) -> Path:
        """The folder with the measurements: ``.coverage.KIND.*``, one file for each process that ran."""
        return self.output / "data"

    @property
    def baselines(self) -> Path:
        """The folder with what earlier commits missed."""
        return self.output / "baselines"

    @classmethod
    def of(cls, options: argparse.Namespace) -> Workspace:
        """Return what :func:`add_workspace_arguments` parsed."""
        root: Path = options.root
        output: Path = options.output
        settings: Path = options.settings or root / "pyproject.toml"
        return cls(root.resolve(), output.resolve(), settings.resolve())


def add_workspace_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--root``, ``--settings`` and ``--output``."""
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the repository, with its pyproject.toml (.)"
    )
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="the settings, instead of the repository's pyproject.toml",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("coverage_reports"),
        help="where the reports go, with the measurements in data/ below it (coverage_reports)",
    )


def add_base_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--base``."""
    parser.add_argument(
        "--base", metavar="REVISION", help="hold changes against this revision, not against the merge base"
    )
