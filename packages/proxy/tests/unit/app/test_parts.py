"""Settings arrive at the parts of the control process and in the frame that starts a worker."""

from __future__ import annotations

import msgspec
import pytest

from edgeproxy.app.parts import tls_settings, verdict_settings, worker_settings
from edgeproxy.config import load
from edgeproxy.core.controlplane.health import HealthSettings
from edgeproxy.core.controlplane.outlier import CircuitSettings
from edgeproxy.core.controlplane.verdicts import VerdictSettings
from edgeproxy.core.dataplane.admission import AccessLists
from edgeproxy.core.dataplane.caps import Caps
from edgeproxy.core.dataplane.lifetime import Lifetimes
from edgeproxy.core.dataplane.rate_limit import TokenBucket
from edgeproxy.core.dataplane.waiting import QueueTerms
from edgeproxy.core.dataplane.warm import WarmTerms
from edgeproxy.core.wire.frames import RelayMode


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        (
            {"IDLE_TIMEOUT_SECS": "60", "HALF_CLOSE_TIMEOUT_SECS": "5", "MAX_AGE_SECS": "900"},
            "lifetimes",
            Lifetimes(60.0, 5.0, 900.0),
        ),
        (
            {"ALLOW": "192.0.2.0/24", "DENY": "::1", "ALLOW_COUNTRIES": "de,FR", "DENY_COUNTRIES": "GB"},
            "access",
            AccessLists(("192.0.2.0/24",), ("::1/128",), ("DE", "FR"), ("GB",)),
        ),
        ({"RETRY_BUDGET_PERCENT": "35"}, "retry_budget_percent", 35),
        ({}, "promote_after_turns", 0),
        ({"RELAY": "kernel"}, "relay", RelayMode.KERNEL),
        ({"RELAY": "kernel"}, "promote_after_turns", 32),
        ({"RELAY": "kernel", "RELAY_KERNEL_TURNS": "7"}, "promote_after_turns", 7),
        ({"RELAY_KERNEL_ALLOWED": "yes", "RELAY_KERNEL_TURNS": "9"}, "promote_after_turns", 9),
        ({"RELAY": "splice", "RELAY_KERNEL_ALLOWED": "yes"}, "promote_after_turns", 0),
        ({}, "caps", Caps()),
        ({"MAX_CONNECTIONS": "900", "MAX_CONNECTIONS_PER_CLIENT": "7"}, "caps", Caps(900, 7)),
        ({"QUEUE_TIMEOUT_SECS": "9"}, "queue", QueueTerms(0, 9.0)),
        ({"QUEUE_LENGTH": "100"}, "queue", QueueTerms(100, 5.0)),
        ({"POOL_MAX_PER_BACKEND": "4"}, "warm", None),
        (
            {"POOL_ENABLED": "1", "WORKERS": "4"},
            "warm",
            WarmTerms(max_per_backend=10, per_worker=3, idle_s=60.0, lifetime_s=300.0),
        ),
        (
            {
                "POOL_ENABLED": "1",
                "WORKERS": "2",
                "POOL_MAX_PER_BACKEND": "4",
                "POOL_IDLE_TIMEOUT_SECS": "8",
                "POOL_MAX_LIFETIME_SECS": "9",
            },
            "warm",
            WarmTerms(max_per_backend=4, per_worker=2, idle_s=8.0, lifetime_s=9.0),
        ),
        ({"PANIC_THRESHOLD_PERCENT": "25"}, "panic_threshold", 0.25),
        ({"CIRCUIT_BREAKER_ENABLED": "1"}, "watch_outcomes", True),
        ({"HEALTH_CHECK_ENABLED": "1"}, "watch_outcomes", False),
        ({"RATE_LIMIT_BURST": "20"}, "rate_limit", None),
        (
            {
                "RATE_LIMIT_ENABLED": "1",
                "RATE_LIMIT_BURST": "20",
                "RATE_LIMIT_MAX_REQUESTS": "90",
                "RATE_LIMIT_WINDOW_SECS": "60",
            },
            "rate_limit",
            TokenBucket(burst=20, per_s=1.5),
        ),
    ],
)
def test_a_setting_reaches_the_workers(environ: dict[str, str], field: str, value: object) -> None:
    config = load({f"EDGEPROXY_{name}": text for name, text in environ.items()}, {}, None)
    assert getattr(worker_settings(config), field) == value


def test_what_a_frame_takes_for_granted_is_what_the_settings_say_by_default() -> None:
    config = load({}, {}, None)
    for frame in (worker_settings(config), tls_settings(config, (), None, ())):
        for field in msgspec.structs.fields(frame):
            if field.default is not msgspec.NODEFAULT:
                assert getattr(frame, field.name) == field.default, field.name


def settings(**environ: str) -> VerdictSettings:
    return verdict_settings(load({f"EDGEPROXY_{name}": text for name, text in environ.items()}, {}, None))


def test_everything_is_off_by_default_and_the_rest_as_documented() -> None:
    assert settings() == VerdictSettings(
        checks=None, circuits=None, slow_start_s=30, max_ejected_percent=10, panic_threshold=0.5
    )


def test_switched_on_they_have_the_defaults_of_the_original() -> None:
    on = settings(HEALTH_CHECK_ENABLED="1", CIRCUIT_BREAKER_ENABLED="1")
    assert (on.checks, on.circuits) == (HealthSettings(), CircuitSettings())


def test_checks_take_their_settings() -> None:
    on = settings(
        HEALTH_CHECK_ENABLED="1",
        HEALTH_CHECK_INTERVAL_SECS="20",
        HEALTH_CHECK_FAST_INTERVAL_SECS="3",
        HEALTH_HEALTHY_THRESHOLD="4",
        HEALTH_UNHEALTHY_THRESHOLD="5",
    )
    assert on.checks == HealthSettings(
        interval_s=20, fast_interval_s=3, healthy_threshold=4, unhealthy_threshold=5
    )
    assert on.circuits is None


def test_circuits_take_their_settings() -> None:
    on = settings(
        CIRCUIT_BREAKER_ENABLED="1",
        CIRCUIT_FAILURE_THRESHOLD="7",
        CIRCUIT_SUCCESS_THRESHOLD="8",
        CIRCUIT_TIMEOUT_SECS="9.5",
        CIRCUIT_MAX_EJECTED_PERCENT="25",
    )
    assert on.circuits == CircuitSettings(failure_threshold=7, success_threshold=8, timeout_s=9.5)
    assert on.max_ejected_percent == 25
    assert on.checks is None


def test_recovery_and_panic_take_their_settings() -> None:
    chosen = settings(SLOW_START_SECS="0", PANIC_THRESHOLD_PERCENT="0")
    assert (chosen.slow_start_s, chosen.panic_threshold) == (0, 0)
