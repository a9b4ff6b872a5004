"""CRC-32C (Castagnoli), the checksum of the PROXY protocol; the standard library has only the other CRC-32.

In plain Python it takes 0.1 µs a byte: 5 to 10 µs for the usual header.
"""

from __future__ import annotations

from typing import Final

_POLYNOMIAL: Final = 0x82F63B78
"""Lowest bit first."""


def _entry(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ _POLYNOMIAL * (index & 1)
    return index


_TABLE: Final = tuple(map(_entry, range(256)))


def crc32c(data: bytes) -> int:
    """The checksum of ``data``, an unsigned 32-bit number."""
    table = _TABLE
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder = remainder >> 8 ^ table[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFFFFFF
