"""A comment for a pull request: the verdict first, then what it rests on, folded away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from testkit.coverage.assessment import Assessment
from testkit.coverage.failure import Failure
from testkit.coverage.features_matrix import END_TO_END
from testkit.coverage.terminal import gap_table, matrix_table

_MARKUP = re.compile(r"[\\`*_\[\]<>|&~]")
_GAPS = 10
_LISTED = 50
"""A host cuts off longer comments; what is beyond is counted."""


def write_markdown(assessment: Assessment, path: Path) -> None:
    """Write ``coverage.md``."""
    path.write_text("\n".join(_lines(assessment)) + "\n", encoding="utf-8")


def _lines(assessment: Assessment) -> Iterator[str]:
    measured, failures = assessment.measured, assessment.failures
    yield "# Coverage"
    yield ""
    yield f"**{len(failures)} failures.**" if failures else "**Every gate passes.**"
    if assessment.features is not None and END_TO_END in measured.measurements:
        green = assessment.features.green(END_TO_END)
        yield f"{green} % of features have an end-to-end proof ({green.hit} of {green.total})."
    yield from _listed("Failures", failures, is_open=True)
    yield ""
    yield "Lines / branches / functions, in per cent, rounded down."
    yield ""
    rows = [*measured.rows, *measured.groups]
    yield from _table(matrix_table(rows, [failure.subject for failure in failures]))
    if assessment.new_code:
        yield from _folded("New code", _table([["file", "covered"], *_new_code(assessment)]))
    if assessment.gaps:
        yield from _folded("What to test next", _table(gap_table(assessment.gaps[:_GAPS])))
    yield from _listed("Warnings", assessment.warnings)
    if assessment.notes:
        yield from _folded("Notes", [f"- {_escaped(note)}" for note in assessment.notes])


def _new_code(assessment: Assessment) -> Iterator[list[str]]:
    for changed in assessment.new_code:
        count = changed.whole.count
        yield [changed.whole.name, f"{count} % ({count.hit} of {count.total})"]


def _listed(title: str, failures: Sequence[Failure], *, is_open: bool = False) -> Iterator[str]:
    if not failures:
        return
    # Indented, not fenced: a name with backticks cannot end it.
    shown = [f"    {line}" for failure in failures[:_LISTED] for line in str(failure).splitlines()]
    if len(failures) > _LISTED:
        shown.append(f"    and {len(failures) - _LISTED} more")
    yield from _folded(title, shown, is_open=is_open)


def _folded(title: str, lines: Iterable[str], *, is_open: bool = False) -> Iterator[str]:
    yield ""
    yield f"<details{' open' if is_open else ''}><summary>{title}</summary>"
    yield ""
    yield from lines
    yield ""
    yield "</details>"


def _table(table: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = table
    for line in (head, ["---"] * len(head), *body):
        yield f"| {' | '.join(map(_escaped, line))} |"


def _escaped(value: str) -> str:
    return " ".join(_MARKUP.sub(lambda found: f"&#{ord(found[0])};", value).split())
