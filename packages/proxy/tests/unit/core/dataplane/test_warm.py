"""What is kept ready for one backend: how much, which first, and for how long."""

from __future__ import annotations

import pytest

from edgeproxy.core.dataplane.warm import RETRY_AFTER_S, Stock, WarmTerms
from edgeproxy.core.model import GOOD, Backend, Verdict

BACKEND = Backend("a", "web", "eu", "DE", "192.0.2.1", 80, True, 1, 1, 0)
TERMS = WarmTerms(max_per_backend=10, per_worker=3)


@pytest.fixture
def stock() -> Stock[str]:
    return Stock(5, BACKEND)


def test_the_latest_is_taken_first(stock: Stock[str]) -> None:
    stock.ready = dict.fromkeys("abc")
    assert [stock.take() for _ in range(4)] == ["c", "b", "a", None]


def test_what_is_under_way_counts_and_is_not_taken(stock: Stock[str]) -> None:
    stock.under_way["a"] = None
    assert stock.take() is None
    assert len(stock) == 1
    assert stock.missing(TERMS, 0.0) == 2


def test_no_more_is_missing_than_a_worker_may_have(stock: Stock[str]) -> None:
    assert stock.missing(TERMS, 0.0) == 3
    stock.ready = dict.fromkeys("abcde")
    assert stock.missing(TERMS, 0.0) == 0


def test_after_a_failure_nothing_is_missing_for_a_while(stock: Stock[str]) -> None:
    stock.failed(10.0)
    assert stock.missing(TERMS, 10.0) == 0
    assert stock.missing(TERMS, 9.99 + RETRY_AFTER_S) == 0
    assert stock.missing(TERMS, 10.0 + RETRY_AFTER_S) == 3


def test_what_is_not_ready_yet_goes_first_and_then_the_oldest(stock: Stock[str]) -> None:
    stock.ready = dict.fromkeys("ab")
    stock.under_way = dict.fromkeys("c")
    gone = []
    while (item := stock.dispensable()) is not None:
        gone.append(item)
        stock.remove(item)
    assert gone == ["c", "a", "b"]
    assert len(stock) == 0


@pytest.mark.parametrize(
    ("changed", "verdict", "suits"),
    [
        ({}, GOOD, True),
        ({"weight": 9, "hard_limit": 7}, GOOD, True),
        ({"host": "192.0.2.2"}, GOOD, False),
        ({"port": 81}, GOOD, False),
        ({"healthy": False}, GOOD, False),
        ({}, Verdict(is_good=False), False),
    ],
)
def test_it_is_good_for_the_same_address_while_clients_are_sent_there(
    stock: Stock[str], changed: dict[str, object], verdict: Verdict, suits: bool
) -> None:
    values = dict(zip(BACKEND.__struct_fields__, BACKEND.__class__.__reduce__(BACKEND)[1], strict=True))
    assert stock.suits(Backend(**{**values, **changed}), verdict) is suits
