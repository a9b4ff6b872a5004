"""What errors say."""

from __future__ import annotations

import ssl

import pytest

from edgeproxy.errors import tls_failure


def refused(**attributes: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL] something (_ssl.c:1006)")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            refused(verify_message="certificate has expired", reason="CERTIFICATE_VERIFY_FAILED"),
            "its certificate is not accepted: certificate has expired",
        ),
        (refused(reason="WRONG_VERSION_NUMBER"), "wrong version number"),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "it left during the handshake"), "it left during the handshake"),
        (ValueError("no name"), "no name"),
    ],
)
def test_why_tls_did_not_come_about_is_told_in_words(error: Exception, why: str) -> None:
    assert tls_failure(error) == why
