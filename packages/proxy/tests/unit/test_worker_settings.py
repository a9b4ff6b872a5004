"""Settings arrive in the frame that starts a worker."""

from __future__ import annotations

import pytest

from edgeproxy.app import _worker_settings
from edgeproxy.config import load
from edgeproxy.core.dataplane.admission import AccessLists
from edgeproxy.core.dataplane.lifetime import Lifetimes


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
    ],
)
def test_a_setting_reaches_the_workers(environ: dict[str, str], field: str, value: object) -> None:
    config = load({f"EDGEPROXY_{name}": text for name, text in environ.items()}, {}, None)
    assert getattr(_worker_settings(config), field) == value
