"""Which source file belongs to which layer."""

from __future__ import annotations

from pathlib import Path

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.policy import Policy


def assign_sources(root: Path, policy: Policy) -> dict[str, tuple[str, ...]]:
    """Return each layer's files, sorted, as paths relative to ``root`` with forward slashes.

    The file system decides what is counted, not the measurements: a module that no test imported counts too.

    Raises:
        CoverageInputError: a pattern matches nothing, a file has no layer or more than one.
    """
    problems: list[str] = []
    layers_of: dict[str, list[str]] = {}
    for pattern in policy.sources:
        files = _match(root, pattern)
        if not files:
            problems.append(f"sources: {pattern!r} matches no file")
        layers_of |= {file: [] for file in files}
    for layer in policy.layers:
        matched: set[str] = set()
        for pattern in layer.paths:
            files = _match(root, pattern)
            if not files:
                problems.append(f"layer {layer.name}: {pattern!r} matches no file")
            matched |= files
        for file in matched:
            layers_of.setdefault(file, []).append(layer.name)
    for file, names in sorted(layers_of.items()):
        if not names:
            problems.append(f"{file} belongs to no layer")
        elif len(names) > 1:
            problems.append(f"{file} belongs to more than one layer: {', '.join(names)}")
    if problems:
        raise CoverageInputError(problems)
    return {
        layer.name: tuple(sorted(file for file, names in layers_of.items() if names == [layer.name]))
        for layer in policy.layers
    }


def _match(root: Path, pattern: str) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.glob(pattern) if path.is_file()}
