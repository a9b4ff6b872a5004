from __future__ import annotations

import os

import pytest

from edgeproxy.config import load
from edgeproxy.config.settings import SETTINGS

# The settings of the original, whose environment files must start the proxy: variable to default.
CONTRACT = {
    "LISTEN_ADDR": "0.0.0.0:8080",
    "DB_PATH": "routing.db",
    "REGION": "sa",
    "DB_RELOAD_SECS": "5",
    "GEOIP_PATH": "",
    "BINDING_TTL_SECS": "600",
    "BINDING_GC_INTERVAL_SECS": "60",
    "TLS_ENABLED": "false",
    "TLS_LISTEN_ADDR": "0.0.0.0:8443",
    "TLS_CERT": "",
    "TLS_KEY": "",
    "API_ENABLED": "false",
    "API_LISTEN_ADDR": "0.0.0.0:8081",
    "HEARTBEAT_TTL_SECS": "60",
    "DNS_ENABLED": "false",
    "DNS_LISTEN_ADDR": "0.0.0.0:5353",
    "DNS_DOMAIN": "internal",
    "REPLICATION_ENABLED": "false",
    "REPLICATION_NODE_ID": os.uname().nodename,
    "REPLICATION_GOSSIP_ADDR": "0.0.0.0:4001",
    "REPLICATION_TRANSPORT_ADDR": "0.0.0.0:4002",
    "REPLICATION_BOOTSTRAP_PEERS": "",
    "REPLICATION_DB_PATH": "state.db",
    "REPLICATION_CLUSTER_NAME": "edgeproxy",
    "REPLICATION_GOSSIP_INTERVAL_MS": "1000",
    "REPLICATION_SYNC_INTERVAL_MS": "5000",
    "SHUTDOWN_TIMEOUT_SECS": "30",
    "RATE_LIMIT_ENABLED": "false",
    "RATE_LIMIT_MAX_REQUESTS": "100",
    "RATE_LIMIT_WINDOW_SECS": "1",
    "RATE_LIMIT_BURST": "10",
    "CIRCUIT_BREAKER_ENABLED": "false",
    "CIRCUIT_FAILURE_THRESHOLD": "5",
    "CIRCUIT_SUCCESS_THRESHOLD": "3",
    "CIRCUIT_TIMEOUT_SECS": "30",
    "HEALTH_CHECK_ENABLED": "false",
    "HEALTH_CHECK_INTERVAL_SECS": "5",
    "HEALTH_CHECK_TIMEOUT_SECS": "2",
    "HEALTH_CHECK_TYPE": "tcp",
    "HEALTH_CHECK_PATH": "/health",
    "HEALTH_HEALTHY_THRESHOLD": "2",
    "HEALTH_UNHEALTHY_THRESHOLD": "3",
    "POOL_ENABLED": "false",
    "POOL_MAX_PER_BACKEND": "10",
    "POOL_IDLE_TIMEOUT_SECS": "60",
    "POOL_MAX_LIFETIME_SECS": "300",
    "POOL_CONNECT_TIMEOUT_SECS": "5",
    "METRICS_ENABLED": "false",
    "METRICS_LISTEN_ADDR": "0.0.0.0:9090",
    "METRICS_PATH": "/metrics",
    "CONFIG_WATCH_ENABLED": "false",
    "CONFIG_WATCH_INTERVAL_SECS": "5",
    "POSTGRES_ENABLED": "false",
    "POSTGRES_URL": "",
    "POSTGRES_MAX_CONNECTIONS": "10",
    "POSTGRES_MIN_CONNECTIONS": "2",
    "POSTGRES_CONNECT_TIMEOUT_SECS": "5",
    "POSTGRES_QUERY_TIMEOUT_SECS": "10",
    "POSTGRES_RELOAD_SECS": "5",
}


@pytest.mark.parametrize("suffix", CONTRACT)
def test_every_variable_of_the_original_exists_with_its_default(suffix: str) -> None:
    setting = SETTINGS[suffix.lower()]
    value = getattr(load({}, {}, None), setting.name)
    assert setting.variable == f"EDGEPROXY_{suffix}"
    assert setting.kind.format(value) == CONTRACT[suffix]


@pytest.mark.parametrize("suffix", CONTRACT)
def test_every_variable_of_the_original_may_be_set_to_its_default(suffix: str) -> None:
    assert load({f"EDGEPROXY_{suffix}": CONTRACT[suffix]}, {}, None) == load({}, {}, None)


def test_every_switch_is_named_as_one() -> None:
    switches = {name for name, setting in SETTINGS.items() if setting.is_switch}
    assert switches == {name for name in SETTINGS if name.endswith("_enabled")}


def test_every_description_is_made_of_sentences() -> None:
    for setting in SETTINGS.values():
        assert setting.description[0].isupper() or setting.description[0] == "`", setting.name
        assert setting.description.endswith("."), setting.name


def test_a_secret_is_not_in_the_text_of_the_configuration() -> None:
    config = load({"EDGEPROXY_POSTGRES_URL": "postgres://me:hunter2@db/edge"}, {}, None)
    assert config.postgres_url == "postgres://me:hunter2@db/edge"
    assert "hunter2" not in repr(config)


def test_workers_default_to_the_cores_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 5, 6})
    assert load({}, {}, None).workers == 3


def test_workers_default_to_no_more_than_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(384)))
    assert load({}, {}, None).workers == 256
