"""Retries are a share of what is open."""

from __future__ import annotations

import pytest

from edgeproxy.core.dataplane.retry_budget import LEAST_RETRIES, RetryBudget


@pytest.mark.parametrize(
    ("percent", "open_connections", "retries"),
    [(20, 1, LEAST_RETRIES), (20, 19, 3), (20, 20, 4), (20, 1_000, 200), (0, 1_000, 3), (100, 10, 10)],
)
def test_so_many_retries_at_a_time(percent: int, open_connections: int, retries: int) -> None:
    budget = RetryBudget(percent)
    begun = [budget.begin(open_connections) for _ in range(retries + 2)]
    assert begun == [True] * retries + [False] * 2


def test_a_retry_that_has_ended_makes_room_for_another() -> None:
    budget = RetryBudget(20)
    while budget.begin(1):
        pass
    budget.end()
    assert budget.begin(1)
    assert not budget.begin(1)
