"""What each part of the control process, and a worker, is given of the settings."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from edgeproxy.app.groundwork import promote_after_turns
from edgeproxy.config import Config
from edgeproxy.core.controlplane.health import HealthSettings
from edgeproxy.core.controlplane.outlier import CircuitSettings
from edgeproxy.core.controlplane.verdicts import VerdictSettings
from edgeproxy.core.dataplane.admission import AccessLists
from edgeproxy.core.dataplane.caps import Caps
from edgeproxy.core.dataplane.identities import BackendCredentials, ClientCertificates, Identity
from edgeproxy.core.dataplane.lifetime import Lifetimes
from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.dataplane.rate_limit import TokenBucket
from edgeproxy.core.dataplane.selection import ANY_APP
from edgeproxy.core.dataplane.waiting import QueueTerms
from edgeproxy.core.dataplane.warm import WarmTerms
from edgeproxy.core.wire.frames import RelayMode, Start, TlsSettings


def listenings(config: Config) -> tuple[Listening, ...]:
    """What is done with clients of each of :func:`addresses`."""
    main = Listening(app=config.app or ANY_APP)
    tls = [replace(main, terminates_tls=True)] if config.tls_enabled else []
    return main, *(each.listening for each in config.listeners), *tls


def worker_settings(config: Config) -> Start:
    """The frame that starts a worker, but for what is no setting: its number, its sockets, certificates."""
    every = {"off": 0, "sampled": config.access_log_sample, "all": 1}[config.access_log]
    return Start(
        worker=0,
        pop_region=config.region,
        listeners=listenings(config),
        app_by_server_name=dict(config.app_by_server_name),
        proxy_protocol_trusted=tuple(map(str, config.proxy_protocol_trusted)),
        access=AccessLists(
            tuple(map(str, config.allow)),
            tuple(map(str, config.deny)),
            config.allow_countries,
            config.deny_countries,
        ),
        region_by_country=config.geography.region_by_country,
        geoip_path=_absolute(config.geoip_path),
        binding_ttl_s=config.binding_ttl_secs,
        relay=RelayMode(config.relay),
        promote_after_turns=promote_after_turns(config),
        connect_timeout_s=config.pool_connect_timeout_secs,
        backend_rules=config.backend_rules,
        retry_budget_percent=config.retry_budget_percent,
        opening_timeout_s=config.opening_timeout_secs,
        lifetimes=Lifetimes(config.idle_timeout_secs, config.half_close_timeout_secs, config.max_age_secs),
        shutdown_timeout_s=config.shutdown_timeout_secs,
        access_log_every=every,
        panic_threshold=panic_threshold(config),
        watch_outcomes=config.circuit_breaker_enabled,
        rate_limit=rate_limit(config),
        caps=caps(config),
        queue=QueueTerms(config.queue_length, config.queue_timeout_secs),
        warm=warm(config),
    )


def tls_settings(
    config: Config,
    identities: tuple[Identity, ...],
    client_authorities: bytes | None,
    backends: tuple[BackendCredentials, ...],
) -> TlsSettings:
    """How a worker does TLS, with what the files hold that the settings name."""
    client_certificates = None
    if client_authorities is not None:
        client_certificates = ClientCertificates(client_authorities, config.tls_client_auth == "required")
    return TlsSettings(
        identities=identities,
        alpn=config.tls_alpn,
        handshake_timeout_s=config.tls_handshake_timeout_secs,
        max_handshakes=config.tls_max_handshakes,
        client_certificates=client_certificates,
        backends=backends,
    )


def rate_limit(config: Config) -> TokenBucket | None:
    """What each client may do; ``None`` when that is not limited."""
    if not config.rate_limit_enabled:
        return None
    return TokenBucket(
        burst=config.rate_limit_burst,
        per_s=config.rate_limit_max_requests / config.rate_limit_window_secs,
    )


def caps(config: Config) -> Caps:
    """How many connections clients may have open."""
    return Caps(config.max_connections, config.max_connections_per_client)


def warm(config: Config) -> WarmTerms | None:
    """Connections with backends that are kept ready; ``None`` for none."""
    if not config.pool_enabled:
        return None
    return WarmTerms(
        max_per_backend=config.pool_max_per_backend,
        per_worker=-(-config.pool_max_per_backend // config.workers),
        idle_s=config.pool_idle_timeout_secs,
        lifetime_s=config.pool_max_lifetime_secs,
    )


def panic_threshold(config: Config) -> float:
    """A share of a pool, from 0 to 1."""
    return config.panic_threshold_percent / 100


def verdict_settings(config: Config) -> VerdictSettings:
    """How backends are judged; neither checks nor circuits when nobody asks for them."""
    checks = HealthSettings(
        interval_s=config.health_check_interval_secs,
        fast_interval_s=config.health_check_fast_interval_secs,
        healthy_threshold=config.health_healthy_threshold,
        unhealthy_threshold=config.health_unhealthy_threshold,
    )
    circuits = CircuitSettings(
        failure_threshold=config.circuit_failure_threshold,
        success_threshold=config.circuit_success_threshold,
        timeout_s=config.circuit_timeout_secs,
    )
    return VerdictSettings(
        checks=checks if config.health_check_enabled else None,
        circuits=circuits if config.circuit_breaker_enabled else None,
        slow_start_s=config.slow_start_secs,
        max_ejected_percent=config.circuit_max_ejected_percent,
        panic_threshold=panic_threshold(config),
    )


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
