"""Parts of root's powers: kept for what needs them, given up when that is done.

By ``prctl`` and ``capset`` of the C library, for the calling thread; the programs that it starts inherit.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

DAC_OVERRIDE, DAC_READ_SEARCH, NET_ADMIN, BPF = (1 << number for number in (1, 2, 12, 39))

FOR_THE_KERNEL_RELAY: Final = NET_ADMIN | BPF

_TO_READ_FILES: Final = DAC_OVERRIDE | DAC_READ_SEARCH

_VERSION: Final = 0x20080522
"""Of the structures below: sets of 64 bits in two halves."""
_SET_KEEPCAPS, _CAP_AMBIENT, _CAP_AMBIENT_RAISE = 8, 47, 2


def permitted() -> int:
    """The set that this thread may use, a bit for each capability."""
    status = Path("/proc/thread-self/status").read_text()
    return int(status.partition("CapPrm:")[2].split(maxsplit=1)[0], 16)


def drop() -> None:
    """Give up, for good, all but reading the files that could be read so far.

    Raises:
        OSError: the kernel does not allow even this.
    """
    _set(permitted() & _TO_READ_FILES, inheritable=0)


def keep_on_change_of_user() -> None:
    """Let the next change from root to another user leave what is permitted as it is."""
    _call("prctl", _SET_KEEPCAPS, 1, 0, 0, 0)


def hand_down(wanted: int) -> None:
    """Have nothing but ``wanted``, as far as it is permitted, and let programs started from now on have it.

    Raises:
        OSError: the kernel does not allow it.
    """
    kept = permitted() & wanted
    _set(kept, inheritable=kept)
    for number in range(kept.bit_length()):
        if kept >> number & 1:
            _call("prctl", _CAP_AMBIENT, _CAP_AMBIENT_RAISE, number, 0, 0)


def _set(kept: int, inheritable: int) -> None:
    """Have ``kept`` effective and permitted."""
    halves = [each for shift in (0, 32) for each in (kept >> shift, kept >> shift, inheritable >> shift)]
    sets = (ctypes.c_uint32 * 6)(*(half & 0xFFFFFFFF for half in halves))
    _call("capset", (ctypes.c_uint32 * 2)(_VERSION, 0), sets)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
