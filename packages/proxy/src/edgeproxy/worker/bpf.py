"""bpf(2) without a library: the few calls that a relay in the kernel needs.

What ``union bpf_attr`` of linux/bpf.h says, packed by hand; all numbers are of its enumerations.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import Final

_SYSCALL: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280}

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD, _PROG_ATTACH = 0, 1, 2, 3, 5, 8

HASH, ARRAY, SOCKMAP, RINGBUF = 1, 2, 15, 27
NO_PREALLOC, MMAPABLE = 1 << 0, 1 << 10
_SK_SKB, _SK_SKB_STREAM_VERDICT = 14, 5

_LOG_BYTES = 64 << 10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong]
_libc.syscall.restype = ctypes.c_long


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None or sys.byteorder != "little":
        raise OSError(f"bpf(2) is not known on {platform.machine()}")
    # Aligned, as the kernel reads whole words; it refuses anything but zeros behind what a command takes.
    words = (ctypes.c_uint64 * (-(-len(attributes) // 8)))()
    ctypes.memmove(words, attributes, len(attributes))
    result = int(_libc.syscall(number, command, ctypes.addressof(words), len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def create_map(kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int = 0) -> int:
    """Make a map and return its descriptor, which is closed on exec.

    Raises:
        OSError: the kernel lacks this kind, or this process the privilege.
    """
    return _bpf(_MAP_CREATE, struct.pack("=5I", kind, key_bytes, value_bytes, entries, flags))


def update(map_fd: int, key: int, value: int) -> None:
    """Set the entry ``key`` of a map whose keys and values are whole numbers of at most 8 bytes.

    Raises:
        OSError: the map is full, or does not take this value.
    """
    pair = (ctypes.c_uint64 * 2)(key, value)
    at = ctypes.addressof(pair)
    _bpf(_MAP_UPDATE, struct.pack("=IxxxxQQQ", map_fd, at, at + 8, 0))


def lookup(map_fd: int, key: int) -> int | None:
    """The entry ``key`` of such a map, ``None`` if there is none."""
    pair = (ctypes.c_uint64 * 2)(key, 0)
    at = ctypes.addressof(pair)
    try:
        _bpf(_MAP_LOOKUP, struct.pack("=IxxxxQQ", map_fd, at, at + 8))
    except FileNotFoundError:
        return None
    return int(pair[1])


def delete(map_fd: int, key: int) -> None:
    """Remove the entry ``key`` of such a map.

    Raises:
        OSError: it is not there.
    """
    name = ctypes.c_uint64(key)
    _bpf(_MAP_DELETE, struct.pack("=IxxxxQ", map_fd, ctypes.addressof(name)))


def load_verdict(code: bytes) -> int:
    """Load a program that says where the bytes of a socket go, and return its descriptor.

    Raises:
        OSError: this process lacks the privilege, or the kernel refuses the program; the last words of its
            verifier are in the message.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    license_ = ctypes.create_string_buffer(b"GPL")  # some helpers are for such programs only
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        *(_SK_SKB, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(license_)),
        *(1, _LOG_BYTES, ctypes.addressof(log), 0, 0),
        *(b"edgeproxy", 0, _SK_SKB_STREAM_VERDICT),
    )
    try:
        return _bpf(_PROG_LOAD, attributes)
    except OSError as error:
        said = log.value.decode(errors="replace").strip().splitlines()
        raise OSError(error.errno, "; ".join([str(error.strerror), *said[-3:]])) from None


def attach_verdict(map_fd: int, program_fd: int) -> None:
    """Let the program speak for all sockets of the map that come from now on.

    Raises:
        OSError: the map takes no program.
    """
    _bpf(_PROG_ATTACH, struct.pack("=4I", map_fd, program_fd, _SK_SKB_STREAM_VERDICT, 0))
