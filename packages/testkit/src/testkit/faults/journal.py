"""What was done to whom, and when: the account that a failing test shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done or seen."""

    at_s: float
    """Since the journal began."""
    what: str
    """``inject``, ``recover``, ``observe``."""
    on: str
    """The link or the node."""
    detail: str

    def __str__(self) -> str:
        return f"{self.at_s:8.3f} s  {self.what:8} {self.on:16} {self.detail}"


class Journal:
    """Entries in the order in which they happened, with the seed that all draws came from."""

    def __init__(self, seed: int, clock: Callable[[], float]) -> None:
        self.seed = seed
        self.entries: list[Entry] = []
        self._clock = clock
        self._began_s = clock()

    def note(self, what: str, on: str, detail: object) -> None:
        self.entries.append(Entry(self._clock() - self._began_s, what, on, str(detail)))

    @property
    def observations(self) -> list[tuple[str, str]]:
        """What was seen, without times: the same on every substrate."""
        return [(entry.on, entry.detail) for entry in self.entries if entry.what == "observe"]

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}", *map(str, self.entries)])

    def write(self, path: Path) -> None:
        """Write it as JSON lines, the first of them with the seed."""
        entries = [
            {"at_s": round(entry.at_s, 6), "what": entry.what, "on": entry.on, "detail": entry.detail}
            for entry in self.entries
        ]
        path.write_text("".join(f"{json.dumps(each)}\n" for each in [{"seed": self.seed}, *entries]))
