"""When a backend counts as healthy, and when it is looked at next.

The original's names for these facts stand in ``docs/health.md``.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.controlplane.health import Health, HealthSettings, Status

REFUSED = "connection refused"


def checked(*results: str | None, **settings: float) -> Health:
    health = Health(HealthSettings(**settings))  # type: ignore[arg-type]
    for why in results:
        health.checked(why)
    return health


def test_the_defaults_are_those_of_the_original() -> None:
    assert HealthSettings() == HealthSettings(
        interval_s=5, fast_interval_s=1, healthy_threshold=2, unhealthy_threshold=3
    )


def test_nothing_is_known_before_the_first_check() -> None:
    health = checked()
    assert (health.status, health.why) == (Status.UNKNOWN, "")


def test_enough_good_checks_make_a_backend_healthy() -> None:
    health = Health(HealthSettings())
    assert [health.checked(None) for _ in range(3)] == [False, True, False]
    assert health.status is Status.HEALTHY


@pytest.mark.feature("health.checks")
def test_enough_bad_checks_make_a_backend_unhealthy_and_the_last_one_says_why() -> None:
    health = Health(HealthSettings())
    assert [health.checked(why) for why in ("a", "b", "c", "d")] == [False, False, True, False]
    assert (health.status, health.why) == (Status.UNHEALTHY, "d")


def test_a_threshold_of_one_changes_at_once() -> None:
    health = Health(HealthSettings(healthy_threshold=1, unhealthy_threshold=1))
    assert [health.checked(why) for why in (None, REFUSED, None)] == [True, True, True]


def test_results_must_come_in_a_row() -> None:
    broken_rows = (None, None, REFUSED, REFUSED, None, REFUSED, REFUSED)
    assert checked(*broken_rows).status is Status.HEALTHY
    assert checked(*broken_rows, REFUSED, None, REFUSED, None).status is Status.UNHEALTHY


@pytest.mark.parametrize(
    ("results", "is_changing"),
    [
        ((), True),
        ((None,), True),
        ((None, None), False),
        ((None, None, REFUSED), True),
        ((None, None, REFUSED, None), False),
        ((REFUSED, REFUSED, REFUSED), False),
        ((REFUSED, REFUSED, REFUSED, None), True),
        ((REFUSED, REFUSED, REFUSED, None, REFUSED), False),
    ],
)
def test_checks_come_faster_while_the_status_is_changing(
    results: tuple[str | None, ...], is_changing: bool
) -> None:
    health = checked(*results)
    assert health.is_changing is is_changing
    assert health.next_interval_s(draw=1.0) == (1.0 if is_changing else 5.0)


def test_other_settings_hold_from_the_next_check_on() -> None:
    health = checked(None, None, REFUSED)
    health.settings = HealthSettings(interval_s=60, fast_interval_s=60, unhealthy_threshold=2)
    assert health.next_interval_s(draw=1.0) == 60
    assert health.checked(REFUSED)


def test_the_fast_interval_is_never_the_longer_one() -> None:
    assert checked(interval_s=0.5).next_interval_s(draw=1.0) == 0.5


@given(draw=st.floats(0, 1, exclude_max=True))
def test_the_jitter_only_shortens(draw: float) -> None:
    assert 4.5 <= checked(None, None).next_interval_s(draw) <= 5.0


def test_jitter_spreads_over_its_range() -> None:
    assert checked(None, None).next_interval_s(0.0) == pytest.approx(4.5)
    assert checked(None, None).next_interval_s(0.5) == pytest.approx(4.75)
