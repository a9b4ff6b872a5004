"""How many tests of each kind look at each layer: a test belongs to the layer whose folders it mirrors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from testkit.coverage.features_outcomes import TestOutcome

ACROSS = "across layers"
"""Stories, and checks of a repository as a whole."""


def count_tests(
    layers: Mapping[str, Sequence[str]], outcomes: Mapping[str, Iterable[TestOutcome]]
) -> dict[str, dict[str, int]]:
    """Return layer to kind to the number of its tests; layers in their order, ``ACROSS`` last."""
    counts = {layer: dict.fromkeys(outcomes, 0) for layer in [*layers, ACROSS]}
    folders = _folders(layers)
    for kind, tests in outcomes.items():
        for test in tests:
            counts[_layer_of(test.file, kind, folders)][kind] += 1
    return counts


def _folders(layers: Mapping[str, Sequence[str]]) -> dict[tuple[str, tuple[str, ...]], str]:
    """Package and folder below its import name to the layer that most of the folder's files belong to."""
    found: dict[tuple[str, tuple[str, ...]], Counter[str]] = {}
    for layer, files in layers.items():
        for file in files:
            package, _, rest = file.rpartition("src/")
            folder = PurePosixPath(rest).parts[1:-1]
            # A folder above without files of its own is a layer's when nothing else is in it.
            for depth in range(len(folder) + 1):
                place = found.setdefault((package, folder[:depth]), Counter())
                place[layer] += int(depth == len(folder))
    return {
        place: counter.most_common(1)[0][0]
        for place, counter in found.items()
        if len(counter) == 1 or any(counter.values())
    }


def _layer_of(test: str, kind: str, folders: Mapping[tuple[str, tuple[str, ...]], str]) -> str:
    package, found, rest = test.rpartition(f"tests/{kind}/")
    if not found:
        return ACROSS
    folder = PurePosixPath(rest).parts[:-1]
    for depth in range(len(folder), -1, -1):
        if (layer := folders.get((package, folder[:depth]))) is not None:
            return layer
    return ACROSS
