"""``edgeproxy replication``, run in this process."""

from __future__ import annotations

import pytest

from edgeproxy.config import kinds
from packages.proxy.tests.integration.cli.commands import Run

pytestmark = pytest.mark.feature("replication.keys")


def test_a_key_is_printed_alone_and_each_is_another_one(run: Run) -> None:
    done = [run("replication", "key") for _ in range(2)]
    assert [(each.code, each.errors) for each in done] == [(0, [])] * 2
    first, second = (kinds.keys.parse(each.out.rstrip("\n")) for each in done)
    assert len(first) == len(second) == 1
    assert first != second


def test_a_key_is_taken_as_a_setting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    key = run("replication", "key").out.strip()
    monkeypatch.setenv("EDGEPROXY_REPLICATION_KEYS", f"{key},{key}")
    done = run("config", "show")
    assert done.code == 0
    assert key not in done.out
