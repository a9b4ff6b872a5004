"""The POP in Prometheus's words; ``docs/metrics.md`` lists them.

Everything is computed when it is asked for, from what the workers have reported by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from platform import python_version
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from edgeproxy.core.controlplane.metric_labels import OTHER, BackendLabels
from edgeproxy.core.controlplane.overview import BackendState, BackendView, Overview
from edgeproxy.inbound.metric_families import counter, gauge, histogram


class Metrics:
    """Answers scrapes."""

    def __init__(self, *collectors: Collector) -> None:
        self._registry = CollectorRegistry()
        for collector in collectors:
            self._registry.register(collector)

    async def answer(self, request: web.Request) -> web.Response:
        """All metrics, in the format that the asker prefers."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        response = web.Response(body=encode(self._registry), headers={"Content-Type": content_type})
        response.enable_compression()
        return response


class PopCollector(Collector):
    """Turns a look at the POP into metrics, each time it is asked."""

    def __init__(self, look: Callable[[], Overview], labels: BackendLabels) -> None:
        self._look = look
        self._labels = labels

    def describe(self) -> list[Metric]:
        """Nothing: the names are known to be unique, and the state is not known yet at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        overview = self._look()  # feature: metrics.prometheus
        yield from _of_the_pop(overview)
        yield from _of_clients(overview)
        yield from _of_backends(self._labelled(overview.backends))
        yield from _of_the_table(overview)
        if overview.dns is not None:
            yield from _of_dns(overview.dns)

    def _labelled(self, views: list[BackendView]) -> list[BackendView]:
        """Views with a label in the place of the id; those without a label of their own are one."""
        self._labels.assign({view.id for view in views if view.state is not BackendState.GONE})
        labelled = [view for view in views if self._labels.of(view.id) == view.id]
        others = [view for view in views if self._labels.of(view.id) == OTHER]
        return [*labelled, _sum(others)] if others else labelled


def _sum(views: list[BackendView]) -> BackendView:
    total = BackendView(OTHER, BackendState.READY)
    for view in views:
        total.opened += view.opened
        total.active += view.active
        total.bytes_received += view.bytes_received
        total.bytes_sent += view.bytes_sent
        total.errors += view.errors
        total.warm += view.warm
        total.connects.merge_connects(view.connects)
    return total


def _of_the_pop(overview: Overview) -> Iterator[Metric]:
    yield gauge(
        "build_info",
        "Always 1; the labels say what runs here",
        {(overview.version, python_version(), overview.node, overview.region): 1},
        ("version", "python", "node", "region"),
    )
    yield gauge("start_time_seconds", "When the proxy started, Unix time", {(): overview.started_at_s})
    yield gauge("workers", "Worker processes that run", {(): overview.workers})
    yield counter(
        "worker_restarts", "Worker processes that died and were replaced", {(): overview.worker_restarts}
    )
    yield counter(
        "worker_troubles",
        "Times that the control process and a worker did not understand each other, by kind",
        {(kind,): count for kind, count in overview.worker_troubles.items()},
        ("kind",),
    )
    yield gauge(
        "kernel_relay_workers",
        "Worker processes that have the kernel relay chatty connections",
        {(): overview.kernel_workers},
    )
    yield gauge(
        "kernel_relay_connections",
        "Client connections that the kernel relays without a worker",
        {(): overview.kernel_connections},
    )
    yield counter(
        "kernel_relay_promotions",
        "Client connections that the kernel took over",
        {(): overview.kernel_promotions},
    )


def _of_clients(overview: Overview) -> Iterator[Metric]:
    views, countries = overview.backends, overview.countries
    yield counter(
        "connections",
        "Client connections that were given a backend, or ended without one",
        {(): overview.clients},
    )
    yield gauge(
        "connections_active",
        "Client connections that are open, with a backend",
        {(): sum(v.active for v in views)},
    )
    yield counter(
        "bytes_sent",
        "Bytes sent to clients, counted when a connection ends",
        {(): sum(v.bytes_sent for v in views)},
    )
    yield counter(
        "bytes_received",
        "Bytes received from clients and sent on, counted when a connection ends",
        {(): sum(v.bytes_received for v in views)},
    )
    yield counter(
        "connections_closed",
        "Client connections that ended, by reason",
        {(reason,): count for reason, count in overview.closes.items()},
        ("reason",),
    )
    yield gauge(
        "connections_capped",
        "Client connections that count towards EDGEPROXY_MAX_CONNECTIONS, with a backend or not",
        {(): overview.capped_connections},
    )
    yield gauge(
        "connections_limit",
        "Most client connections at a time, 0 for no cap: in all, and of one client",
        {("all",): overview.max_connections, ("client",): overview.max_connections_per_client},
        ("of",),
    )
    yield gauge("queue_length", "Clients that wait for a place on a backend", {(): overview.waiting})
    yield gauge("queue_limit", "Clients that may wait at a time", {(): overview.queue_limit})
    yield histogram(
        "queue_wait_seconds",
        "Time that clients waited for a place on a backend and got one",
        {(): overview.waits},
    )
    bound = sum(view.connects.from_affinity for view in views)
    chosen = sum(view.connects.count for view in views) - bound
    yield counter(
        "selections",
        "How clients came by their backend: bound to it before, by its score, or not at all",
        {("affinity",): bound, ("selection",): chosen, ("refused",): overview.refused},
        ("outcome",),
    )
    yield counter(
        "country_connections",
        "Client connections with a backend, by country of the client",
        {(view.country or "unknown",): view.opened for view in countries},
        ("country",),
    )
    yield gauge(
        "country_connections_active",
        "Client connections that are open, by country of the client",
        {(view.country or "unknown",): view.active for view in countries},
        ("country",),
    )


def _of_backends(views: list[BackendView]) -> Iterator[Metric]:
    def by_label(value: Callable[[BackendView], float]) -> dict[tuple[str, ...], float]:
        return {(view.id,): value(view) for view in views}

    named = ("backend",)
    yield counter(
        "backend_connections", "Connections established with a backend", by_label(lambda v: v.opened), named
    )
    yield gauge(
        "backend_connections_active",
        "Connections with a backend that are open",
        by_label(lambda v: v.active),
        named,
    )
    yield gauge(
        "backend_warm_connections",
        "Connections with a backend that are kept ready and no client has",
        by_label(lambda v: v.warm),
        named,
    )
    yield counter(
        "backend_warm_connections_used",
        "Connections established with a backend that were ready before the client came",
        by_label(lambda v: v.connects.from_warm),
        named,
    )
    yield counter("backend_errors", "Connects to a backend that failed", by_label(lambda v: v.errors), named)
    yield counter(
        "backend_bytes_sent",
        "Bytes from a backend, sent on to clients",
        by_label(lambda v: v.bytes_sent),
        named,
    )
    yield counter(
        "backend_bytes_received",
        "Bytes from clients, sent on to a backend",
        by_label(lambda v: v.bytes_received),
        named,
    )
    present = [view for view in views if view.state is not BackendState.GONE and view.id != OTHER]
    yield gauge(
        "backend_hard_limit",
        "Connections a backend never exceeds, 0 for no limit",
        {(view.id,): view.hard_limit for view in present},
        named,
    )
    yield gauge(
        "backend_info",
        "Always 1 while a backend is in the routing table; the labels say where it is",
        {(view.id, view.app, view.region, view.country): 1 for view in present},
        ("backend", "app", "region", "country"),
    )
    yield gauge(
        "backend_up",
        "Whether a backend may be given clients: by the operator's word and this POP's verdict",
        {(view.id,): view.state not in (BackendState.DOWN, BackendState.EJECTED) for view in present},
        named,
    )
    yield histogram(
        "backend_rtt_seconds",
        "Time that connects to a backend took, as workers see it",
        {(view.id,): view.connects for view in views},
        named,
    )


def _of_the_table(overview: Overview) -> Iterator[Metric]:
    present = [view.state for view in overview.backends if view.state is not BackendState.GONE]
    yield gauge(
        "table_version", "Version of the routing table; each change raises it", {(): overview.table_version}
    )
    yield gauge(
        "table_age_seconds",
        "Time since the routing table was last known to be that of the store",
        {(): overview.table_age_s},
    )
    yield gauge("table_bad_rows", "Problems of rows that are skipped", {(): overview.bad_rows})
    yield gauge(
        "table_backends",
        "Backends in the routing table, by state",
        {(state,): present.count(state) for state in BackendState if state is not BackendState.GONE},
        ("state",),
    )


def _of_dns(counted: dict[str, Any]) -> Iterator[Metric]:
    for name, help_text, key, label in (
        ("dns_queries", "DNS queries received", "queries", "transport"),
        ("dns_replies", "DNS replies sent", "replies", "rcode"),
        (
            "dns_over_limit",
            "DNS queries of clients over their limit, by what became of them",
            "over_limit",
            "action",
        ),
    ):
        yield counter(name, help_text, {(each,): count for each, count in counted[key].items()}, (label,))
