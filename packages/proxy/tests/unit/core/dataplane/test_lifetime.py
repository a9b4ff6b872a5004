"""When a connection has been silent for too long, or open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.dataplane.lifetime import UNLIMITED_LOOK_INTERVAL_S, Lifetimes
from edgeproxy.core.dataplane.session import Event

LIMITS = Lifetimes(idle_s=60.0, half_close_s=5.0, max_age_s=900.0)


@pytest.mark.feature("relay.lifetimes")
@pytest.mark.parametrize(
    ("is_half_closed", "silent_s", "age_s", "event"),
    [
        (False, 0.0, 0.0, None),
        (False, 59.9, 100.0, None),
        (False, 60.0, 100.0, Event.IDLE_TIMEOUT),
        (True, 4.9, 100.0, None),
        (True, 5.0, 100.0, Event.HALF_CLOSE_TIMEOUT),
        (False, 0.0, 899.9, None),
        (False, 0.0, 900.0, Event.MAX_AGE),
        (True, 60.0, 900.0, Event.MAX_AGE),
    ],
)
def test_verdict(is_half_closed: bool, silent_s: float, age_s: float, event: Event | None) -> None:
    assert LIMITS.verdict(is_half_closed, silent_s, age_s) is event


def test_a_half_closed_connection_is_also_idle() -> None:
    assert Lifetimes(idle_s=2.0, half_close_s=5.0).verdict(True, 2.0, 2.0) is Event.IDLE_TIMEOUT
    assert Lifetimes(idle_s=2.0, half_close_s=0.0).verdict(True, 2.0, 2.0) is Event.IDLE_TIMEOUT


def test_a_limit_of_zero_is_none() -> None:
    unlimited = Lifetimes(idle_s=0.0, half_close_s=0.0, max_age_s=0.0)
    assert unlimited.verdict(True, 1e9, 1e9) is None
    assert unlimited.look_interval_s == UNLIMITED_LOOK_INTERVAL_S


def test_the_contract_s_limits_are_the_defaults() -> None:
    assert (Lifetimes().idle_s, Lifetimes().half_close_s, Lifetimes().max_age_s) == (3600.0, 300.0, 0.0)


@given(
    limit_s=st.floats(0.1, 1e6),
    other_s=st.floats(0.1, 1e6),
    last_byte=st.floats(0.0, 1.0),
)
def test_an_idle_connection_ends_between_the_limit_and_a_quarter_more(
    limit_s: float, other_s: float, last_byte: float
) -> None:
    limits = Lifetimes(idle_s=limit_s, half_close_s=other_s)
    interval_s = limits.look_interval_s
    # The last byte moved at ``last_byte`` of an interval, so the look at the interval's end sees it.
    look = 1
    while limits.verdict(False, (look - 1) * interval_s, 0.0) is None:
        look += 1
        if look > 10_000:
            return  # an interval that is tiny against this limit proves nothing more
    silent_s = (look - last_byte) * interval_s
    assert limit_s <= silent_s * (1 + 1e-9)
    assert silent_s <= 1.25 * limit_s * (1 + 1e-9)
