"""Every setting, defined once: loading, flags, ``config show`` and the reference page read this.

The field ``listen_addr`` is ``EDGEPROXY_LISTEN_ADDR`` in the environment, ``listen_addr`` in the TOML
file and ``--listen-addr`` on the command line.
"""

# setting() makes dataclass fields; no value is shared between instances.
# ruff: noqa: RUF009

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy.config import kinds
from edgeproxy.config.definitions import Computed, Section, setting, settings_of
from edgeproxy.config.kinds import Address, RegionalAddress
from edgeproxy.config.listeners import Listener
from edgeproxy.core.dataplane.backend_rules import BackendRule
from edgeproxy.core.geography import Geography

if TYPE_CHECKING:
    from edgeproxy.config.kinds import Network

LISTENING = Section("Listening and processes")
ROUTING = Section("Place and routing table")
CONNECTING = Section("Connecting to backends")
AFFINITY = Section("Affinity")
LOGS = Section("Logs")
TLS = Section("TLS termination")
API = Section("Self-registration of backends")
DNS = Section("Geo-aware DNS")
REPLICATION = Section("Replication")
RATE_LIMIT = Section("Rate limiting")
CIRCUIT_BREAKER = Section("Circuit breaking")
HEALTH_CHECK = Section("Active health checking")
RECOVERY = Section("Recovery and panic")
POOL = Section("Warm connections")
METRICS = Section("Metrics and status page")
CONFIG_WATCH = Section("Watching the configuration file")
POSTGRES = Section("Storage in PostgreSQL")


def _usable_cores(_values: Mapping[str, Any]) -> str:
    return str(min(256, len(os.sched_getaffinity(0))))


def _host_name(_values: Mapping[str, Any]) -> str:
    return os.uname().nodename


def _admin_socket(values: Mapping[str, Any]) -> str:
    state_dir, db_path = values["state_dir"], values["db_path"]
    return f"{db_path}.sock" if state_dir is None else str(state_dir / "admin.sock")


def _api_tokens_dir(values: Mapping[str, Any]) -> str:
    state_dir, db_path = values["state_dir"], values["db_path"]
    return f"{db_path}.tokens" if state_dir is None else str(state_dir / "tokens")


_COUNT_MAX = 1_000_000
_CAP_MAX = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of one process, checked. Made by :func:`edgeproxy.config.load`."""

    listen_addr: Address = setting(
        kinds.address,
        "0.0.0.0:8080",
        LISTENING,
        "Where clients connect. Port 0 takes a free port, which the log names.",
    )
    app: str | None = setting(
        kinds.optional(kinds.name),
        "",
        LISTENING,
        "The app that this listener serves: only rows of that app are candidates. Without one, all rows are.",
    )
    workers: int = setting(
        kinds.whole(1, 256),
        Computed(_usable_cores, "number of usable cores"),
        LISTENING,
        "Worker processes that carry the traffic.",
    )
    worker_hang_timeout_secs: float = setting(
        kinds.seconds(0, 3_600),
        "10",
        LISTENING,
        "A worker that answers nothing for so long hangs: it is ended, which costs its connections, and "
        "replaced. 0 waits for ever.",
    )
    relay: str = setting(
        kinds.choice("auto", "copy", "splice", "kernel"),
        "auto",
        LISTENING,
        "How bytes are moved. `copy` reads and sends them; `splice` moves them in the kernel, through pipes, "
        "after the first that came have been copied; `auto` copies until a direction has moved 256 KiB, "
        "splices then, and copies again when little is coming; `kernel` is `auto`, but has the kernel alone "
        "relay connections that prove chatty ([when to use it](kernel-relay.md)). TLS is always copied.",
    )
    relay_kernel_allowed: bool = setting(
        kinds.flag,
        "false",
        LISTENING,
        "Lets `EDGEPROXY_RELAY=auto` do what `kernel` does.",
    )
    relay_kernel_turns: int = setting(
        kinds.whole(2, 1_000_000),
        "32",
        LISTENING,
        "Turns in a row after which a connection is chatty: each what one side says until the other answers, "
        "16 KiB at most.",
    )
    shutdown_timeout_secs: float = setting(
        kinds.seconds(0),
        "30",
        LISTENING,
        "How long open connections may finish after SIGTERM before they are closed. 0 closes them at once.",
        live=True,
    )
    state_dir: Path | None = setting(
        kinds.optional(kinds.path),
        "",
        LISTENING,
        "Folder in which affinity is saved over restarts. Without one, a restart forgets it.",
    )
    user: str | None = setting(
        kinds.optional(kinds.name),
        "",
        LISTENING,
        "The user, by name or number, that a proxy started as root becomes once it has bound its ports. "
        "Files are opened as that user, so the folders of database and state must be theirs to write.",
    )
    group: str | None = setting(
        kinds.optional(kinds.name),
        "",
        LISTENING,
        "The group that goes with `EDGEPROXY_USER`, in place of that user's own.",
    )

    region: str = setting(
        kinds.region,
        "sa",
        ROUTING,
        "Region of this POP: sa, us, eu, ap, or one that the TOML file defines.",
    )
    db_path: Path = setting(
        kinds.path,
        "routing.db",
        ROUTING,
        "The routing table, a SQLite file. `edgeproxy db init` makes a new one.",
    )
    db_reload_secs: float = setting(
        kinds.seconds(0.05, 86_400),
        "5",
        ROUTING,
        "Upper bound for seeing an edit of that file. Values above 1 still see it within a second.",
        live=True,
    )
    change_log_max_changes: int = setting(
        kinds.whole(100, 10_000_000, "entries"),
        "20000",
        ROUTING,
        "Entries of the change log that are kept at most, the newest ones.",
    )
    change_log_max_age_secs: float = setting(
        kinds.seconds(60, 3_153_600_000),
        "2592000",
        ROUTING,
        "Entries older than this are dropped from the change log.",
    )
    archive_url: str | None = setting(
        kinds.optional(kinds.archive_url),
        "",
        ROUTING,
        "Where changes of the routing table are copied to while the proxy runs, so that any time can be "
        "restored. S3 takes credentials and endpoint from the environment, as its other tools do.",
    )
    archive_interval_secs: float = setting(
        kinds.seconds(1, 86_400), "60", ROUTING, "Time between two additions to the archive."
    )
    archive_keep_secs: float = setting(
        kinds.seconds(3_600, 3_153_600_000),
        "2592000",
        ROUTING,
        "How far back the archive can restore. What is older is removed from it.",
    )
    geoip_path: Path | None = setting(
        kinds.optional(kinds.path),
        "",
        ROUTING,
        "Country database (`.mmdb`) that replaces the embedded one. Reloaded when the file changes.",
    )
    admin_socket: Path = setting(
        kinds.socket_path,
        Computed(
            _admin_socket,
            "`admin.sock` in the state folder; without one, the database's path with `.sock` added",
            needs=("state_dir", "db_path"),
        ),
        ROUTING,
        "Unix socket on which the running proxy answers `edgeproxy explain`.",
    )

    opening_timeout_secs: float = setting(
        kinds.seconds(0.01, 3_600),
        "10",
        LISTENING,
        "How long a client may take to send the PROXY header or TLS hello that its listener expects.",
        live=True,
    )
    idle_timeout_secs: float = setting(
        kinds.seconds(0),
        "3600",
        LISTENING,
        "An open connection over which no byte has moved for so long is reset. 0 never does. This timeout "
        "and the two that follow may take up to a quarter longer.",
        live=True,
    )
    half_close_timeout_secs: float = setting(
        kinds.seconds(0),
        "300",
        LISTENING,
        "The same when one side has sent its end and the other side is silent. 0 leaves it to the idle "
        "timeout.",
        live=True,
    )
    max_age_secs: float = setting(
        kinds.seconds(0),
        "0",
        LISTENING,
        "A connection of this age is reset, whatever it is doing. 0 never does.",
        live=True,
    )
    max_connections: int = setting(
        kinds.whole(0, _CAP_MAX),
        "0",
        LISTENING,
        "Connections of clients that may be open at a time, over all workers; further clients are reset. "
        "0 is no cap.",
        live=True,
    )
    max_connections_per_client: int = setting(
        kinds.whole(0, _CAP_MAX),
        "0",
        LISTENING,
        "The same for each client: an IPv4 address, an IPv6 /64. 0 is no cap.",
        live=True,
    )
    allow: tuple[Network, ...] = setting(
        kinds.networks,
        "",
        LISTENING,
        "Networks whose clients may connect. Once this or `allow_countries` is set, nobody else may.",
        live=True,
    )
    deny: tuple[Network, ...] = setting(
        kinds.networks, "", LISTENING, "Networks whose clients may not, whatever else is allowed.", live=True
    )
    allow_countries: tuple[str, ...] = setting(
        kinds.countries,
        "",
        LISTENING,
        "Countries whose clients may connect. An address of unknown country is in none of them.",
        live=True,
    )
    deny_countries: tuple[str, ...] = setting(
        kinds.countries,
        "",
        LISTENING,
        "Countries whose clients may not, whatever else is allowed.",
        live=True,
    )
    proxy_protocol_trusted: tuple[Network, ...] = setting(
        kinds.networks,
        "",
        LISTENING,
        "Load balancers in front: their PROXY headers are believed, and required, on listeners with "
        "`proxy_protocol`. Everybody else connects there without one.",
        live=True,
    )

    pool_connect_timeout_secs: float = setting(
        kinds.seconds(0.01, 3_600),
        "5",
        CONNECTING,
        "How long one attempt to connect to a backend may take before the next candidate is tried.",
        live=True,
    )
    retry_budget_percent: int = setting(
        kinds.whole(0, 100, "per cent"),
        "20",
        CONNECTING,
        "Of a worker's connections that are open or came in the last ten seconds, so many may be trying "
        "another backend at a time, but always three. Further ones are reset when their first backend fails.",
        live=True,
    )
    queue_length: int = setting(
        kinds.whole(0, _COUNT_MAX),
        "0",
        CONNECTING,
        "Clients that may wait, over all workers, when all backends are at their `hard_limit`. 0: nobody "
        "waits, they are reset at once.",
        live=True,
    )
    queue_timeout_secs: float = setting(
        kinds.seconds(0.01, 3_600),
        "5",
        CONNECTING,
        "How long a client may wait there before it is reset.",
        live=True,
    )

    binding_ttl_secs: float = setting(
        kinds.seconds(),
        "600",
        AFFINITY,
        "How long a client stays with its backend after its last use. An open connection keeps it alive.",
        live=True,
    )
    binding_gc_interval_secs: float = setting(
        kinds.seconds(0.01, 86_400),
        "60",
        AFFINITY,
        "How often expired bindings are removed. They count as expired before that, too.",
        live=True,
    )
    affinity_capacity: int = setting(
        kinds.whole(1_024, 16_777_216, "entries"),
        "262144",
        AFFINITY,
        "Bindings that are remembered at most. When full, those unused for longest make room.",
    )

    log_level: str = setting(
        kinds.choice("debug", "info", "warning", "error"),
        "info",
        LOGS,
        "The least severe messages that are written. `DEBUG=1` forces `debug`.",
        live=True,
    )
    log_format: str = setting(
        kinds.choice("auto", "console", "json"),
        "auto",
        LOGS,
        "`auto` is `console` on a terminal and `json`, one object per line, elsewhere.",
    )
    access_log: str = setting(
        kinds.choice("off", "sampled", "all"),
        "off",
        LOGS,
        "Which finished connections get a line in the log.",
        live=True,
    )
    access_log_sample: int = setting(
        kinds.whole(1, _COUNT_MAX),
        "100",
        LOGS,
        "With `sampled`, one in so many connections is logged.",
        live=True,
    )

    tls_enabled: bool = setting(
        kinds.flag,
        "false",
        TLS,
        "Terminate TLS on an address of its own. Listeners of the TOML file can do so without it.",
        switch=True,
    )
    tls_listen_addr: Address = setting(kinds.address, "0.0.0.0:8443", TLS, "Where TLS clients connect.")
    tls_cert: Path | None = setting(
        kinds.optional(kinds.path),
        "",
        TLS,
        "Certificate chain, PEM; needs the key. Without both, a self-signed one.",
        live=True,
    )
    tls_key: Path | None = setting(
        kinds.optional(kinds.path),
        "",
        TLS,
        "Private key, PEM; needs the certificate.",
        live=True,
    )
    tls_cert_dir: Path | None = setting(
        kinds.optional(kinds.path),
        "",
        TLS,
        "Folder of further pairs, `NAME.crt` or `NAME.pem` with `NAME.key`, chosen by the name that a client "
        "asks for. All files are loaded again when they change.",
        live=True,
    )
    tls_alpn: tuple[str, ...] = setting(
        kinds.protocols,
        "",
        TLS,
        "Application protocols that backends speak, the favourite first. Without any, none is negotiated.",
        live=True,
    )
    tls_client_auth: str = setting(
        kinds.choice("off", "optional", "required"),
        "off",
        TLS,
        "Whether clients are asked for a certificate. One that is shown must be valid; `required` refuses "
        "clients without.",
        live=True,
    )
    tls_client_ca: Path | None = setting(
        kinds.optional(kinds.path),
        "",
        TLS,
        "Authorities that may have issued it, PEM. Loaded again when the file changes.",
        live=True,
    )
    tls_handshake_timeout_secs: float = setting(
        kinds.seconds(0.01, 3_600),
        "10",
        TLS,
        "How long a handshake may take, with a client before it is reset, with a backend before the next "
        "candidate is tried.",
        live=True,
    )
    tls_max_handshakes: int = setting(
        kinds.whole(1, _COUNT_MAX),
        "1024",
        TLS,
        "Handshakes that one worker has under way at most. Further clients are reset.",
        live=True,
    )

    api_enabled: bool = setting(kinds.flag, "false", API, "Let backends register themselves.", switch=True)
    api_listen_addr: Address = setting(
        kinds.address,
        "0.0.0.0:8081",
        API,
        "Where the API listens. While there is no token, the default means 127.0.0.1, and another address "
        "than a loopback one is refused.",
    )
    api_tokens_dir: Path = setting(
        kinds.path,
        Computed(
            _api_tokens_dir,
            "`tokens` in the state folder; without one, the database's path with `.tokens` added",
            needs=("state_dir", "db_path"),
        ),
        API,
        "Folder of the bearer tokens that `edgeproxy token create` makes.",
    )
    api_tls_cert: Path | None = setting(
        kinds.optional(kinds.path),
        "",
        API,
        "Certificate chain of the API, PEM; needs the key. Without both it speaks plain HTTP.",
        live=True,
    )
    api_tls_key: Path | None = setting(
        kinds.optional(kinds.path),
        "",
        API,
        "Private key of the API, PEM, without a pass phrase; needs the certificate.",
        live=True,
    )
    api_max_body_bytes: int = setting(
        kinds.whole(1_024, 16_777_216, "bytes"), "65536", API, "Longer requests are refused (413).", live=True
    )
    api_rate_limit_per_sec: int = setting(
        kinds.whole(1, _COUNT_MAX),
        "200",
        API,
        "Requests a second that one client may make in the long run; others are refused (429).",
        live=True,
    )
    api_rate_limit_burst: int = setting(
        kinds.whole(1, _COUNT_MAX), "1000", API, "Requests that it may make at once.", live=True
    )
    heartbeat_ttl_secs: float = setting(
        kinds.seconds(),
        "60",
        API,
        "How long after its last heartbeat a backend counts as healthy; after three times as long it is "
        "removed.",
        live=True,
    )

    dns_enabled: bool = setting(kinds.flag, "false", DNS, "Answer geo-aware DNS.", switch=True)
    dns_listen_addr: Address = setting(kinds.address, "0.0.0.0:5353", DNS, "Where the DNS server listens.")
    dns_domain: str = setting(kinds.domain, "internal", DNS, "The domain whose names are answered.")
    dns_ttl_secs: int = setting(
        kinds.whole(0, 86_400, "seconds"), "30", DNS, "How long askers may keep an answer.", live=True
    )
    dns_negative_ttl_secs: int = setting(
        kinds.whole(0, 86_400, "seconds"),
        "5",
        DNS,
        "How long they may keep that a name does not exist, or has no backend now.",
        live=True,
    )
    dns_rate_limit: int = setting(
        kinds.whole(0, _COUNT_MAX),
        "200",
        DNS,
        "Queries a second that one client (IPv4 address, IPv6 /64) may send. 0 is no limit.",
        live=True,
    )
    dns_ecs_trusted: tuple[Network, ...] = setting(
        kinds.networks,
        "",
        DNS,
        "Resolvers whose client subnet (ECS) is believed. Others are answered for where they are themselves.",
        live=True,
    )
    dns_pops: tuple[RegionalAddress, ...] = setting(
        kinds.regional_addresses,
        "",
        DNS,
        "What `<region>.pops` names answer: where this and other POPs take clients.",
        live=True,
    )

    replication_enabled: bool = setting(
        kinds.flag,
        "false",
        REPLICATION,
        "Exchange changes of the routing table with other POPs. Not with PostgreSQL, which all may share.",
        switch=True,
    )
    replication_node_id: str = setting(
        kinds.name,
        Computed(_host_name, "host name"),
        REPLICATION,
        "This POP's name among the others, the same over restarts.",
    )
    replication_keys: tuple[bytes, ...] | None = setting(
        kinds.optional(kinds.keys),
        "",
        REPLICATION,
        "What all POPs of a cluster know and nobody else: the first key seals, each of them opens. Without "
        "one, only POPs on this machine are spoken to. `edgeproxy replication key` makes one.",
        secret=True,
    )
    replication_gossip_addr: Address = setting(
        kinds.address,
        "0.0.0.0:4001",
        REPLICATION,
        "Where membership messages arrive, over UDP. Without keys, 127.0.0.1 takes the place of the default.",
    )
    replication_transport_addr: Address = setting(
        kinds.address,
        "0.0.0.0:4002",
        REPLICATION,
        "Where changes arrive, over QUIC, which is UDP. Without keys, 127.0.0.1 takes the place of the "
        "default.",
    )
    replication_gossip_advertise_addr: Address | None = setting(
        kinds.optional(kinds.address),
        "",
        REPLICATION,
        "Where other POPs reach the gossip address, if that is elsewhere. Without one, the address listened "
        "on, or for all addresses that one from which the first bootstrap peer is reached.",
    )
    replication_transport_advertise_addr: Address | None = setting(
        kinds.optional(kinds.address),
        "",
        REPLICATION,
        "Where other POPs reach the transport address, if that is elsewhere. Without one, as for gossip.",
    )
    replication_bootstrap_peers: tuple[Address, ...] = setting(
        kinds.peers,
        "",
        REPLICATION,
        "Gossip addresses of POPs to contact first, this one's own among them or not.",
    )
    replication_db_path: Path = setting(
        kinds.path,
        "state.db",
        REPLICATION,
        "Where replication keeps its identity, clock and membership.",
    )
    replication_cluster_name: str = setting(
        kinds.name, "edgeproxy", REPLICATION, "POPs of another cluster are refused."
    )
    replication_gossip_interval_ms: int = setting(
        kinds.whole(10, 3_600_000, "milliseconds"), "1000", REPLICATION, "Time between membership messages."
    )
    replication_sync_interval_ms: int = setting(
        kinds.whole(10, 3_600_000, "milliseconds"),
        "5000",
        REPLICATION,
        "Time between comparisons with a peer.",
    )

    rate_limit_enabled: bool = setting(
        kinds.flag, "false", RATE_LIMIT, "Limit the connections of each client address.", switch=True
    )
    rate_limit_max_requests: int = setting(
        kinds.whole(1, _COUNT_MAX),
        "100",
        RATE_LIMIT,
        "Connections that a client may open in a window.",
        live=True,
    )
    rate_limit_window_secs: float = setting(
        kinds.seconds(), "1", RATE_LIMIT, "Length of a window.", live=True
    )
    rate_limit_burst: int = setting(
        kinds.whole(1, _COUNT_MAX), "10", RATE_LIMIT, "Connections that may come at once.", live=True
    )
    rate_limit_capacity: int = setting(
        kinds.whole(1_024, 16_777_216, "clients"),
        "65536",
        RATE_LIMIT,
        "Clients that are remembered at most. When full, those that have not come for longest make room.",
    )

    circuit_breaker_enabled: bool = setting(
        kinds.flag, "false", CIRCUIT_BREAKER, "Leave out backends that keep failing.", switch=True
    )
    circuit_failure_threshold: int = setting(
        kinds.whole(1, _COUNT_MAX),
        "5",
        CIRCUIT_BREAKER,
        "Failures in a row, within 60 s, that eject a backend.",
        live=True,
    )
    circuit_success_threshold: int = setting(
        kinds.whole(1, _COUNT_MAX),
        "3",
        CIRCUIT_BREAKER,
        "Successes that readmit it, and connections that a trial lets through to find out.",
        live=True,
    )
    circuit_timeout_secs: float = setting(
        kinds.seconds(),
        "30",
        CIRCUIT_BREAKER,
        "How long it is ejected before a trial; the n-th time, n times as long, up to 300 s.",
        live=True,
    )
    circuit_max_ejected_percent: int = setting(
        kinds.whole(0, 100, "per cent"),
        "10",
        CIRCUIT_BREAKER,
        "Of an app's backends so many may be ejected at a time, but always one.",
        live=True,
    )

    health_check_enabled: bool = setting(
        kinds.flag, "false", HEALTH_CHECK, "Check backends actively.", switch=True
    )
    health_check_interval_secs: float = setting(
        kinds.seconds(), "5", HEALTH_CHECK, "Time between checks of one backend.", live=True
    )
    health_check_fast_interval_secs: float = setting(
        kinds.seconds(),
        "1",
        HEALTH_CHECK,
        "The same while its status is changing, if that is shorter.",
        live=True,
    )
    health_check_timeout_secs: float = setting(
        kinds.seconds(), "2", HEALTH_CHECK, "How long one check may take.", live=True
    )
    health_check_type: str = setting(
        kinds.choice("tcp", "http"),
        "tcp",
        HEALTH_CHECK,
        "A connection, or a request answered with success.",
        live=True,
    )
    health_check_path: str = setting(
        kinds.url_path, "/health", HEALTH_CHECK, "What `http` asks for.", live=True
    )
    health_healthy_threshold: int = setting(
        kinds.whole(1, _COUNT_MAX),
        "2",
        HEALTH_CHECK,
        "Good checks in a row that make a backend healthy.",
        live=True,
    )
    health_unhealthy_threshold: int = setting(
        kinds.whole(1, _COUNT_MAX),
        "3",
        HEALTH_CHECK,
        "Bad checks in a row that make it unhealthy.",
        live=True,
    )

    slow_start_secs: float = setting(
        kinds.seconds(0, 86_400),
        "30",
        RECOVERY,
        "How long the weight of a backend that is good again takes to grow back. 0 gives it all at once.",
        live=True,
    )
    panic_threshold_percent: int = setting(
        kinds.whole(0, 100, "per cent"),
        "50",
        RECOVERY,
        "When fewer of an app's backends are good, checks and ejections are ignored. 0 never ignores them.",
        live=True,
    )

    pool_enabled: bool = setting(
        kinds.flag,
        "false",
        POOL,
        "Keep connections ready that no client has used.",
        switch=True,
        live=True,
    )
    pool_max_per_backend: int = setting(
        kinds.whole(1, 65_535),
        "10",
        POOL,
        "Ready connections kept for one backend at most, by all workers together.",
        live=True,
    )
    pool_idle_timeout_secs: float = setting(
        kinds.seconds(),
        "60",
        POOL,
        "When a backend was given no client for so long, its ready connections are dropped.",
        live=True,
    )
    pool_max_lifetime_secs: float = setting(
        kinds.seconds(), "300", POOL, "At this age a ready connection is replaced by a new one.", live=True
    )

    metrics_enabled: bool = setting(
        kinds.flag, "false", METRICS, "Serve Prometheus metrics, and a status page at `/`.", switch=True
    )
    metrics_listen_addr: Address = setting(
        kinds.address,
        "0.0.0.0:9090",
        METRICS,
        "Where both are served, without a password. Left at its default, only on 127.0.0.1.",
    )
    metrics_path: str = setting(kinds.url_path, "/metrics", METRICS, "Path of the metrics.", live=True)

    config_watch_enabled: bool = setting(
        kinds.flag, "false", CONFIG_WATCH, "Reload the TOML file when its content changes.", switch=True
    )
    config_watch_interval_secs: float = setting(
        kinds.seconds(), "5", CONFIG_WATCH, "Time between looks at the file.", live=True
    )

    postgres_enabled: bool = setting(
        kinds.flag,
        "false",
        POSTGRES,
        "Keep the routing table in PostgreSQL instead of a file.",
        switch=True,
    )
    postgres_url: str | None = setting(
        kinds.optional(kinds.postgres_url),
        "",
        POSTGRES,
        "The database. Required when enabled. Several hosts, parted by commas, are tried in turn; the one "
        "that takes writes is used, unless the URL sets `target_session_attrs`.",
        secret=True,
    )
    postgres_max_connections: int = setting(
        kinds.whole(1, 10_000),
        "10",
        POSTGRES,
        "Connections for queries at most. One more listens for changes.",
    )
    postgres_min_connections: int = setting(
        kinds.whole(0, 10_000), "2", POSTGRES, "Connections for queries that are kept open."
    )
    postgres_connect_timeout_secs: float = setting(
        kinds.seconds(), "5", POSTGRES, "How long connecting to one host may take."
    )
    postgres_query_timeout_secs: float = setting(
        kinds.seconds(), "10", POSTGRES, "How long one query may take; waiting for a lock counts."
    )
    postgres_reload_secs: float = setting(
        kinds.seconds(),
        "5",
        POSTGRES,
        "Upper bound for seeing a change that no trigger told of. Others are seen at once.",
    )

    geography: Geography = field(metadata={})
    """Which country lies in which region: the built-in table with the TOML file's changes."""
    listeners: tuple[Listener, ...] = field(metadata={})
    """Further listeners, which the TOML file defines."""
    app_by_server_name: Mapping[str, str] = field(metadata={})
    """What server names in TLS hellos mean; the TOML file's ``[sni]``."""
    backend_rules: tuple[BackendRule, ...] = field(metadata={})
    """What is different about some backends, which the TOML file says."""
    sources: Mapping[str, str] = field(compare=False, repr=False)
    """Setting's name to what gave its value: ``default``, a variable, a flag or the TOML file's path."""


SETTINGS = settings_of(Config)
"""All definitions by name, in the order of the reference page."""
