"""What the product claims to do, read from ``features.toml``, and the names that belong to each claim.

::

    [[feature]]
    id = "affinity.expiry"
    title = "A client's binding ends when it was unused for its time"
    proof = ["unit", "e2e"]                    # the kinds of test that must prove it
    names = ["setting binding_ttl_secs"]       # what users meet of it

The names that exist are told by the product itself: the command ``inventory`` of
``[tool.testkit.features]`` prints a JSON list of texts such as ``"setting binding_ttl_secs"``, ``"command
edgeproxy run"`` or ``"route GET /health"``. Each must belong to exactly one feature.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testkit.coverage.errors import CoverageInputError

_SECTION = "tool.testkit.features"
_KEYS = ("id", "title", "proof", "names")
_INVENTORY_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Feature:
    """One claim."""

    id: str
    title: str
    proof: tuple[str, ...]
    """Kinds of test that must prove it; empty for what is claimed without one."""
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """Where the claims stand, and the command that tells the names; None where nothing is claimed."""

    file: Path
    inventory: tuple[str, ...]


def load_feature_settings(root: Path, pyproject: Path | None = None) -> FeatureSettings | None:
    """Read ``[tool.testkit.features]`` (``file``, ``inventory``); None without such a table.

    The settings of the repository at ``root`` are in its ``pyproject.toml`` unless another is given; ``file``
    is relative to ``root``.

    Raises:
        CoverageInputError: the table is not as it should be.
    """
    pyproject = pyproject or root / "pyproject.toml"
    section = _read_toml(pyproject).get("tool", {}).get("testkit", {}).get("features")
    if section is None:
        return None
    file, inventory = section.get("file"), section.get("inventory")
    problems = [
        f"unknown key {key!r}, there are file, inventory" for key in section.keys() - {"file", "inventory"}
    ]
    if not isinstance(file, str):
        problems.append("file must name the list of features")
    if not _is_texts(inventory) or not inventory:
        problems.append("inventory must be a command: a list of words")
    if problems:
        raise CoverageInputError([f"{pyproject}: [{_SECTION}] {problem}" for problem in problems])
    return FeatureSettings(root / file, tuple(inventory))


def load_features(file: Path, kinds: Sequence[str]) -> tuple[Feature, ...]:
    """Read the claims.

    Raises:
        CoverageInputError: with every problem: wrong types, unknown kinds, what is there twice.
    """
    tables = _read_toml(file).get("feature")
    if not isinstance(tables, list) or not tables:
        raise CoverageInputError([f"{file}: there must be [[feature]] tables"])
    problems: list[str] = []
    features = [_feature(position, table, kinds, problems) for position, table in enumerate(tables, start=1)]
    problems += _repeated("id", (feature.id for feature in features))
    problems += _repeated("name", (name for feature in features for name in feature.names))
    if problems:
        raise CoverageInputError([f"{file}: {problem}" for problem in problems])
    return tuple(features)


def ask_inventory(root: Path, command: Sequence[str]) -> tuple[str, ...]:
    """Run the product's own inventory; ``python`` as its first word means this interpreter.

    Raises:
        CoverageInputError: it fails, or prints anything but a JSON list of texts.
    """
    words = [sys.executable, *command[1:]] if command[0] == "python" else list(command)
    shown = " ".join(command)
    try:
        ended = subprocess.run(
            words, cwd=root, capture_output=True, text=True, check=True, timeout=_INVENTORY_TIMEOUT_S
        )
        names = json.loads(ended.stdout)
    except subprocess.CalledProcessError as error:
        raise CoverageInputError([f"inventory: {shown}: {error}\n{error.stderr}"]) from error
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise CoverageInputError([f"inventory: {shown}: {error}"]) from error
    if not _is_texts(names):
        raise CoverageInputError([f"inventory: {shown}: printed something else than a list of texts"])
    return tuple(names)


def ownership_problems(features: Iterable[Feature], inventory: Iterable[str]) -> list[str]:
    """Name what belongs to no feature, and what a feature owns that does not exist."""
    owner = {name: feature.id for feature in features for name in feature.names}
    existing = set(inventory)
    return [
        *(f"{name}: belongs to no feature" for name in sorted(existing - owner.keys())),
        *(f"{owner[name]}: owns {name!r}, which does not exist" for name in sorted(owner.keys() - existing)),
    ]


def _feature(position: int, table: object, kinds: Sequence[str], problems: list[str]) -> Feature:
    if not isinstance(table, dict):
        problems.append(f"feature {position} must be a table")
        return Feature("", "", (), ())
    where = table.get("id") if isinstance(table.get("id"), str) else f"feature {position}"
    problems += [
        f"{where}: unknown key {key!r}, there are {', '.join(_KEYS)}"
        for key in sorted(table.keys() - set(_KEYS))
    ]
    problems += [
        f"{where}: {key} must be a text"
        for key in ("id", "title")
        if not isinstance(table.get(key), str) or not table[key]
    ]
    proof, names = table.get("proof", []), table.get("names", [])
    if not _is_texts(proof) or not _is_texts(names):
        problems.append(f"{where}: proof and names must be lists of texts")
        proof = names = []
    problems += [
        f"{where}: unknown kind {kind!r}, there are {', '.join(kinds)}" for kind in proof if kind not in kinds
    ]
    return Feature(str(table.get("id", "")), str(table.get("title", "")), tuple(proof), tuple(names))


def _repeated(what: str, values: Iterable[str]) -> list[str]:
    return [
        f"{what} {value!r} is there {count} times" for value, count in Counter(values).items() if count > 1
    ]


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CoverageInputError([f"{file}: {error}"]) from error
