"""Retries are a share of the connections that are open or have come lately."""

from __future__ import annotations

import pytest

from edgeproxy.core.dataplane.retry_budget import LEAST_RETRIES, WINDOW_S, RetryBudget


def begun(budget: RetryBudget, open_connections: int, now_s: float = 0.0) -> int:
    """How many retries are allowed at a time."""
    count = 0
    while budget.begin(open_connections, now_s):
        count += 1
    return count


@pytest.mark.parametrize(
    ("percent", "open_connections", "retries"),
    [(20, 1, LEAST_RETRIES), (20, 19, 3), (20, 20, 4), (20, 1_000, 200), (0, 1_000, 3), (100, 10, 10)],
)
def test_so_many_retries_at_a_time(percent: int, open_connections: int, retries: int) -> None:
    assert begun(RetryBudget(percent), open_connections) == retries


def test_a_retry_that_has_ended_makes_room_for_another() -> None:
    budget = RetryBudget(20)
    begun(budget, 1)
    budget.end()
    assert begun(budget, 1) == 1


@pytest.mark.parametrize(
    ("now_s", "retries"),
    [
        (0.0, 200),
        (WINDOW_S - 0.1, 200),
        (WINDOW_S, 200),
        (2 * WINDOW_S - 0.1, 200),
        (2 * WINDOW_S, LEAST_RETRIES),
        (100 * WINDOW_S, LEAST_RETRIES),
    ],
)
def test_connections_that_came_lately_count_although_they_have_ended(now_s: float, retries: int) -> None:
    budget = RetryBudget(20)
    for _ in range(1_000):
        budget.came(0.0)
    assert begun(budget, 1, now_s) == retries


def test_two_windows_count_together() -> None:
    budget = RetryBudget(100)
    for _ in range(10):
        budget.came(0.0)
    for _ in range(20):
        budget.came(WINDOW_S)
    assert begun(budget, 0, WINDOW_S) == 30


def test_those_that_are_open_are_not_counted_twice() -> None:
    budget = RetryBudget(100)
    for _ in range(10):
        budget.came(0.0)
    assert begun(budget, 10) == 10
