"""What is mutated and how much of it must be noticed, read from ``[tool.testkit.mutation]``.

::

    [tool.testkit.mutation]
    pytest_options = ["-p", "no:randomly"]
    changed = { killed = 80 }

    [tool.testkit.mutation.layers]
    core = { killed = 90 }                  # every mutant of the layer
    worker = { killed = 80, number = 20 }   # as many, drawn by the seed

    [tool.testkit.mutation.suites]
    "tests/integration/test_stores.py" = ["src/outbound/store_*.py"]

``killed`` is per cent, exact. Layers are those of the coverage policy, which says where their files are and
which kinds of test answer for them. ``suites`` are tests of several modules, which these do not name: each
answers for the files of its patterns besides their own tests.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

from testkit.coverage.errors import CoverageInputError

_SECTION = "tool.testkit.mutation"


@dataclass(frozen=True, slots=True)
class Promise:
    """So many per cent of so many mutants are noticed."""

    killed: Fraction
    number: int | None
    """How many are drawn; None takes all."""


@dataclass(frozen=True, slots=True)
class MutationPolicy:
    """The promises by layer, in the order of the file, and that for what changed."""

    layers: Mapping[str, Promise]
    changed: Promise | None
    pytest_options: tuple[str, ...]
    suites: Mapping[str, tuple[str, ...]]
    """Test file to the patterns of the source files that it answers for besides their own tests."""


def load_mutation_policy(pyproject: Path, known_layers: frozenset[str]) -> MutationPolicy:
    """Read the promises.

    Raises:
        CoverageInputError: with every problem there is.
    """
    try:
        document = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CoverageInputError([f"{pyproject}: {error}"]) from error
    section = document.get("tool", {}).get("testkit", {}).get("mutation")
    if not isinstance(section, dict):
        raise CoverageInputError([f"{pyproject}: the table [{_SECTION}] is missing"])
    problems = [
        f"unknown key {key!r}, there are layers, changed, pytest_options, suites"
        for key in sorted(section.keys() - {"layers", "changed", "pytest_options", "suites"})
    ]
    options = section.get("pytest_options", [])
    if not (isinstance(options, list) and all(isinstance(option, str) for option in options)):
        problems.append("pytest_options must be a list of strings")
        options = []
    suites = _suites(section.get("suites", {}), pyproject.parent, problems)
    tables = section.get("layers", {})
    if not isinstance(tables, dict):
        problems.append("layers must be a table")
        tables = {}
    layers = {name: _promise(f"layers.{name}", table, problems) for name, table in tables.items()}
    problems += [
        f"layers.{name}: unknown layer, there are {', '.join(sorted(known_layers))}"
        for name in sorted(layers.keys() - known_layers)
    ]
    changed = _promise("changed", section["changed"], problems) if "changed" in section else None
    if problems:
        raise CoverageInputError([f"{pyproject}: [{_SECTION}] {problem}" for problem in problems])
    return MutationPolicy(layers, changed, tuple(options), suites)


def _suites(table: object, root: Path, problems: list[str]) -> dict[str, tuple[str, ...]]:
    if not isinstance(table, dict):
        problems.append("suites must be a table")
        return {}
    found = {}
    for suite, patterns in cast("dict[str, object]", table).items():
        if not (isinstance(patterns, list) and all(isinstance(pattern, str) for pattern in patterns)):
            problems.append(f"suites.{suite} must be a list of strings")
            continue
        if not (root / suite).is_file():
            problems.append(f"suites.{suite}: there is no such file")
        problems += [
            f"suites.{suite}: no file is like {each}" for each in patterns if not any(root.glob(each))
        ]
        found[suite] = tuple(patterns)
    return found


def _promise(where: str, table: object, problems: list[str]) -> Promise:
    if not isinstance(table, dict):
        problems.append(f"{where} must be a table")
        return Promise(Fraction(0), None)
    entries = cast("dict[str, object]", table)
    problems += [
        f"{where}: unknown key {key!r}, there are killed, number"
        for key in sorted(entries.keys() - {"killed", "number"})
    ]
    killed, number = entries.get("killed"), entries.get("number")
    if not isinstance(killed, int | float) or isinstance(killed, bool) or not 0 <= killed <= 100:
        problems.append(f"{where}: killed must be a number from 0 to 100")
        killed = 0
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
        problems.append(f"{where}: number must be a whole number from 1")
        number = None
    return Promise(Fraction(str(killed)), number)
