"""How commands put tables and figures on the screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

_PIPED_WIDTH = 160
"""Columns where no terminal says how many there are."""

_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def console() -> Console:
    """Standard output. Brackets and colons in ids and addresses are not markup."""
    made = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = _PIPED_WIDTH
    return made


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, dim: Iterable[bool] = ()) -> Table:
    """A table; a column whose name begins with ``>`` holds numbers. ``dim`` says which rows are faint."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        is_number = name.startswith(">")
        made.add_column(name.removeprefix(">"), no_wrap=True, justify="right" if is_number else "left")
    faint = iter(dim)
    for row in rows:
        made.add_row(*map(str, row), style="dim" if next(faint, False) else None)
    return made


def print_json(value: Any) -> None:
    """Print what came from the proxy as JSON, indented."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def event_line(event: dict[str, Any]) -> str:
    """``2026-01-31 12:00:00  health  a backend is ejected  backend=eu-1 …``, in local time."""
    at = datetime.fromtimestamp(event["at_s"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    fields = " ".join(f"{name}={value}" for name, value in event["fields"].items())
    return f"{at}  {event['topic']}  {event['name']}  {fields}".rstrip()


def size_text(size_bytes: float) -> str:
    """``1.5 MiB``."""
    for unit in _BINARY_UNITS[:-1]:
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} {_BINARY_UNITS[-1]}"


def duration_text(seconds: float) -> str:
    """``3 d 4 h``, ``5 min 6 s``, ``0.7 s``: two units at most."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest_s, "s")]
    first = next(place for place, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2])
