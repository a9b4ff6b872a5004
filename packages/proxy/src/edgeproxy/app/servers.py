"""What the servers of the control process answer with, imported when they are started and not before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeproxy.app.view import View
from edgeproxy.config import Config
from edgeproxy.core.controlplane.candidates import Candidates
from edgeproxy.core.controlplane.directory import labels_of
from edgeproxy.core.controlplane.names import Zone
from edgeproxy.core.dataplane.client import locate
from edgeproxy.runtime.geo_watch import GeoWatch
from edgeproxy.runtime.table_feed import TableFeed

if TYPE_CHECKING:
    from edgeproxy.inbound.dns_messages import Responder
    from edgeproxy.inbound.metrics_server import Handler


def dns_responder(config: Config, candidates: Candidates, feed: TableFeed, geo: GeoWatch) -> Responder:
    """What answers DNS by these settings."""
    # An import that takes an eighth of a second.
    from edgeproxy.inbound.dns_messages import Lifetimes, Responder

    pops = {
        region: tuple(pop.address for pop in config.dns_pops if pop.region == region)
        for region in config.geography.regions
    }
    return Responder(
        Zone(labels_of(config.dns_domain), config.region, config.geography.regions, pops),
        candidates,
        lambda: feed.table.version,
        lambda address: locate(address, geo.database.country, config.geography),
        Lifetimes(config.dns_ttl_secs, config.dns_negative_ttl_secs),
        config.dns_ecs_trusted,
    )


def metrics_routes(view: View) -> Callable[[Config], dict[str, Handler]]:
    """Metrics and status page of what ``view`` sees, at the paths of whatever settings are in force."""
    # Imports that take a third of a second.
    from edgeproxy.core.controlplane.metric_labels import BackendLabels
    from edgeproxy.inbound.metrics import Metrics, PopCollector
    from edgeproxy.inbound.metrics_control import ControlCollector
    from edgeproxy.inbound.status import StatusPage

    metrics = Metrics(PopCollector(view.overview, BackendLabels()), ControlCollector(view.control))
    pages = StatusPage(view.overview).routes()
    return lambda config: {**pages, config.metrics_path: metrics.answer}
