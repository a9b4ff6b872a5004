"""Replication in Prometheus's words: who is there, what is lacking, whose clock is wrong, who is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric

from edgeproxy.core.controlplane.replication_view import ReplicationView
from edgeproxy.core.replication.commands import Cause
from edgeproxy.core.replication.members import State
from edgeproxy.inbound.metric_families import counter, gauge


def replication_metrics(view: ReplicationView) -> Iterator[Metric]:
    """All of one look. Labels are names of POPs and words from fixed sets."""
    others = [member for member in view.members if member.node != view.node]
    states = Counter(member.state for member in others)
    yield gauge(
        "replication_members",
        "Other POPs of the cluster by state",
        {(state.name.lower(),): states[state.name.lower()] for state in State},
        ("state",),
    )
    yield gauge(
        "replication_connected",
        "Whether there is a connection with that POP",
        {(member.node,): member.connected for member in others},
        ("pop",),
    )
    lag: Counter[str] = Counter({(pop_of(origin)): 0 for origin in view.known})
    for origin, missing in view.lag.items():
        lag[pop_of(origin)] += missing
    yield gauge(
        "replication_lag_changes",
        "Changes of that POP that others have and this one lacks",
        {(pop,): missing for pop, missing in lag.items()},
        ("pop",),
    )
    yield gauge(
        "replication_clock_drift_seconds",
        "How far the wall clock of that POP was ahead of ours",
        {(each.node,): each.drift_ms / 1000 for each in others if each.drift_ms is not None},
        ("pop",),
    )
    yield gauge(
        "replication_queue_bytes",
        "Waiting to be sent to that POP",
        {(member.node,): member.waiting_bytes for member in others},
        ("pop",),
    )
    yield gauge(
        "replication_store_waiting", "Steps that wait for the routing database", {(): view.store_waiting}
    )
    yield gauge(
        "replication_rows_refused",
        "Rows of other POPs that the table does not take",
        {(): len(view.refused_rows)},
    )
    yield counter(
        "replication_changes",
        "Changes that were made here, and that came from others",
        {("here",): view.counts.written, ("elsewhere",): view.counts.applied},
        ("made",),
    )
    yield counter(
        "replication_frames",
        "Messages sent to and received from other POPs, and dropped for want of room",
        {(direction, kind): n for direction, kinds in view.frames.items() for kind, n in kinds.items()},
        ("direction", "kind"),
    )
    yield counter(
        "replication_datagrams",
        "Datagrams of membership that were sent, by kind",
        {(kind,): count for kind, count in view.datagrams.items()},
        ("kind",),
    )
    yield gauge(
        "replication_doubt",
        "From 0 to 4: how far this POP doubts itself, because others do not answer it in time",
        {(): view.doubt},
    )
    refused: dict[tuple[str, ...], float] = {
        ("connection", reason): count for reason, count in view.refused_peers.items()
    }
    refused |= {("datagram", reason): count for reason, count in view.refused_datagrams.items()}
    yield counter("replication_refused", "What was refused of others", refused, ("what", "reason"))
    yield counter(
        "replication_warnings",
        "Warnings by cause",
        {(str(cause),): view.counts.warnings[cause] for cause in Cause},
        ("cause",),
    )
    yield counter(
        "replication_store_failures",
        "Times that the routing database could not be replicated",
        {(): view.counts.store_failures},
    )


def pop_of(origin: str) -> str:
    """The POP of an origin, which has one for each state its database went back to."""
    return origin.rpartition("/")[0] or origin
