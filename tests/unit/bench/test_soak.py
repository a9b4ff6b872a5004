"""What counts as left behind, and when accounts differ."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bench.soak import Account, Holdings, differences, leaks

BEFORE = Holdings({7: {"socket": 4, "pipe": 2}, 8: {"socket": 3}}, {7: 40 << 20, 8: 20 << 20})


def after(worker: dict[str, int] | None = None, worker_heap_bytes: int = 20 << 20) -> Holdings:
    return Holdings(
        {7: {"socket": 4, "pipe": 2}, 8: worker or {"socket": 3}}, {7: 40 << 20, 8: worker_heap_bytes}
    )


def test_idle_pipes_and_what_the_allocator_keeps_are_no_leaks() -> None:
    assert leaks(BEFORE, after({"socket": 3, "pipe": 32}, worker_heap_bytes=22 << 20), 100_000) == []


@pytest.mark.parametrize(
    ("holdings", "found"),
    [
        (after({"socket": 4}), "process 8: 4 descriptors of kind socket, before 3"),
        (after({"socket": 3, "pipe": 34}), "process 8: 34 descriptors of kind pipe, before 0"),
        (after(worker_heap_bytes=30 << 20), "process 8: memory grew by 105 bytes a connection"),
        (Holdings({7: {"socket": 4}, 9: {}}, {7: 0, 9: 0}), "other processes than before: [7, 8], [7, 9]"),
    ],
)
def test_anything_else_is_one(holdings: Holdings, found: str) -> None:
    assert leaks(BEFORE, holdings, 100_000) == [found]


def stats(**changes: Any) -> dict[str, Any]:
    row = {"opened": 2, "active": 0, "bytes_received": 10, "bytes_sent": 30, **changes}
    return {"traffic": [row], "backends": {"a": 0, "b": changes.get("leases", 0)}, "closes": {"complete": 2}}


ACCOUNT = Account(10, 30, Counter(complete=2))


def test_equal_accounts_do_not_differ() -> None:
    assert differences(stats(), ACCOUNT) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"opened": 3}, "connections opened: 3, expected 2"),
        ({"active": 1}, "connections still open: 1, expected 0"),
        ({"leases": 1}, "leases in the segment: 1, expected 0"),
        ({"bytes_received": 9}, "bytes from clients: 9, expected 10"),
        ({"bytes_sent": 31}, "bytes to clients: 31, expected 30"),
    ],
)
def test_a_byte_a_lease_or_a_connection_more_is_told(changes: dict[str, int], found: str) -> None:
    assert differences(stats(**changes), ACCOUNT) == [found]


def test_endings_of_another_kind_are_told() -> None:
    account = Account(10, 30, Counter(complete=1, client_reset=1))
    (found,) = differences(stats(), account)
    assert found.startswith("endings: ")
