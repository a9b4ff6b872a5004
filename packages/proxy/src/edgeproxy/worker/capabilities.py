"""What a process of root, or one that was given a part of root's powers, does without once it has used them.

By ``capset`` of the C library, for one thread only: a worker has no other.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_TO_READ_FILES: Final = 1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH

_VERSION: Final = 0x20080522
"""Of the structures below: sets of 64 bits in two halves."""


def permitted() -> int:
    """The set that this thread may use, a bit for each capability."""
    status = Path("/proc/thread-self/status").read_text()
    return int(status.partition("CapPrm:")[2].split(maxsplit=1)[0], 16)


def drop() -> None:
    """Give up, for good, all but reading the files that could be read so far.

    Raises:
        OSError: the kernel does not allow even this.
    """
    kept = permitted() & _TO_READ_FILES
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    # Effective and permitted ones are kept; none are inheritable, nor therefore ambient.
    low, high = kept & 0xFFFFFFFF, kept >> 32
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, sets) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
