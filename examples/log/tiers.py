"""Objects in three tiers: a few in memory, more in files, all of them in an object store.

What is put is in the store before it counts as put. What is read comes from the nearest tier that has it and
is in memory from then on; what memory has no room for goes to the files, and what those have none for is
only in the store. Last used goes last.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHECKSUM_BYTES = 4


@dataclass
class TierCounts:
    """What one tier has been asked for."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0


class Tiers:
    """``s3`` is a client of boto3. Objects do not change: each version has a key of its own."""

    def __init__(
        self, s3: Any, bucket: str, folder: Path, *, most_in_memory: int = 100, most_in_files: int = 1000
    ) -> None:
        """``folder`` holds the files and nothing else; what it holds already is used."""
        self.memory, self.files, self.store = TierCounts(), TierCounts(), TierCounts()
        self.stored_bytes = 0
        """What this one has put into the store, to be paid for."""
        self._s3 = s3
        self._bucket = bucket
        self._folder = folder
        self._most_in_memory = most_in_memory
        self._most_in_files = most_in_files
        self._in_memory: OrderedDict[str, bytes] = OrderedDict()
        found = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        self._in_files = OrderedDict.fromkeys(bytes.fromhex(path.name).decode() for path in found)

    def put(self, key: str, data: bytes) -> None:
        """Keep an object."""
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=data)
        self.stored_bytes += len(data)
        if key in self._in_files:
            del self._in_files[key]
            self._path(key).unlink(missing_ok=True)
        self._keep(key, data)

    def get(self, key: str) -> bytes:
        """Return an object.

        Raises:
            KeyError: there is none.
        """
        found = self._from_memory(key)
        if found is None:
            found = self._from_files(key)
        if found is None:
            found = self._from_store(key)
        self._keep(key, found)
        return found

    def _from_memory(self, key: str) -> bytes | None:
        return _counted(self.memory, self._in_memory.get(key))

    def _from_files(self, key: str) -> bytes | None:
        if key not in self._in_files:
            return _counted(self.files, None)
        del self._in_files[key]
        path = self._path(key)
        try:
            written = path.read_bytes()
        except FileNotFoundError:
            return _counted(self.files, None)
        path.unlink()
        checksum, data = written[:_CHECKSUM_BYTES], written[_CHECKSUM_BYTES:]
        # It is only a copy: what is damaged is as good as missing.
        return _counted(self.files, data if checksum == _checksum(data) else None)

    def _from_store(self, key: str) -> bytes:
        try:
            data: bytes = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            self.store.misses += 1
            raise KeyError(key) from None
        self.store.hits += 1
        return data

    def _keep(self, key: str, data: bytes) -> None:
        self._in_memory[key] = data
        self._in_memory.move_to_end(key)
        if len(self._in_memory) > self._most_in_memory:
            self.memory.evictions += 1
            self._to_files(*self._in_memory.popitem(last=False))

    def _to_files(self, key: str, data: bytes) -> None:
        self._path(key).write_bytes(_checksum(data) + data)
        self._in_files[key] = None
        if len(self._in_files) > self._most_in_files:
            self.files.evictions += 1
            self._path(self._in_files.popitem(last=False)[0]).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / key.encode().hex()


def _counted(counts: TierCounts, found: bytes | None) -> bytes | None:
    if found is None:
        counts.misses += 1
    else:
        counts.hits += 1
    return found


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES)
