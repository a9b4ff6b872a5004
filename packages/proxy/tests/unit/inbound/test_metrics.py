"""That what is documented is what is served, and that there are never too many series."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from edgeproxy.core.controlplane.control_view import ApiCounts, ControlView, TransitionCounts
from edgeproxy.core.controlplane.events import Event, EventBus, Topic
from edgeproxy.core.controlplane.metric_labels import BackendLabels
from edgeproxy.core.controlplane.overview import BackendState, BackendView, CountryView, Overview
from edgeproxy.core.controlplane.replication_view import MemberView, ReplicationCounts, ReplicationView
from edgeproxy.core.dataplane.connects import Connects
from edgeproxy.inbound.metrics import PopCollector
from edgeproxy.inbound.metrics_control import ControlCollector

DOCS = Path(__file__).parents[5] / "docs"


def backend(name: str, state: BackendState = BackendState.READY, opened: int = 10) -> BackendView:
    connects = Connects()
    for _ in range(opened):
        connects.add(0.1, from_affinity=False)
    return BackendView(
        name,
        state,
        "web",
        "eu",
        "DE",
        hard_limit=7,
        opened=opened,
        active=2,
        bytes_received=30,
        bytes_sent=40,
        errors=5,
        connects=connects,
    )


def overview(*backends: BackendView) -> Overview:
    return Overview(
        version="1.2.3",
        node="pop-1",
        region="eu",
        started_at_s=1_700_000_000.0,
        uptime_s=5.0,
        workers=2,
        worker_restarts=1,
        worker_troubles={"lags": 3, "hangs": 0},
        table_version=3,
        table_age_s=0.25,
        bad_rows=1,
        clients=20,
        closes={"complete": 3, "no_backend": 4},
        backends=list(backends),
        countries=[CountryView("BR", 5, 1), CountryView("", 2, 1)],
        kernel_workers=2,
        kernel_connections=30,
        kernel_promotions=400,
        dns={"queries": {"udp": 1}, "replies": {"NOERROR": 1}, "over_limit": {"drop": 2}},
    )


def control() -> ControlView:
    bus = EventBus()
    bus.publish(Event(Topic.HEALTH, "a backend is ejected"))
    return ControlView(
        store_reachable=True,
        store_failures=1,
        transitions=TransitionCounts().counts(),
        circuits={"open": 1},
        events=bus.statistics(),
        api=ApiCounts(Counter({("GET", "/health", 200): 3}), Counter({"registered": 2}), 2),
        rate_limit={"allowed": 8, "refused": 2},
        replication=replication(),
    )


def replication() -> ReplicationView:
    other = MemberView(
        node="pop-b",
        state="alive",
        gossip="192.0.2.2:4001",
        transport="192.0.2.2:4002",
        since_s=60,
        connected=True,
        drift_ms=250,
        waiting_bytes=3,
    )
    return ReplicationView(
        node="pop-a",
        cluster="edgeproxy",
        sealed=True,
        origin="pop-a/1",
        running=True,
        namesake=None,
        doubt=0,
        members=(other,),
        known={"pop-a/1": 1, "pop-b/1": 2},
        lag={"pop-b/1": 4},
        pulling=None,
        store_waiting=1,
        refused_rows={"a": "CHECK constraint failed"},
        counts=ReplicationCounts(1, 2, 1, Counter({"clock": 1})),
        frames={"sent": {"changes": 1}, "received": {"digest": 1}, "dropped": {"changes": 1}},
        refused_peers={"key": 1},
        datagrams={"ping": 5},
        refused_datagrams={"cluster": 1},
    )


def scrape_all(*backends: BackendView) -> str:
    registry = CollectorRegistry()
    registry.register(PopCollector(lambda: overview(*backends), BackendLabels()))
    registry.register(ControlCollector(control))
    return generate_latest(registry).decode()


def scrape(*seen: Overview, limit: int = 3) -> dict[str, float]:
    """The series of the last of some looks at the same POP."""
    looks = iter(seen)
    registry = CollectorRegistry()
    registry.register(PopCollector(lambda: next(looks), BackendLabels(limit)))
    texts = [generate_latest(registry).decode() for _ in seen]
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in texts[-1].splitlines()
        if not line.startswith("#")
    }


def names(series: dict[str, float]) -> set[str]:
    return {each.partition("{")[0] for each in series}


# ---- bounded -------------------------------------------------------------------------------------


def test_backends_beyond_the_bound_are_summed_up() -> None:
    series = scrape(overview(*(backend(f"b{number}") for number in range(10))))
    assert series['edgeproxy_backend_connections_total{backend="b0"}'] == 10
    assert series['edgeproxy_backend_connections_total{backend="other"}'] == 70
    assert series['edgeproxy_backend_connections_active{backend="other"}'] == 14
    assert series['edgeproxy_backend_bytes_received_total{backend="other"}'] == 210
    assert series['edgeproxy_backend_bytes_sent_total{backend="other"}'] == 280
    assert series['edgeproxy_backend_errors_total{backend="other"}'] == 35
    assert series['edgeproxy_backend_rtt_seconds_count{backend="other"}'] == 70
    assert series["edgeproxy_bytes_sent_total"] == 400
    labels = {match[1] for each in series if (match := re.search(r'backend="([^"]*)"', each))}
    assert labels == {"b0", "b1", "b2", "other"}


def test_what_is_no_sum_is_not_said_of_the_others() -> None:
    series = scrape(overview(*(backend(f"b{number}") for number in range(5))))
    for name in ("backend_up", "backend_info", "backend_hard_limit"):
        assert [each for each in series if each.startswith(f"edgeproxy_{name}") and "other" in each] == []


def test_the_number_of_series_does_not_depend_on_the_number_of_backends() -> None:
    few, many = (scrape(overview(*(backend(f"b{n}") for n in range(count)))) for count in (4, 500))
    assert len(few) == len(many)


def test_the_series_of_a_backend_that_is_gone_stay_until_their_place_is_needed() -> None:
    first, gone = backend("a"), backend("a", BackendState.GONE)
    series = scrape(overview(first), overview(gone), limit=1)
    assert series['edgeproxy_backend_connections_total{backend="a"}'] == 10
    assert 'edgeproxy_backend_up{backend="a"}' not in series
    series = scrape(overview(first), overview(gone, backend("b", opened=1)), limit=1)
    assert 'edgeproxy_backend_connections_total{backend="a"}' not in series
    assert series['edgeproxy_backend_connections_total{backend="b"}'] == 1
    assert series['edgeproxy_selections_total{outcome="selection"}'] == 11


@pytest.mark.parametrize(
    ("state", "up"),
    [
        (BackendState.READY, 1),
        (BackendState.FULL, 1),
        (BackendState.EJECTED, 0),
        (BackendState.DOWN, 0),
    ],
)
def test_a_backend_is_up_when_it_may_be_given_clients(state: BackendState, up: int) -> None:
    assert scrape(overview(backend("a", state)))['edgeproxy_backend_up{backend="a"}'] == up


def test_of_what_is_switched_off_nothing_is_said() -> None:
    registry = CollectorRegistry()
    registry.register(
        ControlCollector(lambda: msgspec.structs.replace(control(), circuits=None, api=None, rate_limit=None))
    )
    text = generate_latest(registry).decode()
    for name in ("circuits", "api_requests", "registrations", "rate_limit_decisions"):
        assert f"edgeproxy_{name}" not in text
    assert "edgeproxy_store_up 1.0" in text


# ---- documented ----------------------------------------------------------------------------------


def documented(text: str) -> set[str]:
    return {name.rstrip("_") for name in re.findall(r"edgeproxy_[a-z_]+", text)}


@pytest.mark.feature("metrics.prometheus")
def test_the_document_lists_every_metric_with_its_type_and_labels() -> None:
    families = text_string_to_metric_families(scrape_all(backend("a")))
    served = set()
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels if label != "le"}
        served.add((name, family.type, frozenset(labels)))
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    listed = {(name, kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert listed == served


@pytest.mark.parametrize("name", ["alerts.yml", "grafana-dashboard.json"])
def test_dashboard_and_alerts_ask_for_metrics_that_exist(name: str) -> None:
    text = (DOCS / "operations" / name).read_text()
    asked = documented("\n".join(re.findall(r'(?:expr: |"expr": )(.*(?:\n {12}.*)*)', text)))
    assert len(asked) >= 5
    assert asked <= {re.split(r"[{ ]", line)[0] for line in scrape_all(backend("a")).splitlines()}


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads((DOCS / "operations" / "grafana-dashboard.json").read_text())["panels"]
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
