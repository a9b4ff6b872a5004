"""The policy as ``[tool.testkit.coverage]`` of a ``pyproject.toml`` spells it.

::

    [tool.testkit.coverage]
    kinds = ["unit", "integration"]
    sources = ["src/**/*.py"]
    overall = { kinds = ["unit", "integration"], lines = 98, branches = 98 }

    [tool.testkit.coverage.layers.core]
    paths = ["src/core/**/*.py"]
    kinds = ["unit"]
    lines = 100
    branches = 100
    each_file = { lines = 90 }
    cells = { integration = { lines = 50 } }

Thresholds are per cent and exact: 99.999 does not meet 100. The document of the package lists every key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.policy import (
    DataSource,
    ExcludedPattern,
    ExclusionPolicy,
    Layer,
    Lowering,
    NewCodePolicy,
    Policy,
    RatchetPolicy,
    Requirement,
)

SECTION = "tool.testkit.coverage"
_METRICS = ("lines", "branches", "functions")

Table = Mapping[str, object]


def load_policy(pyproject: Path) -> Policy:
    """Read the policy.

    Raises:
        CoverageInputError: the file is missing or no TOML, or the policy is wrong; every problem at once.
    """
    try:
        return parse_policy(pyproject.read_bytes(), str(pyproject))
    except OSError as error:
        raise CoverageInputError([f"{pyproject}: {error.strerror}"]) from error


def parse_policy(content: bytes, name: str) -> Policy:
    """Read the policy from what a file called ``name`` holds; raises what :func:`load_policy` does."""
    try:
        section: object = tomllib.loads(content.decode("utf-8"))
    except ValueError as error:
        raise CoverageInputError([f"{name}: no valid TOML: {error}"]) from error
    for part in SECTION.split("."):
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise CoverageInputError([f"{name}: the table [{SECTION}] is missing"])
    reader = _Reader(name)
    policy = reader.policy(section)
    if reader.problems:
        raise CoverageInputError(reader.problems)
    return policy


class _Reader:
    """Turns tables into values and collects every problem on the way."""

    def __init__(self, file_name: str) -> None:
        self.problems: list[str] = []
        self._file_name = file_name
        self._kinds: tuple[str, ...] = ()

    def policy(self, table: Table) -> Policy:
        self._check_keys(
            SECTION,
            table,
            (
                *("kinds", "sources", "overall", "layers", "groups", "data", "base", "slack", "unstable"),
                *("ratchet", "new_code", "exclusions", "tests"),
            ),
        )
        self._kinds = self._strings(SECTION, table, "kinds")
        defaults = {} if "base" not in table else {"base": self._strings(SECTION, table, "base")}
        return Policy(
            kinds=self._kinds,
            sources=self._strings(SECTION, table, "sources"),
            layers=self._layers(table, "layers", "weight"),
            overall=self._requirement(f"{SECTION}.overall", self._table(SECTION, table, "overall")),
            groups=self._layers(table, "groups") if "groups" in table else (),
            data=tuple(
                DataSource(
                    self._text(where, entry, "name"),
                    self._kind(where, self._text(where, entry, "kind")),
                    self._text(where, entry, "pattern"),
                )
                for where, entry in self._entries(SECTION, table, "data", ("name", "kind", "pattern"))
            ),
            slack=self._percent(SECTION, table, "slack") if "slack" in table else None,
            unstable=self._text(SECTION, table, "unstable") if "unstable" in table else None,
            ratchet=self._ratchet(table),
            new_code=self._new_code(table),
            exclusions=self._exclusions(table),
            tests=self._tests(table),
            **defaults,
        )

    def _layers(self, table: Table, key: str, *other_keys: str) -> tuple[Layer, ...]:
        layers = self._table(SECTION, table, key)
        return tuple(
            self._layer(
                f"{SECTION}.{key}.{name}", name, self._table(f"{SECTION}.{key}", layers, name), other_keys
            )
            for name in layers
        )

    def _layer(self, where: str, name: str, table: Table, other_keys: Sequence[str]) -> Layer:
        requirement = self._requirement(where, table, "paths", "each_file", "cells", *other_keys)
        each_file = None
        if "each_file" in table:
            each_file = self._thresholds(
                f"{where}.each_file", self._table(where, table, "each_file"), requirement.kinds
            )
        cells = self._table(where, table, "cells") if "cells" in table else {}
        return Layer(
            name,
            self._strings(where, table, "paths"),
            requirement,
            each_file,
            tuple(
                self._thresholds(
                    f"{where}.cells.{kind}",
                    self._table(f"{where}.cells", cells, kind),
                    (self._kind(f"{where}.cells", kind),),
                )
                for kind in cells
            ),
            self._number(where, table, "weight") if "weight" in table else Fraction(1),
        )

    def _requirement(self, where: str, table: Table, *other_keys: str) -> Requirement:
        kinds = tuple(self._kind(where, kind) for kind in self._strings(where, table, "kinds"))
        return self._thresholds(where, table, kinds, "kinds", *other_keys)

    def _thresholds(self, where: str, table: Table, kinds: tuple[str, ...], *other_keys: str) -> Requirement:
        self._check_keys(where, table, (*_METRICS, *other_keys))
        return Requirement(
            kinds,
            *(self._percent(where, table, metric) if metric in table else Fraction(0) for metric in _METRICS),
        )

    def _ratchet(self, table: Table) -> RatchetPolicy | None:
        if "ratchet" not in table:
            return None
        where, ratchet = f"{SECTION}.ratchet", self._table(SECTION, table, "ratchet")
        self._check_keys(where, ratchet, ("critical", "loss", "baseline", "lowered"))
        return RatchetPolicy(
            self._strings(where, ratchet, "critical") if "critical" in ratchet else (),
            self._percent(where, ratchet, "loss"),
            self._text(where, ratchet, "baseline") if "baseline" in ratchet else None,
            tuple(
                Lowering(self._text(place, entry, "what"), self._text(place, entry, "reason"))
                for place, entry in self._entries(where, ratchet, "lowered", ("what", "reason"))
            ),
        )

    def _new_code(self, table: Table) -> NewCodePolicy | None:
        if "new_code" not in table:
            return None
        where, new_code = f"{SECTION}.new_code", self._table(SECTION, table, "new_code")
        self._check_keys(where, new_code, ("threshold", "tiny"))
        tiny = self._number(where, new_code, "tiny") if "tiny" in new_code else Fraction(1)
        return NewCodePolicy(self._percent(where, new_code, "threshold"), int(tiny))

    def _exclusions(self, table: Table) -> ExclusionPolicy | None:
        if "exclusions" not in table:
            return None
        where, exclusions = f"{SECTION}.exclusions", self._table(SECTION, table, "exclusions")
        self._check_keys(where, exclusions, ("categories", "patterns"))
        keys = ("pattern", "category", "reason")
        patterns = tuple(
            ExcludedPattern(*(self._text(place, entry, key) for key in keys))
            for place, entry in self._entries(where, exclusions, "patterns", keys)
        )
        categories = self._strings(where, exclusions, "categories")
        for pattern in patterns:
            if pattern.category not in categories:
                self._report(
                    f"{where}.patterns",
                    f"unknown category {pattern.category!r}, there are {', '.join(categories)}",
                )
            try:
                re.compile(pattern.pattern)
            except re.error as error:
                self._report(f"{where}.patterns", f"{pattern.pattern!r} is no regular expression: {error}")
        return ExclusionPolicy(categories, patterns)

    def _tests(self, table: Table) -> dict[str, tuple[str, ...]]:
        if "tests" not in table:
            return {}
        where, tests = f"{SECTION}.tests", self._table(SECTION, table, "tests")
        return {self._kind(where, kind): self._strings(where, tests, kind) for kind in tests}

    def _entries(self, where: str, table: Table, key: str, known: Sequence[str]) -> list[tuple[str, Table]]:
        """Return the tables of a list, each with its place; a list that is absent has none."""
        entries = table.get(key, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._report(where, f"{key} must be a list of tables")
            return []
        placed = [(f"{where}.{key}.{position}", entry) for position, entry in enumerate(entries, start=1)]
        for place, entry in placed:
            self._check_keys(place, entry, known)
        return placed

    def _check_keys(self, where: str, table: Table, known: Sequence[str]) -> None:
        for key in sorted(table.keys() - set(known)):
            self._report(where, f"unknown key {key!r}, there are {', '.join(known)}")

    def _kind(self, where: str, kind: str) -> str:
        if kind not in self._kinds:
            self._report(where, f"unknown kind {kind!r}, there are {', '.join(self._kinds)}")
        return kind

    def _table(self, where: str, table: Table, key: str) -> Table:
        value = table.get(key)
        if isinstance(value, dict) and value:
            return cast("dict[str, object]", value)
        self._report(where, f"{key} must be a table with entries")
        return {}

    def _strings(self, where: str, table: Table, key: str) -> tuple[str, ...]:
        value = table.get(key)
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return tuple(value)
        self._report(where, f"{key} must be a list of strings with entries")
        return ()

    def _text(self, where: str, table: Table, key: str) -> str:
        value = table.get(key)
        if isinstance(value, str) and value.strip():
            return value
        self._report(where, f"{key} must be a text")
        return ""

    def _percent(self, where: str, table: Table, key: str) -> Fraction:
        number = self._number(where, table, key, "a number from 0 to 100")
        if number > 100:
            self._report(where, f"{key} must be a number from 0 to 100")
        return number

    def _number(self, where: str, table: Table, key: str, wanted: str = "a number not below 0") -> Fraction:
        value = table.get(key)
        # Anything but a number that is finite and not negative; NaN compares false with everything.
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
            # By way of the text: 99.9 in the file means 999/10, not the nearest binary fraction.
            return Fraction(str(value))
        self._report(where, f"{key} must be {wanted}")
        return Fraction(0)

    def _report(self, where: str, problem: str) -> None:
        self.problems.append(f"{self._file_name}: [{where}] {problem}")
