"""Seeds that once showed a defect: ``SEED MAX_NODES`` and, behind ``#``, what it was. They are run always.

A seed means the same history only as long as histories are drawn in the same way. What a seed has shown is
therefore also told by a unit test of its own.
"""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).parent / "regressions.txt"


def kept() -> list[tuple[int, int]]:
    """The seeds kept, each with the greatest number of nodes that it is run with."""
    found = []
    for line in FILE.read_text().splitlines():
        if entry := line.partition("#")[0].split():
            seed, max_nodes = entry
            found.append((int(seed), int(max_nodes)))
    return found


def keep(seed: int, max_nodes: int, why: str) -> None:
    """Keep a seed, unless it is kept already."""
    if (seed, max_nodes) not in kept():
        with FILE.open("a") as lines:
            lines.write(f"{seed} {max_nodes}  # {why}\n")
