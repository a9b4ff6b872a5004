"""The kernel's part of relaying: program and maps of one worker, and what they say of each promoted socket.

The words of all flows lie in memory that worker and kernel share. The worker's writes need no lock, but what
it concludes from the kernel's words does: any system call on the socket in between waits until the program is
through with what that socket has received, and the words are then settled (:meth:`KernelMaps.settle`).
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from typing import Final

from edgeproxy.worker import bpf
from edgeproxy.worker.kernel_program import FLOW_BYTES, Maps, Word, assemble

PAIRS: Final = 16_384
"""Connections that one worker can have promoted: 2 MiB for their words, 256 KiB for their sockets."""

NEVER: Final = (1 << 64) - 1
"""As a word: beyond every count."""

_NOTICE_BYTES: Final = 16
"""A header of 8 bytes, the slot, padding."""
_BUSY: Final = 1 << 31
_WORDS: Final = FLOW_BYTES // 8
_PAGE_BYTES: Final = mmap.PAGESIZE
_SO_COOKIE, _SO_MEMINFO = 57, 55
_SEND_BUFFER_AT, _QUEUED_AT = 3 * 4, 5 * 4
_ACKED_AT, _TCP_INFO_BYTES = 120, 128
_LOOKS = 8
"""At two counts that must be of one moment: acknowledgements come rarely while a receiver is at rest."""
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")


def cookie_of(sock: socket.socket) -> int:
    """The number by which the kernel knows a socket; no other ever gets it."""
    return int(_U64.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0])


def _acknowledged_bytes(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int(_U64.unpack_from(info, _ACKED_AT)[0])


def _waiting_bytes(sock: socket.socket) -> int:
    """Taken and not acknowledged."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0])


class KernelMaps:
    """Those of one worker."""

    def __init__(self, pairs: int = PAIRS, assemble: Callable[[Maps], bytes] = assemble) -> None:
        """Load the program, for at most ``pairs`` promoted connections.

        Raises:
            OSError: the kernel cannot do this, or this process may not.
        """
        slots = 2 * pairs
        # A slot is told of once until the worker has seen to it; the ring cannot be full.
        self._ring_bytes = max(_PAGE_BYTES, 1 << (slots * _NOTICE_BYTES - 1).bit_length())
        with contextlib.ExitStack() as at_failure:

            def make(kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int = 0) -> int:
                fd = bpf.create_map(kind, key_bytes, value_bytes, entries, flags)
                at_failure.callback(os.close, fd)
                return fd

            self.maps = Maps(
                slots=make(bpf.HASH, 8, 4, slots, bpf.NO_PREALLOC),
                flows=make(bpf.ARRAY, 4, FLOW_BYTES, slots, bpf.MMAPABLE),
                sockets=make(bpf.SOCKMAP, 4, 4, slots),
                notices=make(bpf.RINGBUF, 0, 0, self._ring_bytes),
            )
            program = bpf.load_verdict(assemble(self.maps))
            try:
                bpf.attach_verdict(self.maps.sockets, program)
            finally:
                os.close(program)  # the map holds it
            size = -(-slots * FLOW_BYTES // _PAGE_BYTES) * _PAGE_BYTES
            self._flows = mmap.mmap(self.maps.flows, size)
            self._ring_read = mmap.mmap(self.maps.notices, _PAGE_BYTES)
            self._ring = mmap.mmap(
                self.maps.notices,
                _PAGE_BYTES + 2 * self._ring_bytes,
                prot=mmap.PROT_READ,
                offset=_PAGE_BYTES,
            )
            at_failure.pop_all()
        self._words = memoryview(self._flows).cast("Q")
        self._read_to = memoryview(self._ring_read).cast("Q")
        self._written_to = memoryview(self._ring).cast("Q")
        self._free = list(range(0, slots, 2))

    def fileno(self) -> int:
        """Readable while there are notices."""
        return self.maps.notices

    def take_pair(self) -> int | None:
        """The first of two slots, to be given back by :meth:`give_back`; ``None`` when all are taken."""
        return self._free.pop() if self._free else None

    def give_back(self, pair: int) -> None:
        """Nothing of the pair's sockets is left."""
        self._free.append(pair)

    def words(self, slot: int) -> memoryview:
        """The flow of ``slot``, to be released; see :class:`~edgeproxy.worker.kernel_program.Word`."""
        return self._words[slot * _WORDS : (slot + 1) * _WORDS]

    def insert(self, slot: int, sock: socket.socket) -> int:
        """From now on the program decides about what ``sock`` receives: leave all to the worker, at first.

        Return its cookie. ``sock`` must hold no buffer that was read in part: the program sees whole ones.

        Raises:
            OSError: one of its directions has ended.
        """
        with self.words(slot) as words:
            for word in Word:
                words[word] = 0
            words[Word.NOTICE_AT] = NEVER
        cookie = cookie_of(sock)
        bpf.update(self.maps.slots, cookie, slot)
        try:
            bpf.update(self.maps.sockets, slot, sock.fileno())
        except OSError:
            self.remove(cookie)
            raise
        # The program is not asked for what came before, until something wakes it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        return cookie

    def remove(self, cookie: int) -> None:
        """The socket of this cookie is about to be closed, which takes it out of all other maps."""
        bpf.delete(self.maps.slots, cookie)

    @staticmethod
    def settle(sock: socket.socket) -> None:
        """Wait until the program is through with what ``sock`` has received."""
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)

    @staticmethod
    def written_bytes(sock: socket.socket) -> int:
        """How many bytes ``sock`` has taken, up to a constant; never more than by now."""
        # In this order: what is acknowledged between the two calls is then missed, not counted twice.
        return _acknowledged_bytes(sock) + _waiting_bytes(sock)

    @staticmethod
    def exactly_written_bytes(sock: socket.socket) -> int | None:
        """The same, with nothing missed; ``None`` when that cannot be told now.

        What later counts are compared with must be exact: bytes that it missed would count as taken since.
        """
        acknowledged = _acknowledged_bytes(sock)
        for _ in range(_LOOKS):
            waiting = _waiting_bytes(sock)
            before, acknowledged = acknowledged, _acknowledged_bytes(sock)
            if acknowledged == before:
                return acknowledged + waiting
        return None

    @staticmethod
    def room_bytes(sock: socket.socket) -> int:
        """What the send buffer of ``sock`` can still take, by the kernel's own reckoning."""
        memory = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
        size, queued = _U32.unpack_from(memory, _SEND_BUFFER_AT)[0], _U32.unpack_from(memory, _QUEUED_AT)[0]
        return int(size) - int(queued)

    def notices(self) -> Iterator[int]:
        """Slots whose charge has crossed its line, each of which must be looked at."""
        at, end = self._read_to[0], self._written_to[0]
        while at < end:
            place = _PAGE_BYTES + (at & (self._ring_bytes - 1))
            if _U32.unpack_from(self._ring, place)[0] & _BUSY:
                break  # being written
            slot = _U32.unpack_from(self._ring, place + 8)[0]
            at += _NOTICE_BYTES
            self._read_to[0] = at
            yield slot

    def close(self) -> None:
        """Unload everything; promoted sockets must be closed before."""
        for view in (self._words, self._read_to, self._written_to):
            view.release()
        for memory in (self._flows, self._ring_read, self._ring):
            memory.close()
        for fd in self.maps:
            os.close(fd)
