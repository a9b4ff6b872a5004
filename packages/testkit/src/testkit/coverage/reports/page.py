"""One HTML page that needs nothing beside it: matrix, tests, features, gaps, evolution, every source file.

Tables and pictures are written out; the sources stand in the page as data, and ``page.js`` shows the one
that is asked for. The page is not allowed to load or send anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

from testkit.coverage.assessment import Assessment
from testkit.coverage.failure import Failure
from testkit.coverage.features_matrix import END_TO_END
from testkit.coverage.matrix import Cell, Count, Row
from testkit.coverage.reach import count_reach, kinds_reaching
from testkit.coverage.reports.charts import bars, lines
from testkit.coverage.reports.elements import Node, add, element, text
from testkit.coverage.reports.history import FILE_NAME, Run, read_history
from testkit.coverage.reports.layers_of_tests import count_tests
from testkit.coverage.terminal import format_requirement

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_GAPS = 40
_RUNS = 100
_SHADES = (100, 95, 90, 80, 60, 40)
"""From so many per cent on a cell gets the shade of this place; below the last it gets the one after."""


def write_page(assessment: Assessment, path: Path) -> None:
    """Write the page; the history is the one beside it.

    Raises:
        CoverageInputError: the history is damaged.
    """
    runs = read_history(path.parent / FILE_NAME)[-_RUNS:]
    page = tostring(_page(assessment, runs), encoding="unicode", method="html")
    path.write_text(f"<!DOCTYPE html>\n{page}\n", encoding="utf-8")


def _page(assessment: Assessment, runs: Sequence[Run]) -> Element:
    here = files("testkit.coverage.reports")
    head = element(
        "head",
        {},
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("title", {}, text("Coverage")),
        element("style", {}, text((here / "page.css").read_text(encoding="utf-8"))),
    )
    sections = [
        section
        for title, make in _SECTIONS
        if (section := _section(title, list(make(assessment)))) is not None
    ]
    if len(runs) > 1:
        sections.insert(3, _made("Evolution", [_evolution(runs)]))
    links = element("nav", {}, *(_link(section) for section in sections))
    body = element(
        "body",
        {},
        element("header", {}, element("h1", {}, text("Coverage")), *_verdict(assessment, runs), links),
        element("main", {}, *sections),
        _viewer(),
        _data(assessment),
        element("script", {}, text((here / "page.js").read_text(encoding="utf-8"))),
    )
    return element("html", {"lang": "en"}, head, body)


def _verdict(assessment: Assessment, runs: Sequence[Run]) -> Iterator[Node]:
    failed = len(assessment.failures)
    words = f"{failed} {'failure' if failed == 1 else 'failures'}" if failed else "every gate passes"
    yield element("p", {"class": "verdict bad" if failed else "verdict good"}, text(words))
    overall = assessment.measured.rows[-1].counted
    facts = [f"{count} % of {metric}" for metric, count in overall.metrics()]
    if assessment.features is not None and END_TO_END in assessment.measured.measurements:
        facts.append(f"{assessment.features.green(END_TO_END)} % of features from end to end")
    if runs:
        facts.append(f"{runs[-1].commit[:10]} {_readable(runs[-1].at)}".strip())
    yield element("p", {"class": "facts"}, text(" · ".join(facts)))


def _readable(at: str) -> str:
    """``2026-11-21T16:07:30+00:00`` as ``2026-11-21 16:07 UTC``."""
    return f"{at[:10]} {at[11:16]} UTC"


def _failures(assessment: Assessment) -> Iterator[Node]:
    yield from (_told(failure, "bad") for failure in assessment.failures)
    yield from (_told(warning, "warning") for warning in assessment.warnings)
    for note in assessment.notes:
        yield element("p", {"class": "note"}, text(note))


def _told(failure: Failure, kind: str) -> Element:
    told = element(
        "div",
        {"class": f"told {kind}"},
        element("strong", {}, text(f"{failure.gate}: {failure.subject}")),
        text(f" {failure.verdict}"),
    )
    if failure.places:
        places = [element("li", {}, text(f"{file}: {where}")) for file, where in failure.places.items()]
        summary = element("summary", {}, text(f"{len(places)} files"))
        add(told, element("details", {}, summary, element("ul", {}, *places)))
    return told


def _matrix(assessment: Assessment) -> Iterator[Node]:
    measured = assessment.measured
    broken = {failure.subject.split(" x ")[0] for failure in assessment.failures}
    yield element("p", {}, text("Lines, below them branches and functions, in per cent, rounded down."))
    rows = []
    for row in [*measured.rows, *measured.groups]:
        cells = [_heat(row.by_kind[kind]) for kind in measured.measurements]
        state = "MISSED" if row.name in broken else "met"
        verdict = _cell(state, "bad" if state == "MISSED" else "good")
        required = _cell(format_requirement(row.requirement))
        rows.append([_cell(row.name, "name"), *cells, _heat(row.counted), required, verdict])
    yield _table(["layer", *measured.measurements, "counted", "required", ""], rows, "heat")


def _heat(cell: Cell) -> Element:
    shown = dict(cell.metrics())
    rest = " · ".join(str(count) for metric, count in shown.items() if metric != "lines")
    described = ", ".join(f"{metric} {count.hit} of {count.total}" for metric, count in shown.items())
    # Where a kind of test has nothing to do with a layer there is nothing to be alarmed about.
    lines = shown["lines"]
    attributes = {
        "class": f"shade{_shade(lines)}" if lines.hit or not lines.total else "none",
        "title": described,
    }
    return element("td", attributes, element("b", {}, text(shown["lines"])), element("small", {}, text(rest)))


def _shade(count: Count) -> int:
    if not count.total:
        return 0
    return next((place for place, least in enumerate(_SHADES) if count.percent >= least), len(_SHADES))


def _tests(assessment: Assessment) -> Iterator[Node]:
    if assessment.outcomes:
        counts = count_tests(assessment.measured.sources.layers, assessment.outcomes)
        kinds = list(assessment.outcomes)
        yield _legend(kinds)
        seen = {name: of for name, of in counts.items() if any(of.values())}
        yield bars(seen, "tests of each kind by layer")


def _reach(assessment: Assessment) -> Iterator[Node]:
    measured = assessment.measured
    rows = [[_cell(row.name, "name"), *_reached(row)] for row in measured.rows]
    yield element("p", {}, text("Statements that one kind of test alone reaches, several, or none."))
    kinds = [f"only {kind}" for kind in measured.measurements]
    yield _table(["layer", *kinds, "several", "nothing"], rows)


def _reached(row: Row) -> list[Element]:
    return [_cell(str(number), "number") for number in count_reach(row).values()]


def _features(assessment: Assessment) -> Iterator[Node]:
    if assessment.features is None:
        return
    kinds = list(assessment.measured.measurements)
    if END_TO_END in kinds:
        green = assessment.features.green(END_TO_END)
        words = f"{green} % have an end-to-end proof ({green.hit} of {green.total})."
        yield element("p", {}, text(words))
    rows = []
    for row in assessment.features.rows:
        cells = [_cell(row.feature.id, "name")]
        for kind in kinds:
            proof = row.proofs[kind]
            wanted = kind in row.feature.proof
            shown = "proven" if proof.is_green else "MISSING" if wanted else "-"
            cell = _cell(shown, "good" if proof.is_green else "bad" if wanted else "")
            cell.set("title", text("\n".join(proof.passed) if proof.is_green else proof.lacks))
            cells.append(cell)
        rows.append([*cells, _cell(row.feature.title)])
    yield _table(["feature", *kinds, "what is claimed"], rows)


def _gaps(assessment: Assessment) -> Iterator[Node]:
    rows = [
        [
            _cell(f"{float(gap.score):g}", "number"),
            element("td", {"class": "name"}, _source_link(gap.file, gap.line, f"{gap.file}:{gap.line}")),
            _cell(gap.function),
            *(_cell(str(number), "number") for number in (gap.complexity, gap.uncovered, gap.churn)),
            _cell(gap.where),
        ]
        for gap in assessment.gaps[:_GAPS]
    ]
    if rows:
        words = "By complexity, uncovered branches, changes and the weight of the layer: what to test next."
        yield element("p", {}, text(words))
        head = ["score", "place", "function", "complexity", "uncovered", "changes", "lines and branches"]
        yield _table(head, rows)


def _sources(assessment: Assessment) -> Iterator[Node]:
    measured = assessment.measured
    rows = []
    for row in measured.layers:
        for file in row.files:
            shares = [
                _lines_of(len(of[file].lines_hit), len(of[file].lines)) for of in row.files_by_kind.values()
            ]
            link = element("td", {"class": "name"}, _source_link(file, 0, file))
            rows.append([link, _cell(row.name), *shares])
    hint = "part of a path"
    attributes = {"id": "filter", "type": "search", "placeholder": hint, "aria-label": hint}
    yield element("p", {}, element("input", attributes))
    yield _table(["file", "layer", *measured.measurements], rows, "files")


def _lines_of(hit: int, total: int) -> Element:
    count = Count(hit, total)
    return element("td", {"class": f"number shade{_shade(count)}"}, text(count))


def _exclusions(assessment: Assessment) -> Iterator[Node]:
    rows = [
        [_cell(f"{each.file}:{each.line}", "name"), _cell(each.category), _cell(each.reason)]
        for each in assessment.exclusions
    ]
    if rows:
        yield _table(["left out of the count", "category", "reason"], rows)


_SECTIONS: Sequence[tuple[str, Callable[[Assessment], Iterable[Node]]]] = (
    ("Verdict", _failures),
    ("Layers and kinds", _matrix),
    ("Tests by layer", _tests),
    ("Features", _features),
    ("Gaps", _gaps),
    ("Reach", _reach),
    ("Sources", _sources),
    ("Exclusions", _exclusions),
)


def _evolution(runs: Sequence[Run]) -> Element:
    overall = [list(run.layers.values())[-1] if run.layers else {} for run in runs]
    metrics = [metric for metric in ("lines", "branches") if any(metric in each for each in overall)]
    series: dict[str, list[float | None]] = {
        metric: [_percent(each.get(metric)) for each in overall] for metric in metrics
    }
    series["features from end to end"] = [_percent(run.features) for run in runs]
    series = {name: values for name, values in series.items() if any(value is not None for value in values)}
    captions = [f"{_readable(run.at)} {run.commit[:7]}".strip() for run in runs]
    return element(
        "div", {}, _legend(list(series)), lines(series, captions, "share covered, run by run, in per cent")
    )


def _percent(count: Count | None) -> float | None:
    return float(count.percent) if count is not None and count.total else None


def _legend(names: Sequence[str]) -> Element:
    items = [
        element("span", {}, element("i", {"class": f"swatch s{number}"}), text(f" {name} "))
        for number, name in enumerate(names)
    ]
    return element("p", {"class": "legend"}, *items)


def _section(title: str, content: Sequence[Node]) -> Element | None:
    return _made(title, content) if content else None


def _made(title: str, content: Sequence[Node]) -> Element:
    name = title.lower().replace(" ", "-")
    return element("section", {"id": name}, element("h2", {}, text(title)), *content)


def _link(section: Element) -> Element:
    return element("a", {"href": f"#{section.get('id')}"}, text(section[0].text))


def _table(head: Iterable[str], rows: Iterable[Sequence[Element]], name: str = "") -> Element:
    header = element("tr", {}, *(element("th", {"scope": "col"}, text(title)) for title in head))
    body = element("tbody", {}, *(element("tr", {}, *row) for row in rows))
    table = element("table", {"class": name}, element("thead", {}, header), body)
    return element("div", {"class": "scrolled", "tabindex": "0"}, table)


def _cell(value: str, name: str = "") -> Element:
    return element("td", {"class": name} if name else {}, text(value))


def _source_link(file: str, line: int, shown: str) -> Element:
    return element("a", {"href": "#sources", "data-file": file, "data-line": str(line)}, text(shown))


def _viewer() -> Element:
    close = element("button", {"id": "close", "type": "button"}, text("close"))
    title = element("h2", {"id": "viewed"})
    bar = element("div", {"class": "bar"}, title, close)
    key = element("p", {"id": "key", "class": "legend"})
    return element("dialog", {"id": "viewer"}, bar, key, element("ol", {"id": "code"}))


def _data(assessment: Assessment) -> Element:
    """The sources with, for each statement, a bit for each kind that executed it, and what was not taken."""
    measured = assessment.measured
    kinds = list(measured.measurements)
    sources = {}
    for file in measured.sources.files:
        reached = kinds_reaching(measured.measurements, file)
        sources[file] = {
            "text": (measured.root / file).read_text(encoding="utf-8", errors="replace").splitlines(),
            "reach": {line: sum(1 << kinds.index(kind) for kind in by) for line, by in reached.items()},
            "missed": _missed_branches(assessment, file),
        }
    # Inside of a script nothing is escaped, and only "<" could end it.
    data = json.dumps({"kinds": kinds, "files": sources}, separators=(",", ":")).replace("<", "\\u003c")
    return element("script", {"type": "application/json", "id": "data"}, text(data))


def _missed_branches(assessment: Assessment, file: str) -> dict[int, list[int]]:
    """Line to where it never went on to; negative is out of the function."""
    together = [of[file] for of in assessment.measured.measurements.values()]
    missed = frozenset.intersection(*(each.branches_missed for each in together))
    ran = frozenset().union(*(each.lines_hit for each in together))
    found: dict[int, list[int]] = {}
    for start, end in sorted(missed):
        if start in ran:
            found.setdefault(start, []).append(end)
    return found
