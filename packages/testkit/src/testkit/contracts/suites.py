"""The contracts that testkit brings with a reference and planted bugs, by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from testkit.contracts.planted import Suite

_WHERE: Mapping[str, str] = MappingProxyType(
    {
        "state_sync": "testkit.contracts.bugs.state_sync",
        "task_queue": "testkit.contracts.bugs.task_queue",
        "distributed_lock": "testkit.contracts.bugs.distributed_lock",
        "circuit_breaker": "testkit.contracts.bugs.circuit_breaker",
        "connection_pool": "testkit.contracts.bugs.connection_pool",
        "byte_stream": "testkit.contracts.bugs.byte_stream",
        "membership": "testkit.contracts.bugs.membership",
        "event_bus": "testkit.contracts.bugs.event_bus",
        "failover": "testkit.contracts.bugs.failover",
        "health_thresholds": "testkit.contracts.bugs.health_thresholds",
        "rate_limiter": "testkit.contracts.bugs.rate_limiter",
        "change_log": "testkit.contracts.bugs.change_log",
        "lease_store": "testkit.contracts.bugs.lease_store",
        "row_store": "testkit.contracts.bugs.row_store",
        "retry": "testkit.contracts.bugs.retry",
        "time_limits": "testkit.contracts.bugs.time_limits",
        "provisioning": "testkit.contracts.bugs.provisioning",
        "websocket_lifecycle": "testkit.contracts.bugs.websocket_lifecycle",
        "bootstrap": "testkit.contracts.bugs.bootstrap",
    }
)

NAMES = tuple(_WHERE)


def load(name: str) -> Suite:
    """The suite of that name, imported now.

    Raises:
        KeyError: there is none.
    """
    suite: Suite = import_module(_WHERE[name]).SUITE
    return suite
