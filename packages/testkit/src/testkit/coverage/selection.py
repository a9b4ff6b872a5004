"""Narrowing a command to one layer or one kind."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from testkit.coverage.assessment import Measured
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.matrix import Row


def add_layer_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--layer``."""
    parser.add_argument("--layer", help="only this layer")


def select_layers(measured: Measured, name: str | None) -> Sequence[Row]:
    """Return the row of that name, all layers without one.

    Raises:
        CoverageInputError: there is no such layer.
    """
    if name is None:
        return measured.layers
    rows = {row.name: row for row in measured.layers}
    if name not in rows:
        raise CoverageInputError([f"unknown layer {name!r}, there are {', '.join(rows)}"])
    return [rows[name]]
