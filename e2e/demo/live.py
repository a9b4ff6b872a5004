"""The demo as a live table, as wide as the terminal allows."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from e2e.demo.figures import Comparison, total
from e2e.demo.screen import INTRODUCTION
from e2e.demo.view import Event, Row, View

_COUNTRIES: Final = {
    "BR": "Brazil",
    "CA": "Canada",
    "DE": "Germany",
    "FR": "France",
    "JP": "Japan",
    "PT": "Portugal",
    "US": "United States",
}
_COLOURS: Final = ("cyan", "magenta", "yellow")
_WIDE: Final = 79
"""Columns from which on countries are spelled out."""
_MEDIUM: Final = 70
"""Columns below which reasons and bytes are left out, and the summary is stacked."""
_LEGEND: Final = "score = 100 x distance + load, lowest wins   ● = one open connection"


class LiveScreen:
    """A :class:`e2e.demo.screen.Screen` that is drawn anew at each view; the last one stays."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def typed(self, command: str) -> None:
        self._console.print(Text(f"$ {command}", style="dim"))

    def show(self, view: View) -> None:
        if not self._live.is_started:
            self._console.print()
            self._live.start()
        self._live.update(self._frame(view), refresh=True)

    def happened(self, event: Event) -> None:
        """The next frame tells it."""

    def summary(self, rows: Sequence[Comparison], findings: Sequence[tuple[bool, str]]) -> None:
        self._live.stop()
        self._console.print("\nCounted by the clients = counted by the proxy\n", style="bold")
        self._console.print(self._proof(rows))
        self._console.print()
        for is_good, finding in findings:
            mark = Text("✓ ", "bold green") if is_good else Text("✗ ", "bold red")
            self._console.print(mark + Text(finding, "" if is_good else "red"))

    def __enter__(self) -> Self:
        self._console.print(INTRODUCTION + "\n", style="bold")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    # ---- one frame ---------------------------------------------------------------------------

    def _frame(self, view: View) -> RenderableType:
        events = (_line(f"{event.at_s:5.1f} s  {event.text}") for event in view.events)
        return Group(self._clock(view), "", self._table(view), "", _line(_LEGEND, "dim"), *events)

    def _clock(self, view: View) -> RenderableType:
        bar = ProgressBar(
            total=view.duration_s, completed=view.elapsed_s, width=max(8, min(40, self._console.width - 34))
        )
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            Text("edgeproxy demo", "bold"),
            bar,
            Text(f"{view.elapsed_s:4.1f} of {view.duration_s:g} s", "dim"),
        )
        return grid

    def _table(self, view: View) -> Table:
        is_wide, has_room = self._console.width >= _WIDE, self._console.width >= _MEDIUM
        table = _grid("clients in" if is_wide else "from", "", "backend")
        if has_room:
            table.add_column("because", no_wrap=True)
        for heading in ("score", "conns", "bytes") if has_room else ("score", "conns"):
            table.add_column(heading, no_wrap=True, justify="right")
        table.add_column("open now", no_wrap=True)
        colours = {each.backend: colour for each, colour in zip(view.backends, _COLOURS, strict=True)}
        killed = {each.backend for each in view.backends if each.is_killed}
        above = ""
        for row in view.rows:
            country = "" if row.country == above else row.country
            table.add_row(
                _COUNTRIES.get(country, "") if is_wide else country,
                *_route(row.backend, colours[row.backend], row.backend in killed),
                *_figures(row, has_room),
                Text("●" * row.open, colours[row.backend]),
                style="dim" if row.backend in killed else "",
            )
            above = row.country
        return table

    # ---- the summary -------------------------------------------------------------------------

    def _proof(self, rows: Sequence[Comparison]) -> Table:
        has_room = self._console.width >= _MEDIUM
        table = _grid("", "from", "", "backend")
        for heading in ("connections", "bytes up", "bytes down") if has_room else ("clients = proxy",):
            table.add_column(heading, no_wrap=True, justify="right")
        for row in rows:
            table.add_row(*_row_of_proof(row, (row.pair.country, "─▶", row.pair.backend), has_room))
        table.add_row(*_row_of_proof(total(rows), ("all", "", ""), has_room), style="bold")
        return table


def _grid(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, overflow="ellipsis", no_wrap=True)


def _route(backend: str, colour: str, is_killed: bool) -> tuple[Text, Text]:
    if is_killed:
        return Text("─✗", "red"), Text(backend, f"strike {colour}")
    return Text("─▶", "dim"), Text(backend, colour)


def _figures(row: Row, has_room: bool) -> list[str]:
    score, connections = f"{row.score:.2f}", str(row.connections)
    return [row.place, score, connections, f"{row.transferred_bytes:,}"] if has_room else [score, connections]


def _row_of_proof(row: Comparison, route: tuple[str, str, str], has_room: bool) -> list[RenderableType]:
    equations = [_equation(clients, proxy) for clients, proxy in zip(row.clients, row.proxy, strict=True)]
    units = (" conns", " B up", " B down")
    stacked = [equation + Text(unit) for equation, unit in zip(equations, units, strict=True)]
    mark = Text("✓", "green") if row.agrees else Text("✗", "bold red")
    return [mark, *route, *(equations if has_room else [Text("\n").join(stacked)])]


def _equation(clients: int, proxy: int) -> Text:
    agree = clients == proxy
    return Text(f"{clients:,} {'=' if agree else '≠'} {proxy:,}", "" if agree else "bold red")
