"""Cobertura's XML, which CI systems read: the form of ``coverage-04.dtd``, a package for each layer.

Rates are decimals from 0 to 1, cut after four digits so that 1 is written only for all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from time import time
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from testkit.coverage.assessment import Assessment
from testkit.coverage.matrix import Count
from testkit.coverage.measurement import FileMeasurement, union


def write_cobertura(assessment: Assessment, path: Path) -> None:
    """Write ``coverage.xml``; all kinds of test together."""
    measured = assessment.measured
    together = union(measured.measurements.values())
    root = Element("coverage", _totals(together.values()))
    root.set("complexity", "0")
    root.set("version", "testkit")
    root.set("timestamp", str(int(time() * 1000)))
    SubElement(SubElement(root, "sources"), "source").text = str(measured.root)
    packages = SubElement(root, "packages")
    for layer, files in measured.sources.layers.items():
        own = {file: together[file] for file in files}
        package = SubElement(packages, "package", {"name": layer, **_rates(own.values()), "complexity": "0"})
        classes = SubElement(package, "classes")
        for file, entry in own.items():
            _add_class(classes, file, entry)
    indent(root, " ")
    ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _add_class(classes: Element, file: str, measured: FileMeasurement) -> None:
    attributes = {"name": Path(file).stem, "filename": file, **_rates([measured]), "complexity": "0"}
    element = SubElement(classes, "class", attributes)
    SubElement(element, "methods")
    lines = SubElement(element, "lines")
    branches: dict[int, list[bool]] = {}
    for branch in sorted(measured.branches):
        branches.setdefault(branch[0], []).append(branch in measured.branches_hit)
    for number in sorted(measured.lines):
        line = SubElement(
            lines, "line", {"number": str(number), "hits": str(int(number in measured.lines_hit))}
        )
        if taken := branches.get(number):
            count = Count(sum(taken), len(taken))
            line.set("branch", "true")
            line.set("condition-coverage", f"{int(count.percent)}% ({count.hit}/{count.total})")


def _totals(files: Collection[FileMeasurement]) -> dict[str, str]:
    counts = _counts(files)
    totals = {
        f"{metric}-{what}": str(number)
        for metric, count in counts.items()
        for what, number in (("covered", count.hit), ("valid", count.total))
    }
    return {**totals, **_rates(files)}


def _rates(files: Iterable[FileMeasurement]) -> Mapping[str, str]:
    counts = _counts(files)
    return {"line-rate": rate(counts["lines"]), "branch-rate": rate(counts["branches"])}


def _counts(files: Iterable[FileMeasurement]) -> Mapping[str, Count]:
    every = list(files)
    return {
        "lines": Count(sum(len(file.lines_hit) for file in every), sum(len(file.lines) for file in every)),
        "branches": Count(
            sum(len(file.branches_hit) for file in every), sum(len(file.branches) for file in every)
        ),
    }


def rate(count: Count) -> str:
    """Return a share as a decimal from 0 to 1, four digits at most."""
    whole, digits = divmod(10_000 * count.hit // count.total if count.total else 10_000, 10_000)
    return f"{whole}.{digits:04}".rstrip("0").rstrip(".")
