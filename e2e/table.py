"""Which story is told on which substrate, and why not on the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import pytest

SUBSTRATES: Final = ("processes", "containers")

Table = dict[str, dict[str, str]]
"""Story to substrate to what stands there: ``told``, or the reason why it is blank."""


def blanks_of(node: pytest.Item | pytest.Collector) -> Mapping[str, str]:
    """Substrates that a story is not told on, with the reasons that its markers give."""
    return {
        substrate: reason
        for marker in node.iter_markers("blank")
        for substrate, reason in marker.kwargs.items()
    }


def table_of(items: Iterable[pytest.Item]) -> Table:
    """What each story says about each substrate; one that says nothing about one has nothing there."""
    table: Table = {}
    for item in items:
        row = table.setdefault(_name_of(item), {})
        row.update(blanks_of(item))
        callspec = getattr(item, "callspec", None)
        told_on = callspec.params.get("substrate") if callspec is not None else None
        if told_on is None:
            told_on = "containers" if "world" in getattr(item, "fixturenames", ()) else "processes"
        row[told_on] = "told"
    return table


def print_stories(items: Iterable[pytest.Item]) -> None:
    """Print the table, and the reasons for its blanks below it."""
    table = table_of(items)
    width = max(map(len, table))
    reasons: list[str] = []
    print(f"\n{'story':{width}}  {'  '.join(SUBSTRATES)}")
    for name, row in sorted(table.items()):
        cells = []
        for substrate in SUBSTRATES:
            what = row.get(substrate, "?")
            if what != "told" and what not in reasons:
                reasons.append(what)
            cells.append(f"{'x' if what == 'told' else reasons.index(what) + 1:<{len(substrate)}}")
        print(f"{name:{width}}  {'  '.join(cells)}")
    for number, reason in enumerate(reasons, start=1):
        print(f"({number}) {reason}")


def _name_of(item: pytest.Item) -> str:
    file = item.path.stem.removeprefix("test_").replace("_", " ")
    name = str(getattr(item, "originalname", item.name)).removeprefix("test_").replace("_", " ")
    return f"{file}: {name}"
