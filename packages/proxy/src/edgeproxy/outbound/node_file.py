"""What a node remembers beside the routing database: how far numbers and clock have come, who its peers are.

None of it is needed to be right, so the file may be lost: the database holds the greatest stamp that it saw,
peers notice numbers that are in use, bootstrap peers lead to the others. With the file all of that is known
at once: that the database went back while the proxy was down, that stamps must go on above those given
before the wall clock was set back, and where the others are, and whom to wait for.

A file is one line with the checksum of what follows, and msgpack. It is replaced as a whole, so that a crash
leaves the old one or the new one.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import msgspec

from edgeproxy.errors import StoreError


class NodeState(msgspec.Struct, frozen=True):
    """All that is remembered."""

    node: str
    origin: str = ""
    sequence: int = 0
    """The last number of ``origin`` that was given."""
    clock_ms: int = 0
    """High-water mark of the clock; see :class:`edgeproxy.core.replication.clock.Clock`."""
    members: Mapping[str, str] = {}
    """Name to gossip address."""


_DECODER = msgspec.msgpack.Decoder(NodeState)


class NodeFile:
    """The file at ``path``, of this ``node``. ``warn`` is told when what is there cannot be used.

    It may be written from any thread.
    """

    def __init__(self, path: Path, node: str, warn: Callable[[str], None]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._state = self._read(node, warn)

    @property
    def state(self) -> NodeState:
        """What was read, or written last."""
        return self._state

    def _read(self, node: str, warn: Callable[[str], None]) -> NodeState:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return NodeState(node)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be read: {error.strerror}") from error
        checksum, _, packed = content.partition(b"\n")
        try:
            if checksum.decode() != sha256(packed).hexdigest():
                raise ValueError("its checksum does not fit")
            state = _DECODER.decode(packed)
        except (ValueError, msgspec.DecodeError) as error:
            warn(f"{self._path} cannot be used and is replaced: {error}")
            return NodeState(node)
        if state.node != node:
            warn(f"{self._path} is that of {state.node} and is replaced; this POP is {node}")
            return NodeState(node)
        return state

    def write(self, **changes: object) -> None:
        """Remember ``changes`` to :class:`NodeState`; one that changes nothing costs nothing.

        Raises:
            StoreError: the file cannot be written; it is as it was.
        """
        with self._lock:
            state = msgspec.structs.replace(self._state, **changes)
            if state != self._state:
                self._replace(state)
                self._state = state

    def _replace(self, state: NodeState) -> None:
        packed = msgspec.msgpack.encode(state)
        try:
            handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
            aside = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(sha256(packed).hexdigest().encode() + b"\n" + packed)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(self._path)
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror}") from error
