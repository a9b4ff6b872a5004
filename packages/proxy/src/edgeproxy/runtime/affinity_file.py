"""Affinity over a restart: saved when the proxy ends, restored when it starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from edgeproxy.core.dataplane.affinity import Binding

FILE_NAME = "affinity.msgpack"
_FORMAT = 1


class Bindings(Protocol):
    """The part of the shared segment that is saved."""

    secret: int

    def bindings(self) -> Iterable[tuple[int, Binding]]: ...

    def lock(self, tag: int) -> None: ...

    def unlock(self, tag: int) -> None: ...

    def put(self, tag: int, binding: Binding) -> None: ...


class SavedAffinity(msgspec.Struct, frozen=True, array_like=True):
    """What is on disk. Tags mean something with the secret they were made with only."""

    format: int
    secret: int
    saved_at_s: float
    """Wall clock, since the machine may have been restarted in between."""
    entries: list[tuple[int, int, int, float]]
    """Tag, backend key, country code, seconds since the last use."""


def save(state_dir: Path, bindings: Bindings, now_s: float, wall_s: float, ttl_s: float) -> int:
    """Write every binding still in force; return how many. The old file stays until the new one is whole.

    Raises:
        OSError: the folder cannot be written.
    """
    entries = [
        (tag, binding.backend_key, binding.country_code, now_s - binding.last_use_s)
        for tag, binding in bindings.bindings()
        if now_s - binding.last_use_s < ttl_s
    ]
    state_dir.mkdir(parents=True, exist_ok=True)
    new = state_dir / f"{FILE_NAME}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.msgpack.encode(SavedAffinity(_FORMAT, bindings.secret, wall_s, entries)))
    new.replace(state_dir / FILE_NAME)
    return len(entries)


def load(state_dir: Path) -> SavedAffinity | None:
    """What was saved, ``None`` when nothing was or it is of no use: affinity is worth no failed start."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        saved = msgspec.msgpack.decode((state_dir / FILE_NAME).read_bytes(), type=SavedAffinity)
        if saved.format == _FORMAT:
            return saved
    return None


def restore(saved: SavedAffinity, bindings: Bindings, now_s: float, wall_s: float, ttl_s: float) -> int:
    """Put back what is still in force, the time since it was saved counted; return how many."""
    away_s = max(0.0, wall_s - saved.saved_at_s)
    restored = 0
    for tag, backend_key, code, age_s in saved.entries:
        if age_s + away_s < ttl_s:
            bindings.lock(tag)
            bindings.put(tag, Binding(backend_key, code, now_s - age_s - away_s))  # feature: affinity.saved
            bindings.unlock(tag)
            restored += 1
    return restored
