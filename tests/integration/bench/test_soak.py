"""``./dev soak`` in small, and that it finds what it is for."""

from __future__ import annotations

import pytest

from bench import soak
from bench.soak import main

pytestmark = pytest.mark.usefixtures("unmeasured")


def test_nothing_is_left_of_connections_of_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--connections", "60", "--talks", "0", "--workers", "1"]) == 0, capsys.readouterr().out
    assert "nothing is left of them" in capsys.readouterr().out


def test_nothing_is_left_of_talks_that_the_kernel_relays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--connections", "0", "--talks", "20", "--workers", "1"]) == 0, capsys.readouterr().out
    told = capsys.readouterr().out
    assert "20 promoted" in told or "no connections for the kernel to relay" in told


def test_a_byte_that_the_accounts_do_not_share_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgetful(streams: soak.Streams, account: soak.Account) -> None:
        await soak.exchange(streams, account)
        account.sent_bytes -= 1

    monkeypatch.setattr(soak, "MIX", ((forgetful, False),))
    monkeypatch.setattr(soak, "_ACCOUNTS_TIMEOUT_S", 0.5)
    assert main(["--connections", "1", "--talks", "0", "--workers", "1"]) == 1
    assert "bytes from clients" in capsys.readouterr().out
