"""The control plane in Prometheus's words: store, health, circuits, registrations, events."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from edgeproxy.core.controlplane.control_view import ApiCounts, ControlView
from edgeproxy.core.controlplane.events import Priority, Topic
from edgeproxy.inbound.metric_families import counter, gauge
from edgeproxy.inbound.metrics_replication import replication_metrics


class ControlCollector(Collector):
    """Turns a look at the control plane into metrics, each time it is asked."""

    def __init__(self, look: Callable[[], ControlView]) -> None:
        self._look = look

    def describe(self) -> list[Metric]:
        """Nothing: see :class:`~edgeproxy.inbound.metrics.PopCollector`."""
        return []

    def collect(self) -> Iterator[Metric]:
        view = self._look()
        yield gauge("store_up", "Whether the last look at the store succeeded", {(): view.store_reachable})
        yield counter("store_failures", "Times that the store became unreadable", {(): view.store_failures})
        yield counter(
            "health_transitions",
            "Changes of this POP's verdicts on backends, and of panic",
            {(transition,): count for transition, count in view.transitions.items()},
            ("to",),
        )
        if view.circuits is not None:
            yield gauge(
                "circuits",
                "Backends by the state of their circuit",
                {(state,): count for state, count in view.circuits.items()},
                ("state",),
            )
        if view.rate_limit is not None:
            yield counter(
                "rate_limit_decisions",
                "Connections that the rate limit allowed and refused",
                {(outcome,): count for outcome, count in view.rate_limit.items()},
                ("outcome",),
            )
        yield from _of_events(view)
        if view.api is not None:
            yield from _of_the_api(view.api)
        if view.replication is not None:
            yield from replication_metrics(view.replication)


def _of_events(view: ControlView) -> Iterator[Metric]:
    events = view.events
    yield counter(
        "events",
        "Events published on the internal bus",
        {(topic,): events.published.get(topic, 0) for topic in Topic},
        ("topic",),
    )
    # Critical ones never are.
    droppable = [priority.name.lower() for priority in Priority if priority is not Priority.CRITICAL]
    yield counter(
        "events_dropped",
        "Events dropped for want of room",
        {(priority,): events.dropped.get(priority, 0) for priority in droppable},
        ("priority",),
    )
    yield counter(
        "event_handler_failures", "Calls of handlers that failed", {(): sum(events.failures.values())}
    )


def _of_the_api(api: ApiCounts) -> Iterator[Metric]:
    yield counter(
        "api_requests",
        "Requests to the API",
        {(method, route, str(status)): count for (method, route, status), count in api.requests.items()},
        ("method", "route", "status"),
    )
    yield gauge("registered_backends", "Backends that are registered", {(): api.registered})
    yield counter(
        "registrations",
        "What became of registrations",
        {(change,): count for change, count in api.changes.items()},
        ("change",),
    )
