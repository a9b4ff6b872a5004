"""The form is that of Cobertura's ``coverage-04.dtd``, written down here element by element."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, parse

import pytest

from packages.testkit.tests.unit.coverage.reports.assessments import EVIL, PLAIN, make_assessment
from testkit.coverage.matrix import Count
from testkit.coverage.reports.cobertura import rate, write_cobertura

# Element: its children in their order (those with a star come any number of times), required attributes,
# attributes that may be missing.
DTD: dict[str, tuple[tuple[str, ...], set[str], set[str]]] = {
    "coverage": (
        ("sources", "packages"),
        {
            *("line-rate", "branch-rate", "lines-covered", "lines-valid", "branches-covered"),
            *("branches-valid", "complexity", "version", "timestamp"),
        },
        set(),
    ),
    "sources": (("source*",), set(), set()),
    "source": ((), set(), set()),
    "packages": (("package*",), set(), set()),
    "package": (("classes",), {"name", "line-rate", "branch-rate", "complexity"}, set()),
    "classes": (("class*",), set(), set()),
    "class": (
        ("methods", "lines"),
        {"name", "filename", "line-rate", "branch-rate", "complexity"},
        set(),
    ),
    "methods": (("method*",), set(), set()),
    "lines": (("line*",), set(), set()),
    "line": (("conditions*",), {"number", "hits"}, {"branch", "condition-coverage"}),
}


def violations(node: Element) -> list[str]:
    """What of ``node`` and below it is against the DTD."""
    children, required, optional = DTD[node.tag]
    found = [f"{node.tag} lacks {name}" for name in sorted(required - node.attrib.keys())]
    found += [f"{node.tag} has {name}" for name in sorted(node.attrib.keys() - required - optional)]
    tags = [child.tag for child in node]
    starred = [name.removesuffix("*") for name in children if name.endswith("*")]
    if starred:
        found += [f"{tag} in {node.tag}" for tag in tags if tag not in starred]
    elif tags != list(children):
        found.append(f"{node.tag} holds {tags}")
    return [*found, *(each for child in node for each in violations(child))]


def written(tmp_path: Path) -> Element:
    write_cobertura(make_assessment(tmp_path), tmp_path / "coverage.xml")
    return parse(tmp_path / "coverage.xml").getroot()


def test_the_form_is_that_of_the_dtd(tmp_path: Path) -> None:
    assert violations(written(tmp_path)) == []


def test_what_is_against_the_dtd_would_be_seen(tmp_path: Path) -> None:
    root = written(tmp_path)
    del root.attrib["version"]
    next(root.iter("line")).set("colour", "red")
    root[1].append(Element("line", {"number": "1", "hits": "1"}))
    next(root.iter("class")).remove(next(root.iter("methods")))
    assert violations(root) == [
        "coverage lacks version",
        "line in packages",
        "class holds ['lines']",
        "line has colour",
    ]


def test_layers_are_packages_and_counts_are_those_of_all_kinds_together(tmp_path: Path) -> None:
    root = written(tmp_path)
    assert [package.get("name") for package in root.iter("package")] == ["core", "shell"]
    assert [each.get("filename") for each in root.iter("class")] == [PLAIN, EVIL]
    assert (root.get("lines-covered"), root.get("lines-valid")) == ("8", "12")
    assert (root.get("line-rate"), root.get("branch-rate")) == ("0.6666", "0.5")
    lines = {line.get("number"): line.attrib for line in next(root.iter("lines"))}
    assert lines["2"] == {"number": "2", "hits": "1", "branch": "true", "condition-coverage": "50% (1/2)"}
    assert lines["4"] == {"number": "4", "hits": "0"}


@pytest.mark.parametrize(
    ("hit", "total", "said"),
    [(999_999, 1_000_000, "0.9999"), (1, 1, "1"), (0, 0, "1"), (0, 3, "0"), (1, 2, "0.5"), (1, 100, "0.01")],
)
def test_a_rate_is_cut_not_rounded(hit: int, total: int, said: str) -> None:
    assert rate(Count(hit, total)) == said
