"""What the workers of a POP must agree on: connections per backend, affinity, and what clients take up.

One memory segment (a memfd), created by the control process and mapped by every worker. It outlives
workers, so neither a crash nor a replacement loses a binding or leaves a lease behind.

**Connections** are a matrix of workers by slots. Each worker writes its own row alone and the sum over the
rows is the POP's count, so counting needs no lock and a dead worker's leases are cleared by zeroing
its row. Rows are not numbered by place, since during an upgrade the workers of two versions count, and there
may be another upgrade before the first one's predecessor is done: a control process claims as many free ones
as it has workers, and a row is taken while it or the row's worker, each by a lock, holds it.

A place under a ``hard_limit`` is different: reading the sum and adding to it must be one step for all
workers, so it is taken under a lock. (Taking the lock only near the limit would be cheaper and not exact: a
worker that was descheduled between its look and its write can be many places late.) Whoever changes a count
writes the slot to a ring of its own, from which the others learn what to look at again; who falls behind a
whole ring looks at everything.

**Bindings** stand in a set-associative table: a bucket of eight, chosen by the tag; in a full bucket
the least recently used goes. A tag is cleared before its entry is rewritten and set last, so that a
worker killed in between leaves an absent binding, never a mixed one.

**Trials** are what a backend's half-open circuit still lets through, a number for each slot. The control
process grants them, workers take them one by one under the slot's lock.

Behind them stand the clients' token buckets (:mod:`~edgeproxy.worker.client_buckets`) and open connections
(:mod:`~edgeproxy.worker.places`), who waits (:mod:`~edgeproxy.worker.shared_queue`), and how many
connections are kept warm (:mod:`~edgeproxy.worker.warm_counts`). What a worker has of its own there goes
with its row.

Locks are byte ranges of the segment (``fcntl.lockf``, 1.3 µs a pair): the kernel releases them when
the holder dies. They belong to the process, so this object must be the only one in its process that
ever closes a descriptor of the segment.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
from collections.abc import Collection, Iterator, Sequence

from edgeproxy.core.dataplane.affinity import Binding
from edgeproxy.errors import EdgeproxyError
from edgeproxy.worker import client_buckets, places, shared_queue, warm_counts
from edgeproxy.worker.client_buckets import SET_BYTES, WAYS, ClientBuckets
from edgeproxy.worker.places import SharedPlaces
from edgeproxy.worker.shared_queue import SharedQueue
from edgeproxy.worker.warm_counts import WarmCounts

MAX_SLOTS = 65_536
_LAYOUT = 4
MIN_ROWS = 64
"""Enough for several versions of a few workers each; a row nobody uses costs no memory."""
_PAGE = 4096
_RING = 4096
_WAYS = 8
_WORDS_PER_BUCKET = 4 * _WAYS  # tags, backend keys, times of last use, countries
_WORD_BYTES = 8
_WARM_BYTES = 4  # a backend's warm connections in one worker
_LOCKS = 1024
_CLIENT_LOCKS = _LOCKS + MAX_SLOTS
_QUEUE_LOCK = _CLIENT_LOCKS + client_buckets.LOCKS
_PLACE_LOCKS = _QUEUE_LOCK + 1
# Far beyond what is mapped, which a lock need not be.
_DIRECTORY_LOCK = 1 << 48
_OWNER_LOCKS = 1 << 49  # held by the control process that claimed the row
_USER_LOCKS = 1 << 50  # held by the worker that counts in it
_MASK_63 = (1 << 63) - 1

# Words of the header page.
_H_LAYOUT, _H_ROWS, _H_BUCKETS, _H_SECRET, _H_EPOCH, _H_CLIENT_SETS, _H_DIRECTORY = range(7)


class SharedState:
    """The segment as one process sees it; ``worker`` is the row this process counts in.

    Implements :class:`edgeproxy.core.dataplane.dispatch.Bindings` and ``Leases``. The control
    process, which counts nothing, leaves ``worker`` at ``None`` and claims the rows of its workers.
    """

    def __init__(self, fd: int, worker: int | None = None) -> None:
        """Map the segment behind ``fd``, which stays the caller's and must stay open.

        Raises:
            EdgeproxyError: another version, with another layout, has made it.
        """
        self._fd = fd
        self._map = mmap.mmap(fd, 0)
        view = memoryview(self._map)
        header = view[:_PAGE].cast("Q")
        if header[_H_LAYOUT] != _LAYOUT:
            raise EdgeproxyError(
                f"the shared segment has layout {header[_H_LAYOUT]} and this version needs {_LAYOUT}: "
                "restart the proxy instead of upgrading it"
            )
        self._header = header
        self._rows = header[_H_ROWS]
        self._buckets = header[_H_BUCKETS]
        self.secret: int = header[_H_SECRET]
        self._in_use = view[_PAGE : _PAGE + self._rows]
        at = 2 * _PAGE
        counts = view[at : at + self._rows * MAX_SLOTS * _WORD_BYTES].cast("q")
        self._counts = counts
        at += len(counts) * _WORD_BYTES
        ring_bytes = (1 + _RING) * _WORD_BYTES
        self._rings = [
            view[at + row * ring_bytes : at + (row + 1) * ring_bytes].cast("Q") for row in range(self._rows)
        ]
        at += self._rows * ring_bytes
        table_bytes = self._buckets * _WORDS_PER_BUCKET * _WORD_BYTES
        self._table = view[at : at + table_bytes].cast("Q")
        self._times = view[at : at + table_bytes].cast("d")
        at += table_bytes
        self._trials = view[at : at + MAX_SLOTS * _WORD_BYTES].cast("Q")
        at += MAX_SLOTS * _WORD_BYTES
        clients_bytes = header[_H_CLIENT_SETS] * SET_BYTES
        self.clients = ClientBuckets(fd, view[at : at + clients_bytes], _CLIENT_LOCKS)
        """The token buckets of the rate limit."""
        at = _whole_pages(at + clients_bytes)
        row_parts = [(2 * _PAGE, MAX_SLOTS * _WORD_BYTES)]

        def part(first_bytes: int, row_bytes: int) -> tuple[memoryview, memoryview]:
            """What all rows share, and what each has of its own, zeroed with the row."""
            nonlocal at
            start = at + first_bytes
            shared, at = view[at:start], start + self._rows * row_bytes
            row_parts.append((start, row_bytes))
            return shared, view[start:at]

        self.places = SharedPlaces(
            fd, *part(places.TAGS_BYTES, places.ROW_BYTES), self.rows, worker, _PLACE_LOCKS
        )
        """Open connections of clients, as the caps count them."""
        _, pages = part(0, shared_queue.ROW_BYTES)
        self.queue = SharedQueue(fd, pages, self.rows, worker, _QUEUE_LOCK)
        """Who waits for a place on a backend."""
        self.warm = WarmCounts(
            fd, *part(warm_counts.ROOM_BYTES, MAX_SLOTS * _WARM_BYTES), MAX_SLOTS, self.rows, worker, _LOCKS,
            self.connections,
        )  # fmt: skip
        """Connections with backends that no client has used yet."""
        self._row_parts = row_parts
        self._worker = worker
        self._claimed: set[int] = set()
        if worker is not None:
            self._ring = self._rings[worker]
            self._row = worker * MAX_SLOTS
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, _USER_LOCKS + worker)
            if not self._in_use[worker]:
                with self._directory():
                    self._in_use[worker] = 1
        self._seen: dict[int, int] = {}
        self._look_at_rows()
        self._seen = {row: ring[0] for row, ring in self._others}
        self._seen_epoch = header[_H_EPOCH]

    # ---- rows --------------------------------------------------------------------------------

    def claim_rows(self, count: int) -> list[int]:
        """Take ``count`` free rows for the workers of this control process, until it ends.

        Raises:
            EdgeproxyError: there are not so many.
        """
        with self._directory():
            free = [row for row, used in enumerate(self._in_use) if not used]
            if len(free) < count:
                raise EdgeproxyError(
                    f"the shared segment has room for {self._rows} workers and {len(free)} of that is free: "
                    f"for EDGEPROXY_WORKERS={count} wait until former versions have drained, or restart"
                )
            for row in free[:count]:
                self._in_use[row] = 1
                fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _OWNER_LOCKS + row)
        self._claimed.update(free[:count])
        return free[:count]

    def reclaim_rows(self) -> int:
        """Free the rows of control processes and workers that have both ended; return how many."""
        ended = [
            row
            for row, used in enumerate(self._in_use)
            if used and row not in self._claimed and self._is_abandoned(row)
        ]
        if ended:
            with self._directory():
                for row in ended:
                    self._clear(row)
                    self._in_use[row] = 0
        return len(ended)

    def _is_abandoned(self, row: int) -> bool:
        for lock in (_OWNER_LOCKS + row, _USER_LOCKS + row):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, lock)
            except OSError:
                return False
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, lock)
        return True

    @contextlib.contextmanager
    def _directory(self) -> Iterator[None]:
        """Change which rows there are, or clear some, and have everybody look again."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _DIRECTORY_LOCK)
        try:
            yield
            self._header[_H_DIRECTORY] += 1
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _DIRECTORY_LOCK)

    def _look_at_rows(self) -> None:
        self._directory_seen = self._header[_H_DIRECTORY]  # first: what changes meanwhile is seen next time
        rows = [row for row, used in enumerate(self._in_use) if used]
        self._rows_used = rows
        self._row_offsets = [row * MAX_SLOTS for row in rows]
        self._others = [(row, self._rings[row]) for row in rows if row != self._worker]
        # All that is in the ring of a row seen for the first time may be new.
        self._seen = {row: self._seen.get(row, 0) for row, _ in self._others}

    def rows(self) -> Sequence[int]:
        """Those that are in use."""
        if self._header[_H_DIRECTORY] != self._directory_seen:
            self._look_at_rows()
        return self._rows_used

    # ---- connections -------------------------------------------------------------------------

    def connections(self, slot: int) -> int:
        """The POP's open connections to the backend of ``slot``."""
        if self._header[_H_DIRECTORY] != self._directory_seen:
            self._look_at_rows()
        counts = self._counts
        total = 0
        for row in self._row_offsets:
            total += counts[row + slot]
        return total

    def acquire(self, slot: int, hard_limit: int) -> bool:
        """Count one more connection, unless the POP would then exceed ``hard_limit`` (0: no limit)."""
        if not hard_limit:
            self._count(slot, 1)
            return True
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _LOCKS + slot)
        try:
            if self.connections(slot) >= hard_limit:
                return False
            self._count(slot, 1)
            return True
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _LOCKS + slot)

    def acquire_trial(self, slot: int, hard_limit: int) -> bool:
        """Count one more connection and take it from the slot's trial; false when nothing is left of that,
        or the POP would exceed ``hard_limit``."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _LOCKS + slot)
        try:
            if not self._trials[slot] or (hard_limit and self.connections(slot) >= hard_limit):
                return False
            self._trials[slot] -= 1
            self._count(slot, 1)
            return True
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _LOCKS + slot)

    def grant_trial(self, slot: int, connections: int) -> None:
        """Let so many connections be taken with :meth:`acquire_trial`, in place of those that were left."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _LOCKS + slot)
        self._trials[slot] = connections
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _LOCKS + slot)

    def release(self, slot: int) -> None:
        """Count one connection less."""
        self._count(slot, -1)

    def changed_slots(self) -> Collection[int] | None:
        """Slots whose count other processes changed since the last call; ``None``: any may have."""
        changed: set[int] | None = set()
        epoch = self._header[_H_EPOCH]
        if epoch != self._seen_epoch:
            self._seen_epoch = epoch
            changed = None
        if self._header[_H_DIRECTORY] != self._directory_seen:
            self._look_at_rows()
        for worker, ring in self._others:
            head = ring[0]
            seen = self._seen[worker]
            if head != seen:
                self._seen[worker] = head
                if changed is not None and head - seen < _RING:
                    changed.update([ring[1 + position % _RING] for position in range(seen, head)])
                # The writer waits for nobody: what it has overwritten since, or is just overwriting, is lost.
                if ring[0] - seen >= _RING:
                    changed = None
        return changed

    def _count(self, slot: int, change: int) -> None:
        self._counts[self._row + slot] += change
        ring = self._ring
        head = ring[0]
        ring[1 + head % _RING] = slot
        ring[0] = head + 1  # last: a reader that sees the new head finds the slot behind it

    def clear_worker(self, worker: int) -> None:
        """Give back all that a worker had which is dead, and tell the others to look again."""
        with self._directory():
            self._clear(worker)

    def _clear(self, worker: int) -> None:
        for start, row_bytes in self._row_parts:
            # Zeroes it in one step, and needs no memory for pages that nobody has touched.
            self._map.madvise(mmap.MADV_REMOVE, start + worker * row_bytes, row_bytes)
        self._header[_H_EPOCH] += 1

    # ---- affinity ----------------------------------------------------------------------------

    def lock(self, tag: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, tag % self._buckets % _LOCKS)

    def unlock(self, tag: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, tag % self._buckets % _LOCKS)

    def get(self, tag: int) -> Binding | None:
        """The binding of ``tag``, expired or not; the caller holds the lock."""
        base = tag % self._buckets * _WORDS_PER_BUCKET
        table = self._table
        tags = table[base : base + _WAYS].tolist()
        if tag not in tags:
            return None
        at = base + tags.index(tag)
        return Binding(table[at + _WAYS], table[at + 3 * _WAYS], self._times[at + 2 * _WAYS])

    def put(self, tag: int, binding: Binding) -> None:
        """Store ``binding``; in a full bucket the least recently used goes. The caller holds the lock."""
        base = tag % self._buckets * _WORDS_PER_BUCKET
        table = self._table
        tags = table[base : base + _WAYS].tolist()
        if tag in tags:
            way = tags.index(tag)
        elif 0 in tags:
            way = tags.index(0)
        else:
            times = self._times[base + 2 * _WAYS : base + 3 * _WAYS].tolist()
            way = times.index(min(times))
        at = base + way
        table[at] = 0
        table[at + _WAYS] = binding.backend_key
        self._times[at + 2 * _WAYS] = binding.last_use_s
        table[at + 3 * _WAYS] = binding.country_code
        table[at] = tag

    def discard(self, tag: int) -> None:
        """Clear the binding of ``tag``, if there is one; the caller holds the lock."""
        base = tag % self._buckets * _WORDS_PER_BUCKET
        tags = self._table[base : base + _WAYS].tolist()
        if tag in tags:
            self._table[base + tags.index(tag)] = 0

    def bindings(self) -> Iterator[tuple[int, Binding]]:
        """Every binding with its tag. One bucket is locked at a time, and none while yielding."""
        for bucket in range(self._buckets):
            yield from self._bucket(bucket)

    def sweep(self, oldest_s: float, start: int, count: int) -> int:
        """Clear bindings last used before ``oldest_s`` in ``count`` buckets from ``start``; say how many."""
        cleared = 0
        for bucket in range(start, min(start + count, self._buckets)):
            base = bucket * _WORDS_PER_BUCKET
            if not any(self._table[base : base + _WAYS]):
                continue
            self.lock(bucket)
            try:
                for at in range(base, base + _WAYS):
                    if self._table[at] and self._times[at + 2 * _WAYS] < oldest_s:
                        self._table[at] = 0
                        cleared += 1
            finally:
                self.unlock(bucket)
        return cleared

    @property
    def buckets(self) -> int:
        """Number of buckets of the binding table."""
        return self._buckets

    def _bucket(self, bucket: int) -> list[tuple[int, Binding]]:
        base = bucket * _WORDS_PER_BUCKET
        if not any(self._table[base : base + _WAYS]):
            return []
        self.lock(bucket)
        try:
            tags = self._table[base : base + _WAYS].tolist()
            found = [(tag, self.get(tag)) for tag in tags if tag]
            return [(tag, binding) for tag, binding in found if binding is not None]
        finally:
            self.unlock(bucket)


def has_capacities(fd: int, affinity_capacity: int, clients_capacity: int) -> bool:
    """Whether the segment behind ``fd`` was made with these capacities, which it keeps for its life."""
    with mmap.mmap(fd, _PAGE) as page, memoryview(page) as view, view.cast("Q") as header:
        return (header[_H_BUCKETS], header[_H_CLIENT_SETS]) == _sets(affinity_capacity, clients_capacity)


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _sets(affinity_capacity: int, clients_capacity: int) -> tuple[int, int]:
    return max(1, -(-affinity_capacity // _WAYS)), -(-clients_capacity // WAYS)


def create_segment(
    workers: int, affinity_capacity: int, secret: int | None = None, clients_capacity: int = 0
) -> int:
    """Make an empty segment and return its descriptor (close-on-exec; pass it on by number).

    The capacities, of bindings and of clients' token buckets, are rounded up to whole sets of eight. Pages
    nobody touches cost no memory. ``secret`` is given when bindings of an earlier run are to be restored.
    """
    buckets, client_sets = _sets(affinity_capacity, clients_capacity)
    rows = max(MIN_ROWS, 4 * workers)
    words = rows * (MAX_SLOTS + 1 + _RING) + buckets * _WORDS_PER_BUCKET + MAX_SLOTS
    size = _whole_pages(2 * _PAGE + words * _WORD_BYTES + client_sets * SET_BYTES)
    size += places.TAGS_BYTES + warm_counts.ROOM_BYTES
    size += rows * (places.ROW_BYTES + shared_queue.ROW_BYTES + MAX_SLOTS * _WARM_BYTES)
    fd = os.memfd_create("edgeproxy-shared", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    with mmap.mmap(fd, _PAGE) as page, memoryview(page) as view, view.cast("Q") as header:
        header[_H_LAYOUT] = _LAYOUT
        header[_H_ROWS] = rows
        header[_H_BUCKETS] = buckets
        header[_H_CLIENT_SETS] = client_sets
        header[_H_SECRET] = secrets.randbits(63) if secret is None else secret & _MASK_63
    return fd
