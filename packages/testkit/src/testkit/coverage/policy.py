"""The promises about coverage; :mod:`.policy_reader` reads them from ``[tool.testkit.coverage]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

NOTHING = Fraction(0)


@dataclass(frozen=True, slots=True)
class Requirement:
    """At least so many per cent, reached by all of ``kinds`` together; 0 asks for nothing."""

    kinds: tuple[str, ...]
    lines: Fraction = NOTHING
    branches: Fraction = NOTHING
    functions: Fraction = NOTHING


@dataclass(frozen=True, slots=True)
class Layer:
    """Source files with one promise about them; ``paths`` are glob patterns relative to the repository."""

    name: str
    paths: tuple[str, ...]
    requirement: Requirement
    each_file: Requirement | None = None
    """What every single file has to reach, by the same kinds."""
    cells: tuple[Requirement, ...] = ()
    """What single kinds have to reach on their own."""
    weight: Fraction = Fraction(1)
    """How much a gap here matters beside one elsewhere."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """Something that measures, a container say, and must have left data files of this pattern."""

    name: str
    kind: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Lowering:
    """A recorded reason why something may be covered less than before."""

    what: str
    """A threshold (``layers.core.lines``), a file, or ``FILE::QUALIFIED.NAME`` of a function in it."""
    reason: str


@dataclass(frozen=True, slots=True)
class RatchetPolicy:
    """How far coverage may fall behind the base."""

    critical: tuple[str, ...] = ()
    """Glob patterns of files in which nothing that was covered may be missed."""
    loss: Fraction = NOTHING
    """Of all statements, and of all branches, this share may be lost, in per cent."""
    baseline: str | None = None
    """A committed baseline file, for checkouts that measured nothing yet."""
    lowered: tuple[Lowering, ...] = ()


@dataclass(frozen=True, slots=True)
class NewCodePolicy:
    """What changed since the base is covered to at least so many per cent, each file and each hunk."""

    threshold: Fraction
    tiny: int = 1
    """Hunks and files with fewer statements and branches than this are judged together."""


@dataclass(frozen=True, slots=True)
class ExcludedPattern:
    """Why a pattern of coverage.py's ``exclude_lines``, ``exclude_also`` or ``partial_branches`` is there."""

    pattern: str
    category: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExclusionPolicy:
    """What may be left out of the count."""

    categories: tuple[str, ...]
    patterns: tuple[ExcludedPattern, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """All that is promised. Every file that ``sources`` match belongs to exactly one layer."""

    kinds: tuple[str, ...]
    sources: tuple[str, ...]
    layers: tuple[Layer, ...]
    overall: Requirement
    groups: tuple[Layer, ...] = ()
    """Further sets of files with promises of their own; a file may be in any number of them."""
    data: tuple[DataSource, ...] = ()
    base: tuple[str, ...] = ("origin/HEAD", "origin/main", "main", "origin/master", "master")
    """Branches that changes are held against; the first one that exists counts."""
    slack: Fraction | None = None
    """By how many points coverage may exceed its threshold before raising it is suggested."""
    unstable: str | None = None
    """The file that lists what differs from run to run."""
    ratchet: RatchetPolicy | None = None
    new_code: NewCodePolicy | None = None
    exclusions: ExclusionPolicy | None = None
    tests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Kind to glob patterns of the files and folders with its tests, for runs on demand."""


def thresholds_of(policy: Policy) -> dict[str, Fraction]:
    """Return every threshold above 0 by its place in the settings, ``layers.core.lines`` say."""
    requirements = {"overall": policy.overall}
    for table, layers in (("layers", policy.layers), ("groups", policy.groups)):
        for layer in layers:
            name = f"{table}.{layer.name}"
            requirements[name] = layer.requirement
            if layer.each_file:
                requirements[f"{name}.each_file"] = layer.each_file
            requirements |= {f"{name}.cells.{cell.kinds[0]}": cell for cell in layer.cells}
    thresholds = {
        f"{name}.{metric}": getattr(requirement, metric)
        for name, requirement in requirements.items()
        for metric in ("lines", "branches", "functions")
    }
    if policy.new_code:
        thresholds["new_code.threshold"] = policy.new_code.threshold
    return {name: threshold for name, threshold in thresholds.items() if threshold}
