"""Which source file belongs to which layer, and what other patterns of the policy stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.policy import Policy


@dataclass(frozen=True, slots=True)
class Sources:
    """Files as paths relative to the root with forward slashes, sorted."""

    layers: Mapping[str, Sequence[str]]
    groups: Mapping[str, Sequence[str]]
    critical: frozenset[str]
    """Those in which nothing may be lost."""

    @property
    def files(self) -> list[str]:
        """Every file that counts, layer by layer."""
        return [file for files in self.layers.values() for file in files]


def assign_sources(root: Path, policy: Policy) -> Sources:
    """Return which files each layer and each group consist of.

    The file system decides what is counted, not the measurements: a module that no test imported counts too.

    Raises:
        CoverageInputError: a pattern matches nothing, a file has no layer or more than one.
    """
    problems: list[str] = []
    layers_of: dict[str, list[str]] = {file: [] for file in _match(root, "sources", policy.sources, problems)}
    for layer in policy.layers:
        for file in _match(root, f"layer {layer.name}", layer.paths, problems):
            layers_of.setdefault(file, []).append(layer.name)
    for file, names in sorted(layers_of.items()):
        if not names:
            problems.append(f"{file} belongs to no layer")
        elif len(names) > 1:
            problems.append(f"{file} belongs to more than one layer: {', '.join(names)}")
    known = layers_of.keys()
    groups = {
        group.name: sorted(known & _match(root, f"group {group.name}", group.paths, problems))
        for group in policy.groups
    }
    critical = policy.ratchet.critical if policy.ratchet else ()
    sources = Sources(
        {
            layer.name: sorted(file for file, names in layers_of.items() if names == [layer.name])
            for layer in policy.layers
        },
        groups,
        frozenset(known & _match(root, "ratchet.critical", critical, problems)),
    )
    if problems:
        raise CoverageInputError(problems)
    return sources


def _match(root: Path, what: str, patterns: Iterable[str], problems: list[str]) -> set[str]:
    matched: set[str] = set()
    for pattern in patterns:
        files = {path.relative_to(root).as_posix() for path in root.glob(pattern) if path.is_file()}
        if not files:
            problems.append(f"{what}: {pattern!r} matches no file")
        matched |= files
    return matched
