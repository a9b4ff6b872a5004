"""Inputs that once showed a defect, kept as text: one file each, in a folder named after its target."""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent / "regressions"
_SUFFIX = ".hex"


def kept(folder: Path | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield the name of the target and the input, for each one kept."""
    for file in sorted((folder or FOLDER).glob(f"*/*{_SUFFIX}")):
        yield file.parent.name, bytes.fromhex(file.read_text())


def keep(target: str, data: bytes, folder: Path | None = None) -> Path:
    """Keep ``data``, and return its file."""
    file = (folder or FOLDER) / target / f"{zlib.crc32(data):08x}{_SUFFIX}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(textwrap.wrap(data.hex(" "), 96)) + "\n")
    return file
