from __future__ import annotations

from dataclasses import fields

import pytest

from mock_backend.settings import Options, Settings


def test_every_field_is_an_option() -> None:
    assert [field.name for field in fields(Settings)] == list(Options.__annotations__)


def test_flags_name_what_is_set() -> None:
    settings = Settings(
        id="a", proxy_protocol=True, tcp_echo=0, script="connection 1: reset", admin_port=5, seed=0
    )
    assert settings.flags() == [
        *(
            "-region=eu",
            "-id=a",
            "-host=127.0.0.1",
            "-port=0",
            "-tcp-echo=0",
            "-proxy-protocol",
            "-state=ready",
        ),
        *("-script=connection 1: reset", "-seed=0", "-admin-port=5", "-admin-host=127.0.0.1"),
    ]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tls_cert": "c"}, "give both or neither"),
        ({"tls_key": "k"}, "give both or neither"),
        ({"tls_client_ca": "a"}, "give a certificate and a key"),
        ({"state": "asleep"}, "asleep"),
        ({"script": "x"}, "no colon"),
        ({"faults": "x"}, "no colon"),
        ({"admin_port": 0, "admin_host": "0.0.0.0"}, "give an admin token"),
        ({"admin_port": 0, "admin_host": "::", "admin_token": ""}, "give an admin token"),
        ({"admin_token": "a b"}, "holds blanks"),
        ({"admin_host": "localhost"}, "localhost"),
    ],
)
def test_wrong_setting_is_refused(options: Options, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Settings(**options)


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
def test_loopback_needs_no_token(host: str) -> None:
    assert Settings(admin_port=0, admin_host=host).admin_token is None
