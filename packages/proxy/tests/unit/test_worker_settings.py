"""Settings arrive in the frame that starts a worker."""

from __future__ import annotations

import pytest

from edgeproxy.app import _worker_settings
from edgeproxy.config import load
from edgeproxy.core.dataplane.admission import AccessLists
from edgeproxy.core.dataplane.lifetime import Lifetimes
from edgeproxy.core.dataplane.rate_limit import TokenBucket


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
    assert getattr(_worker_settings(config), field) == value
