"""How the demo looks: a live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from e2e.demo.figures import Comparison, total
from e2e.demo.stage import CLIENTS
from e2e.demo.view import Event, View

_PLAIN_SNAPSHOTS: Final = 5

INTRODUCTION: Final = (
    f"{sum(CLIENTS.values())} clients in {len(CLIENTS)} countries connect to one address. "
    "edgeproxy, a POP in region eu, finds out where each is and gives it the best of 3 backends."
)


class Screen(Protocol):
    """What the demo needs of whoever shows it. A context manager around all of it."""

    def typed(self, command: str) -> None:
        """A command was typed."""
        ...

    def show(self, view: View) -> None:
        """This is how things are now."""
        ...

    def happened(self, event: Event) -> None:
        """Something new, which the next view will have among its events."""
        ...

    def summary(self, rows: Sequence[Comparison], findings: Sequence[tuple[bool, str]]) -> None:
        """The end: clients' figures beside the proxy's, and what there is to say, good or bad."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_screen() -> Screen:
    """Choose by what standard output is."""
    can_draw = (
        sys.stdout.isatty()
        and os.environ.get("TERM") not in (None, "dumb", "unknown")
        and sys.stdout.encoding.lower().startswith("utf")
    )
    if not can_draw:
        return PlainScreen()
    from e2e.demo.live import LiveScreen

    return LiveScreen()


class PlainScreen:
    """ASCII lines, for pipes, logs and simple terminals."""

    def __init__(self) -> None:
        self._shown = 0

    def typed(self, command: str) -> None:
        print(f"$ {command}", flush=True)

    def show(self, view: View) -> None:
        if view.elapsed_s < view.duration_s * (self._shown + 1) / _PLAIN_SNAPSHOTS:
            return
        self._shown += 1
        print(f"{view.elapsed_s:6.1f} s")
        for row in view.rows:
            print(
                f"          {row.country} -> {row.backend}  score {row.score:6.2f} ({row.place + ')':<14}"
                f"{row.connections:5} connections, {row.open:2} open, {row.transferred_bytes:8,} bytes"
            )
        sys.stdout.flush()

    def happened(self, event: Event) -> None:
        print(f"{event.at_s:6.1f} s  {event.text}", flush=True)

    def summary(self, rows: Sequence[Comparison], findings: Sequence[tuple[bool, str]]) -> None:
        print("\nCounted by the clients = counted by the proxy:")
        for row in (*rows, total(rows)):
            equations = (
                f"{clients:{width}} {'=' if clients == proxy else '!'} {proxy} {unit}"
                for (clients, proxy), width, unit in zip(
                    zip(row.clients, row.proxy, strict=True),
                    (5, 8, 8),
                    ("connections", "bytes up", "bytes down"),
                    strict=True,
                )
            )
            print(f"  {row.pair.country:>3} -> {row.pair.backend:<10}{', '.join(equations)}")
        print()
        for is_good, finding in findings:
            print(f"{'ok   ' if is_good else 'FAIL '} {finding}")

    def __enter__(self) -> Self:
        print(INTRODUCTION, flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
