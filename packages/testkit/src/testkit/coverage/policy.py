"""The promises about coverage, read from ``[tool.testkit.coverage]``.

::

    [tool.testkit.coverage]
    kinds = ["unit", "integration"]
    sources = ["src/**/*.py"]
    overall = { kinds = ["unit", "integration"], lines = 98, branches = 98 }

    [tool.testkit.coverage.layers]
    core = { paths = ["src/core/**/*.py"], kinds = ["unit"], lines = 100, branches = 100 }

Thresholds are per cent and exact: 99.999 does not meet 100.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

from testkit.coverage.errors import CoverageInputError

SECTION = "tool.testkit.coverage"


@dataclass(frozen=True, slots=True)
class Requirement:
    """At least so many per cent, reached by all of ``kinds`` together."""

    kinds: tuple[str, ...]
    lines: Fraction
    branches: Fraction


@dataclass(frozen=True, slots=True)
class Layer:
    """Source files with one promise about them; ``paths`` are glob patterns relative to the repository."""

    name: str
    paths: tuple[str, ...]
    requirement: Requirement


@dataclass(frozen=True, slots=True)
class Policy:
    """All that is promised. Every file that ``sources`` match belongs to exactly one layer."""

    kinds: tuple[str, ...]
    sources: tuple[str, ...]
    layers: tuple[Layer, ...]
    overall: Requirement


def load_policy(pyproject: Path) -> Policy:
    """Read the policy.

    Raises:
        CoverageInputError: the file is missing or no TOML, or the policy is wrong; every problem at once.
    """
    try:
        document = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    except OSError as error:
        raise CoverageInputError([f"{pyproject}: {error.strerror}"]) from error
    except ValueError as error:
        raise CoverageInputError([f"{pyproject}: no valid TOML: {error}"]) from error
    section: object = document
    for part in SECTION.split("."):
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise CoverageInputError([f"{pyproject}: the table [{SECTION}] is missing"])
    reader = _Reader(str(pyproject))
    policy = reader.policy(section)
    if reader.problems:
        raise CoverageInputError(reader.problems)
    return policy


class _Reader:
    """Turns tables into values and collects every problem on the way."""

    def __init__(self, file_name: str) -> None:
        self.problems: list[str] = []
        self._file_name = file_name

    def policy(self, table: Mapping[str, object]) -> Policy:
        self._check_keys(SECTION, table, ("kinds", "sources", "overall", "layers"))
        kinds = self._strings(SECTION, table, "kinds")
        layers = self._table(SECTION, table, "layers")
        return Policy(
            kinds=kinds,
            sources=self._strings(SECTION, table, "sources"),
            layers=tuple(
                self._layer(name, self._table(f"{SECTION}.layers", layers, name), kinds) for name in layers
            ),
            overall=self._requirement(f"{SECTION}.overall", self._table(SECTION, table, "overall"), kinds),
        )

    def _layer(self, name: str, table: Mapping[str, object], kinds: Sequence[str]) -> Layer:
        where = f"{SECTION}.layers.{name}"
        return Layer(
            name, self._strings(where, table, "paths"), self._requirement(where, table, kinds, "paths")
        )

    def _requirement(
        self, where: str, table: Mapping[str, object], known_kinds: Sequence[str], *other_keys: str
    ) -> Requirement:
        self._check_keys(where, table, ("kinds", "lines", "branches", *other_keys))
        kinds = self._strings(where, table, "kinds")
        for unknown in (kind for kind in kinds if kind not in known_kinds):
            self._report(where, f"unknown kind {unknown!r}, there are {', '.join(known_kinds)}")
        return Requirement(
            kinds, self._percent(where, table, "lines"), self._percent(where, table, "branches")
        )

    def _check_keys(self, where: str, table: Mapping[str, object], known: Sequence[str]) -> None:
        for key in sorted(table.keys() - set(known)):
            self._report(where, f"unknown key {key!r}, there are {', '.join(known)}")

    def _table(self, where: str, table: Mapping[str, object], key: str) -> Mapping[str, object]:
        value = table.get(key)
        if isinstance(value, dict) and value:
            return cast("dict[str, object]", value)
        self._report(where, f"{key} must be a table with entries")
        return {}

    def _strings(self, where: str, table: Mapping[str, object], key: str) -> tuple[str, ...]:
        value = table.get(key)
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return tuple(value)
        self._report(where, f"{key} must be a list of strings with entries")
        return ()

    def _percent(self, where: str, table: Mapping[str, object], key: str) -> Fraction:
        value = table.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
            # By way of the text: 99.9 in the file means 999/10, not the nearest binary fraction.
            return Fraction(str(value))
        self._report(where, f"{key} must be a number from 0 to 100")
        return Fraction(0)

    def _report(self, where: str, problem: str) -> None:
        self.problems.append(f"{self._file_name}: [{where}] {problem}")
