"""Which errors of binding are told how; the sockets are in the integration tests."""

from __future__ import annotations

import errno
import os

import pytest

from edgeproxy.inbound.dns_port import _explained


@pytest.mark.parametrize(
    ("code", "port", "transport", "told"),
    [
        (errno.EADDRINUSE, 53, "UDP", "another process has the port (see `ss -ulnp 'sport = :53'`)"),
        (errno.EADDRINUSE, 53, "TCP", "another process has the port (see `ss -tlnp 'sport = :53'`)"),
        (errno.EADDRINUSE, 5353, "UDP", "also that of mDNS (avahi-daemon)"),
        (errno.EADDRNOTAVAIL, 53, "TCP", "no interface of this machine has that address"),
        (errno.EACCES, 53, "TCP", "ports below 1024 need root or CAP_NET_BIND_SERVICE"),
        (errno.ENOBUFS, 53, "UDP", os.strerror(errno.ENOBUFS)),
    ],
)
def test_an_error_is_explained(code: int, port: int, transport: str, told: str) -> None:
    assert told in _explained(OSError(code, os.strerror(code)), port, transport)
