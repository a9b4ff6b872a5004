"""What can be seen of a running POP from outside: by `edgeproxy ctl`, the API, metrics and status page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from time import monotonic, time
from typing import Any, Final

from msgspec.structs import asdict

from edgeproxy import __version__
from edgeproxy.app.parts import panic_threshold, rate_limit
from edgeproxy.config import Config
from edgeproxy.core.controlplane.control_view import (
    ApiCounts,
    ControlView,
    TransitionCounts,
    rate_limit_counts,
)
from edgeproxy.core.controlplane.events import EventBus, RecentEvents, Topic
from edgeproxy.core.controlplane.explain import CapUse, Explanation, explain
from edgeproxy.core.controlplane.outlier import State
from edgeproxy.core.controlplane.overview import Overview, backend_views, country_views
from edgeproxy.core.controlplane.replication_view import ReplicationView
from edgeproxy.core.controlplane.routing_table import RoutingTable
from edgeproxy.core.controlplane.traffic import TrafficTotals
from edgeproxy.core.dataplane.affinity import binding_tag, country_code, holds, stable_key
from edgeproxy.core.dataplane.client import affinity_network, locate
from edgeproxy.core.dataplane.rate_limit import client_tag
from edgeproxy.core.dataplane.selection import ANY_APP
from edgeproxy.core.wire.frames import ConnectionOrder, first_of
from edgeproxy.errors import EdgeproxyError
from edgeproxy.outbound.geo_maxmind import CountryDatabase
from edgeproxy.runtime.geo_watch import GeoWatch
from edgeproxy.runtime.supervisor import Supervisor
from edgeproxy.runtime.table_feed import TableFeed
from edgeproxy.runtime.verdict_feed import VerdictFeed
from edgeproxy.stores import open_store
from edgeproxy.worker.shared_state import SharedState

MAX_LISTED: Final = 1_000
"""Connections that are listed at most, so that an answer stays small."""


@dataclass(frozen=True, kw_only=True)
class View:
    """Looks at the parts that it is given, and asks them when it is asked."""

    config: Callable[[], Config]
    """The settings in force."""
    address: str
    started_s: float
    """By the monotonic clock."""
    feed: TableFeed
    state: SharedState
    traffic: TrafficTotals
    supervisor: Supervisor
    bus: EventBus
    recent_events: RecentEvents
    verdicts: VerdictFeed | None
    geo: GeoWatch
    transitions: TransitionCounts
    api_counts: Callable[[], ApiCounts | None]
    dns_statistics: Callable[[], dict[str, int] | None]
    replication_view: Callable[[], ReplicationView | None]

    def overview(self) -> Overview:
        """The whole POP, for the metrics and the status page."""
        config, table, uptime_s = self.config(), self.feed.table, monotonic() - self.started_s
        return Overview(
            version=__version__,
            node=config.replication_node_id,
            region=config.region,
            started_at_s=time() - uptime_s,
            uptime_s=uptime_s,
            workers=len(self.supervisor.pids()),
            worker_restarts=self.supervisor.restarts,
            worker_troubles=asdict(self.supervisor.troubles),
            table_version=table.version,
            table_age_s=monotonic() - self.feed.read_at_s,
            bad_rows=len(table.issues),
            clients=self.traffic.clients,
            closes=self.traffic.closes,
            backends=backend_views(
                table.snapshot(), self.state.connections, self.traffic, self.state.warm.count
            ),
            countries=country_views(self.traffic),
            dns=self.dns_statistics(),
            max_connections=config.max_connections,
            max_connections_per_client=config.max_connections_per_client,
            capped_connections=self.state.places.connections,
            waiting=self.state.queue.waiting,
            queue_limit=config.queue_length,
            waits=self.traffic.waits,
            kernel_workers=len(self.traffic.kernel),
            kernel_connections=self.traffic.in_kernel,
            kernel_promotions=self.traffic.promotions,
        )

    def control(self) -> ControlView:
        """The control plane, for the metrics."""
        config = self.config()
        circuits = None
        if config.circuit_breaker_enabled and self.verdicts is not None:
            statuses = self.verdicts.verdicts.statuses(monotonic()).values()
            states = Counter(each.circuit.state for each in statuses if each.circuit is not None)
            circuits = {state.value: states[state] for state in State}
        is_limited = rate_limit(config) is not None
        return ControlView(
            store_reachable=not self.feed.is_failing,
            store_failures=self.feed.failures,
            transitions=self.transitions.counts(),
            circuits=circuits,
            events=self.bus.statistics(),
            api=self.api_counts(),
            rate_limit=(rate_limit_counts(self.traffic.clients, self.traffic.closes) if is_limited else None),
            replication=self.replication_view(),
        )

    def replication(self) -> ReplicationView:
        """Members, what they lack and what is lacking here.

        Raises:
            EdgeproxyError: this POP does not replicate.
        """
        found = self.replication_view()
        if found is None:
            raise EdgeproxyError("this POP replicates with nobody; set EDGEPROXY_REPLICATION_ENABLED")
        return found

    def stats(self) -> dict[str, Any]:
        """Counts of connections, bytes and outcomes, by backend where they have one."""
        config = self.config()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "address": self.address,
            "uptime_s": monotonic() - self.started_s,
            "workers": self.supervisor.pids(),
            "worker_restarts": self.supervisor.restarts,
            "worker_troubles": self.supervisor.troubles,
            "table_version": self.feed.table.version,
            "dns": self.dns_statistics(),
            "backends": {
                placed.backend.id: self.state.connections(placed.slot)
                for placed in self.feed.table.snapshot()
            },
            "traffic": self.traffic.rows(),
            "closes": self.traffic.closes,
            "caps": {
                "connections": self.state.places.connections,
                "max_connections": config.max_connections,
                "max_connections_per_client": config.max_connections_per_client,
            },
            "queue": {
                "waiting": self.state.queue.waiting,
                "length": config.queue_length,
                "waits": self.traffic.waits,
            },
            "kernel_relay": {
                "workers": len(self.traffic.kernel),
                "connections": self.traffic.in_kernel,
                "promotions": self.traffic.promotions,
            },
            "connect_errors": self.traffic.connect_errors,
            "verdicts": (self.verdicts.verdicts.statuses(monotonic()) if self.verdicts is not None else None),
            "events": self.bus.statistics(),
        }

    async def connections(self, request: dict[str, Any]) -> dict[str, Any]:
        """How many connections are open between whom, and the first ``count`` of them in ``order``.

        Raises:
            ValueError: the request is wrong.
        """
        count, order = request.get("count", 20), request.get("order", ConnectionOrder.AGE)
        if not isinstance(count, int) or not 0 <= count <= MAX_LISTED:
            raise ValueError(f"connections takes a count, a whole number up to {MAX_LISTED}")
        if order not in list(ConnectionOrder):
            raise ValueError(f"there is no order {order!r}; there are: {', '.join(ConnectionOrder)}")
        order = ConnectionOrder(order)
        found, silent = await self.supervisor.open_connections(count, order) if count else ([], 0)
        return {
            "counts": [row for row in self.traffic.rows() if row.active],
            "connections": [asdict(each) for each in first_of(found, count, order)],
            "workers_silent": silent,
        }

    def table(self) -> dict[str, Any]:
        """The rows that are routed by, and those that are not, with the reason."""
        table = self.feed.table
        return {
            "version": table.version,
            "age_s": monotonic() - self.feed.read_at_s,
            "backends": [asdict(placed.backend) for placed in table.snapshot()],
            "issues": [str(issue) for issue in table.issues],
        }

    def explain(self, request: dict[str, Any]) -> Explanation:
        """Where the ``client`` of a request would go, and why; of its ``app``, if it names one.

        Raises:
            ValueError: the request is wrong.
        """
        address, app = request.get("client"), request.get("app")
        if not isinstance(address, str):
            raise ValueError("explain needs a client, an IP address as text")
        if not (app is None or isinstance(app, str)):
            raise ValueError("explain takes an app as text")
        config = self.config()
        app = app or config.app or ANY_APP
        client = locate(address, self.geo.database.country, config.geography)
        tag = binding_tag(self.state.secret, stable_key(app), affinity_network(client.address))
        self.state.lock(tag)
        binding = self.state.get(tag)
        self.state.unlock(tag)
        bound_to = None
        if binding is not None and holds(
            binding, country_code(client.country), monotonic(), config.binding_ttl_secs
        ):
            ids = (placed.backend.id for placed in self.feed.table.snapshot())
            bound_to = next((i for i in ids if stable_key(i) == binding.backend_key), None)
        return explain(
            client,
            app,
            config.region,
            self.feed.table.snapshot(),
            self.state.connections,
            bound_to,
            counts_known=True,
            why=self._why,
            panic_threshold=panic_threshold(config),
            connections_allowed=self._connections_allowed(client.address),
            all_connections=self._cap_use(config.max_connections, self.state.places.connections),
            client_connections=self._cap_use(
                config.max_connections_per_client,
                self.state.places.connections_of(self._client_tag(client.address)),
            ),
            queue=self._cap_use(config.queue_length, self.state.queue.waiting),
        )

    def events(self, request: dict[str, Any]) -> dict[str, Any]:
        """The latest events, of one ``topic`` if that is given, and what the bus has counted.

        Raises:
            ValueError: the request is wrong.
        """
        count, topic = request.get("count", 100), request.get("topic")
        if not isinstance(count, int) or count < 0:
            raise ValueError("events takes a count as a whole number")
        if topic is not None and topic not in list(Topic):
            raise ValueError(f"there is no topic {topic!r}; there are: {', '.join(Topic)}")
        return {
            "events": self.recent_events.latest(count, Topic(topic) if topic is not None else None),
            "statistics": self.bus.statistics(),
        }

    def rate_limit(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a client may still do; with ``clear``, make it a new client, or without ``client`` all.

        Raises:
            ValueError: the request is wrong, or nothing is limited.
        """
        address, clear = request.get("client"), request.get("clear", False)
        if rate_limit(self.config()) is None:
            raise ValueError("there is no rate limit; set EDGEPROXY_RATE_LIMIT_ENABLED")
        if not (address is None or isinstance(address, str)) or (address is None and clear is not True):
            raise ValueError("rate_limit needs a client, an IP address as text, or clear for all clients")
        if address is None:
            return {"cleared": self.state.clients.clear_all()}
        if clear:
            self.state.clients.clear(self._client_tag(address))
        return {"client": address, "connections_allowed": self._connections_allowed(address)}

    def _why(self, backend_id: str) -> str:
        return self.verdicts.verdicts.why(backend_id, monotonic()) if self.verdicts is not None else ""

    def _connections_allowed(self, address: str) -> float | None:
        limit = rate_limit(self.config())
        if limit is None:
            return None
        return self.state.clients.remaining(limit, self._client_tag(address), monotonic())

    def _cap_use(self, most: int, open_: int) -> CapUse | None:
        return CapUse(open_, most) if most else None

    def _client_tag(self, address: str) -> int:
        return client_tag(self.state.secret, affinity_network(address))


def explain_offline(config: Config, address: str, app: str | None) -> Explanation:
    """What a proxy with these settings would do for ``address``, taking all backends for idle.

    Raises:
        EdgeproxyError: the database or the country database cannot be used.
        ValueError: ``address`` is no IP address.
    """
    table = RoutingTable(config.geography)
    with open_store(config, "cli") as store:
        table.replace(store.poll() or ())
    with closing(CountryDatabase.open(config.geoip_path)) as countries:
        client = locate(address, countries.country, config.geography)
    return explain(
        client,
        app or config.app or ANY_APP,
        config.region,
        table.snapshot(),
        connections=lambda _slot: 0,
        bound_to=None,
        counts_known=False,
    )
