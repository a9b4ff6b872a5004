"""The test vectors of RFC 3720, section B.4, and the check value of the algorithm."""

from __future__ import annotations

import pytest

from edgeproxy.core.wire.crc32c import crc32c


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_gives_the_published_checksums(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum
