"""Composition root of the control process: builds every part, in the order in which data flows.

The only module besides ``edgeproxy.worker.__main__``, the root of the other kind of process, that
names adapters.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, MutableMapping
from functools import cached_property
from pathlib import Path
from random import random
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict, replace

from edgeproxy import __version__
from edgeproxy.config import Address, Config
from edgeproxy.config.load import SOURCE_DEFAULT
from edgeproxy.core.controlplane.candidates import Candidates
from edgeproxy.core.controlplane.directory import labels_of
from edgeproxy.core.controlplane.events import Event, EventBus, Priority, RecentEvents, Topic
from edgeproxy.core.controlplane.explain import Explanation, explain
from edgeproxy.core.controlplane.health import HealthSettings
from edgeproxy.core.controlplane.names import Zone
from edgeproxy.core.controlplane.outlier import CircuitSettings
from edgeproxy.core.controlplane.overview import Overview, backend_views, country_views
from edgeproxy.core.controlplane.registry import Refusal
from edgeproxy.core.controlplane.routing_table import RoutingTable, TableChange
from edgeproxy.core.controlplane.traffic import TrafficTotals
from edgeproxy.core.controlplane.verdicts import Verdicts, VerdictSettings
from edgeproxy.core.dataplane.admission import AccessLists
from edgeproxy.core.dataplane.affinity import binding_tag, country_code, holds, stable_key
from edgeproxy.core.dataplane.client import affinity_network, locate
from edgeproxy.core.dataplane.lifetime import Lifetimes
from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.dataplane.rate_limit import TokenBucket, client_tag
from edgeproxy.core.dataplane.selection import ANY_APP
from edgeproxy.core.wire.frames import GeoDatabaseChanged, Notice, RelayMode, Report, Start, TlsSettings
from edgeproxy.errors import ConfigError, EdgeproxyError, ListenError
from edgeproxy.inbound.admin import AdminServer
from edgeproxy.inbound.admin_commands import SetBackend
from edgeproxy.inbound.dns_port import DnsPort
from edgeproxy.inbound.metrics_port import MetricsPort
from edgeproxy.outbound.geo_maxmind import CountryDatabase, signature
from edgeproxy.outbound.probe_http import HttpProbe
from edgeproxy.outbound.probe_tcp import TcpProbe
from edgeproxy.outbound.resolver_system import SystemResolver
from edgeproxy.ports import Operation, Probe, RowChange
from edgeproxy.runtime import affinity_file
from edgeproxy.runtime.affinity_sweep import sweep_bindings
from edgeproxy.runtime.certificate_watch import CertificateWatch
from edgeproxy.runtime.change_log_upkeep import keep_change_log
from edgeproxy.runtime.event_bus import EventFeed
from edgeproxy.runtime.geo_watch import GeoWatch
from edgeproxy.runtime.handover import Bequest, Estate, Inheritance, Predecessor, receive
from edgeproxy.runtime.health_checks import HealthChecks
from edgeproxy.runtime.limits import raise_descriptor_limit
from edgeproxy.runtime.listeners import Listeners, adopt_listeners, open_listeners
from edgeproxy.runtime.reload import Reloader
from edgeproxy.runtime.supervisor import Supervisor
from edgeproxy.runtime.table_feed import TableFeed, events_of, log_issues
from edgeproxy.runtime.upgrade import Successor, command_line, reclaim_rows, start_successor
from edgeproxy.runtime.verdict_feed import VerdictFeed
from edgeproxy.stores import open_file, open_store, open_store_to_serve, open_tokens
from edgeproxy.worker.shared_state import SharedState, create_segment, has_capacities

if TYPE_CHECKING:
    from edgeproxy.inbound.api import ApiServer
    from edgeproxy.inbound.api_port import ApiPort
    from edgeproxy.inbound.dns import DnsServer
    from edgeproxy.inbound.metrics_server import MetricsServer
    from edgeproxy.runtime.logs import Logger

WORKER_PROGRAM = (sys.executable, "-P", "-m", "edgeproxy.worker")
"""``-P``: a file in the working directory must not be taken for a module of the same name."""

BUCKET_SWEEP_INTERVAL_S = 60.0
"""How often clients are forgotten whose token buckets are full again."""

NAMES_AT_START_S = 2.0
"""How long the first client waits for names of backends to resolve, before they are left for later."""


SAME_REQUEST_S = 0.5
"""Signals this close are one request to stop: ``timeout`` and Ctrl-C tell the process, then its group."""


def find_predecessor(environ: MutableMapping[str, str]) -> Predecessor | None:
    """The control process that started this one to be succeeded by it, ``None`` when none did.

    Raises:
        EdgeproxyError: see :func:`edgeproxy.runtime.handover.receive`.
    """
    return receive(environ)


def run(
    config: Config,
    load: Callable[[], Config] | None = None,
    config_file: Path | None = None,
    predecessor: Predecessor | None = None,
) -> int:
    """Run the proxy until SIGTERM or SIGINT, or until a successor serves; return the exit code.

    ``load`` reads the settings again, from the same sources, of which ``config_file`` is one.
    ``predecessor`` is the proxy that this one is an upgrade of.

    Raises:
        EdgeproxyError: it cannot start.
    """
    return asyncio.run(App(config, load, config_file, predecessor).serve())


class App:
    """The control process of one POP. Constructing it binds the addresses and starts the workers."""

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config] | None = None,
        config_file: Path | None = None,
        predecessor: Predecessor | None = None,
    ) -> None:
        self._config = config
        self._predecessor = predecessor
        self._successor: Successor | None = None
        self._upgrade: asyncio.Task[Successor] | None = None
        self._signalled_upgrade: asyncio.Task[None] | None = None
        self._is_serving = False
        estate = predecessor.estate if predecessor is not None else None
        inherited = Inheritance(estate.bequests if estate is not None else ())
        self._config_file = config_file
        self._reloader = Reloader(config, load or (lambda: config), self._apply)
        self._started_s = monotonic()
        self._told_to_stop_s: float | None = None
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = contextlib.ExitStack()
        if config.state_dir is not None:
            with contextlib.suppress(OSError):  # what needs it says so itself
                config.state_dir.mkdir(parents=True, exist_ok=True)
        self._descriptors = raise_descriptor_limit()
        self._listeners = _open_all_listeners(config, inherited)
        self._certificates: CertificateWatch | None = None
        self.address = self._listeners[0].address
        self._dns_port = _dns_port(config, inherited) if config.dns_enabled else None
        self._dns: DnsServer | None = None
        self._candidates: Candidates | None = None
        self._api_port = _api_port(config, inherited) if config.api_enabled else None
        self._api: ApiServer | None = None
        self._metrics_port = _metrics_port(config, inherited) if config.metrics_enabled else None
        self._metrics: MetricsServer | None = None
        self._rate_limit = _rate_limit(config)
        saved = None
        if estate is not None:
            self._segment_fd = _inherited_segment(config, estate.segment_fd)
        else:
            saved = affinity_file.load(config.state_dir) if config.state_dir is not None else None
            self._segment_fd = create_segment(
                config.workers,
                config.affinity_capacity,
                saved.secret if saved is not None else None,
                _clients_capacity(config),
            )
        self._state = SharedState(self._segment_fd)
        if saved is not None:
            affinity_file.restore(saved, self._state, monotonic(), time(), config.binding_ttl_secs)
        self._traffic = TrafficTotals()
        self._events = EventFeed(EventBus(), wall_clock=time)
        self._recent_events = RecentEvents()
        self._events.bus.subscribe("log", self._log_event)
        self._events.bus.subscribe("recent", self._recent_events)
        self._supervisor = Supervisor(
            WORKER_PROGRAM,
            [
                [sock for each in self._listeners for sock in each.share(place, config.workers)]
                for place in range(config.workers)
            ],
            self._segment_fd,
            self._state,
            observer=self,
            rows=self._state.claim_rows(config.workers),
        )
        # While the workers boot, what they will be given is read.
        try:
            if any(each.terminates_tls for each in _listenings(config)):
                self._certificates = _certificates(config)
            self._geo = GeoWatch(config.geoip_path, CountryDatabase.open, signature)
            self._store = self._open.enter_context(open_store_to_serve(config, self._rows_changed))
            self._feed = TableFeed(
                self._store,
                RoutingTable(config.geography, slots=estate.slots if estate is not None else None),
                SystemResolver().resolve,
                self._state.connections,
                config.db_reload_secs,
                on_change=self._follow,
            )
            self._verdicts = self._verdict_feed()
            self._checks = self._health_checks()
            self._first_rows = self._feed.load()
            self._admin = AdminServer(
                config.admin_socket,
                {
                    "events": self._answer_events,
                    "explain": self._answer_explain,
                    "reload": lambda _request: self._reloader.reload(self._log),
                    "overview": lambda _request: self._overview(),
                    "rate_limit": self._answer_rate_limit,
                    "set_backend": SetBackend(self._write_row, config.geography, self._feed.refresh),
                    "stats": self._answer_stats,
                    "table": self._answer_table,
                    "upgrade": self._answer_upgrade,
                },
                inherited.take("admin", str(config.admin_socket.absolute())),
            )
            inherited.close()
        except BaseException:
            self._supervisor.kill()
            self._close_listeners()
            self._open.close()
            raise

    @cached_property
    def _log(self) -> Logger:
        # Takes longer to import than everything before the first client takes to run, so nothing that a
        # start must wait for logs anything unless there is a problem to tell.
        from edgeproxy.runtime.logs import open_log

        return open_log(lambda: self._config.log_level, self._config.log_format)

    async def serve(self) -> int:
        """Serve until told to stop, then drain; return the exit code.

        Raises:
            EdgeproxyError: the workers do not come up.
        """
        with self._open:
            return await self._serve()

    async def _serve(self) -> int:
        stop = self._stop
        self._loop = asyncio.get_running_loop()
        telling = asyncio.create_task(self._events.run())
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signum, self._on_signal, stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._loop.add_signal_handler(signal.SIGUSR2, self._on_upgrade)
        try:
            await self._admin.start()
            if self._feed.has_names():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(NAMES_AT_START_S):
                        await self._feed.resolve_names(self._supervisor, self._log)
            await self._supervisor.start(self._worker_settings(self._config), self._feed)
            if self._certificates is not None:
                self._certificates.tell(self._log)
            log_issues(self._first_rows, self._log)
            self._follow(self._first_rows)
            if self._dns_port is not None:
                self._dns = self._dns_server(self._dns_port)
                await self._dns.start()
            if self._api_port is not None:
                self._api = self._api_server(self._api_port)
                await self._api.start()
            if self._metrics_port is not None:
                self._metrics = self._metrics_server(self._metrics_port)
                await self._metrics.start()
            self._tell(
                Topic.CONFIG,
                "listening",
                priority=Priority.NORMAL,  # behind the rows it listens with
                address=self.address,
                further=[listeners.address for listeners in self._listeners[1:]],
                dns=self._dns_port.address if self._dns_port is not None else None,
                api=self._api_port.address if self._api_port is not None else None,
                metrics=self._metrics_port.address if self._metrics_port is not None else None,
                version=__version__,
                pid=os.getpid(),
                region=self._config.region,
                workers=self._config.workers,
                backends=len(self._feed.table.snapshot()),
                database=str(self._store),
                countries=str(self._geo.database.description),
                descriptors=self._descriptors,
                predecessor=self._predecessor.estate.pid if self._predecessor is not None else None,
            )
            self._is_serving = True
            if self._predecessor is not None:
                self._predecessor.relieve(__version__)
            exit_code = await self._work_until(stop)
        except BaseException:
            if self._predecessor is not None:
                self._admin.yield_path()  # to the predecessor, which goes on
            self._supervisor.kill()
            self._close_listeners()
            self._events.flush()
            raise
        finally:
            await self._admin.stop()
            if self._dns is not None:
                await self._dns.stop()
            if self._dns_port is not None:
                self._dns_port.close()
        if self._api is not None:
            self._api.drain()
        self._tell(
            Topic.DRAIN,
            "draining",
            timeout_s=self._config.shutdown_timeout_secs,
            successor=self._successor.pid if self._successor is not None else None,
        )
        # With these open, clients would go on being queued after the workers have closed theirs, for nobody.
        self._close_listeners()
        timeout_s = self._config.shutdown_timeout_secs
        if self._successor is None:
            reset = await self._supervisor.stop(timeout_s)
            self._save_affinity()
        else:
            reset, _ = await asyncio.gather(
                self._supervisor.stop(timeout_s, staggered=True), self._leave_ports()
            )
        if self._api is not None:
            await self._api.stop()
        if self._metrics is not None:
            await self._metrics.stop()
        self._tell(Topic.DRAIN, "stopped", sessions_reset=reset)
        telling.cancel()
        self._events.flush()
        # The loop's end would give signals their default effect again, and one more of an impatient
        # user would turn the exit code of an orderly stop into that of a kill.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        return exit_code

    async def _leave_ports(self) -> None:
        """Answer nobody any more on the ports that the successor serves."""
        if self._api is not None:
            await self._api.stop()
            self._api = None
        if self._metrics is not None:
            await self._metrics.stop()
            self._metrics = None

    def _rows_changed(self) -> None:
        """Called by the store, in a thread of its own."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._feed.poll_soon)

    def _close_listeners(self) -> None:
        for listeners in self._listeners:
            listeners.close()

    async def _work_until(self, stop: asyncio.Event) -> int:
        """Keep the workers' state up to date; return the exit code."""
        config = self._config
        jobs = [
            self._supervisor.watch(),
            self._feed.watch(self._supervisor, self._log),
            self._feed.watch_names(self._supervisor, self._log),
            keep_change_log(self._store, self._log),
            self._geo.watch(self._log, lambda: self._supervisor.broadcast(GeoDatabaseChanged())),
            sweep_bindings(self._state, lambda: config.binding_ttl_secs, config.binding_gc_interval_secs),
            reclaim_rows(self._state.reclaim_rows),
        ]
        if self._predecessor is not None:
            jobs.append(self._predecessor.gone())
        if self._verdicts is not None:
            jobs.append(self._verdicts.run(self._supervisor))
        if self._checks is not None:
            jobs.append(self._checks.run())
        if self._certificates is not None:
            jobs.append(self._certificates.watch(self._log, self._supervisor.show_identities))
        if self._rate_limit is not None:
            jobs.append(sweep_bindings(self._state.clients, self._bucket_fill_s, BUCKET_SWEEP_INTERVAL_S))
        if self._api is not None:
            jobs.append(self._api.run())
        if config.config_watch_enabled and self._config_file is not None:
            interval_s = config.config_watch_interval_secs
            jobs.append(self._reloader.watch(self._config_file, interval_s, self._log))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(job) for job in jobs]
                await stop.wait()
                for task in tasks:
                    task.cancel()
        except ExceptionGroup as failures:
            why = "; ".join(f"{type(each).__name__}: {each}" for each in failures.exceptions)
            self._log.critical("the control process failed, stopping", why=why, exc_info=failures)
            return EdgeproxyError.exit_code
        return 0

    def _verdict_feed(self) -> VerdictFeed | None:
        settings = _verdict_settings(self._config)
        if settings.checks is None and settings.circuits is None:
            return None
        apps = {each.app for each in _listenings(self._config)}
        return VerdictFeed(
            Verdicts(settings, all_are_a_pool=ANY_APP in apps),
            self._feed.table,
            self._state.grant_trial,
            self._events.publish,
        )

    def _health_checks(self) -> HealthChecks | None:
        config, feed = self._config, self._verdicts
        if feed is None or not config.health_check_enabled:
            return None
        return HealthChecks(
            _probe(config),
            interval_s=config.health_check_interval_secs,
            timeout_s=config.health_check_timeout_secs,
            addresses=self._feed.addresses,
            next_check_s=feed.verdicts.next_check_s,
            on_result=feed.checked,
            on_unable=lambda why: self._tell(
                Topic.HEALTH, "backends cannot be checked by this machine", level="error", why=why
            ),
            draw=random,
        )

    def _follow(self, change: TableChange) -> None:
        """The rows have changed, or were read for the first time."""
        self._events.publish(*events_of(change, self._state.connections))
        if self._verdicts is not None:
            self._verdicts.follow(change)
        if self._checks is not None:
            self._checks.follow(change)

    def _dns_server(self, port: DnsPort) -> DnsServer:
        # Imports that take an eighth of a second, while the workers serve already.
        from edgeproxy.inbound.dns import DnsServer
        from edgeproxy.inbound.dns_messages import Lifetimes, Responder

        config, table = self._config, self._feed.table
        pops = {
            region: tuple(pop.address for pop in config.dns_pops if pop.region == region)
            for region in config.geography.regions
        }
        self._candidates = Candidates(
            config.region,
            table,
            self._state,
            lambda: {each.host: each.addresses for each in self._feed.resolved_hosts()},
            _panic_threshold(config),
        )
        responder = Responder(
            Zone(labels_of(config.dns_domain), config.region, config.geography.regions, pops),
            self._candidates,
            lambda: table.version,
            lambda address: locate(address, self._geo.database.country, config.geography),
            Lifetimes(config.dns_ttl_secs, config.dns_negative_ttl_secs),
            config.dns_ecs_trusted,
        )
        return DnsServer(port, responder, config.dns_rate_limit)

    def _api_server(self, port: ApiPort) -> ApiServer:
        # Imports that take a third of a second, while the workers serve already.
        from edgeproxy.inbound.api import ApiServer
        from edgeproxy.outbound.leases_sqlite import SqliteLeases

        return ApiServer(
            port,
            self._config,
            self._feed,
            SqliteLeases(open_file(self._config, "api")),
            lambda client, app: self._answer_explain({"client": client, "app": app}),
            self._supervisor.any_ready,
            __version__,
            self._log,
        )

    def _metrics_server(self, port: MetricsPort) -> MetricsServer:
        # Imports that take a third of a second, while the workers serve already.
        from edgeproxy.core.controlplane.metric_labels import BackendLabels
        from edgeproxy.inbound.metrics import Metrics
        from edgeproxy.inbound.metrics_server import MetricsServer
        from edgeproxy.inbound.status import StatusPage

        metrics = Metrics(self._overview, BackendLabels())
        pages = StatusPage(self._overview).routes()
        return MetricsServer(port, {**pages, self._config.metrics_path: metrics.answer})

    def _on_signal(self, stop: asyncio.Event) -> None:
        if self._told_to_stop_s is None:
            self._told_to_stop_s = monotonic()
        elif monotonic() - self._told_to_stop_s > SAME_REQUEST_S:
            self._log.warning("told to stop a second time, ending at once")
            self._supervisor.reset()
        if self._upgrade is not None:
            self._upgrade.cancel()
        # A service manager may have told the workers too; whoever ends from here on does as he was told.
        self._supervisor.retire()
        stop.set()

    def _on_hangup(self) -> None:
        with contextlib.suppress(ConfigError):  # said already
            self._reloader.reload(self._log)

    def _on_upgrade(self) -> None:
        async def upgrade() -> None:
            with contextlib.suppress(EdgeproxyError):  # said already
                await self._answer_upgrade({})

        self._signalled_upgrade = asyncio.create_task(upgrade())

    async def _answer_upgrade(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Have a successor serve; answer when it does, or why it cannot."""
        if not self._is_serving or self._stop.is_set():
            raise EdgeproxyError("cannot upgrade: the proxy is only starting, or is stopping already")
        if self._upgrade is not None:
            raise EdgeproxyError("an upgrade is under way already")
        self._tell(Topic.CONFIG, "upgrading", version=__version__)
        self._upgrade = asyncio.create_task(self._start_successor())
        try:
            successor = await self._upgrade
        except EdgeproxyError as error:
            self._tell(Topic.CONFIG, "the upgrade failed", level="error", why=str(error))
            raise
        finally:
            self._upgrade = None
        self._successor = successor
        self._tell(Topic.CONFIG, "upgraded", successor=successor.pid, version=successor.version)
        self._admin.yield_path()
        self._stop.set()
        return {"pid": successor.pid, "version": successor.version, "predecessor": os.getpid()}

    async def _start_successor(self) -> Successor:
        async with self._feed.paused():
            return await start_successor(command_line(), self._estate())

    def _estate(self) -> Estate:
        config = self._config
        bequests = [
            Bequest("listener", str(address), listeners.descriptors)
            for address, listeners in zip(_addresses(config), self._listeners, strict=True)
        ]
        if self._dns_port is not None:
            bequests.append(Bequest("dns", str(config.dns_listen_addr), self._dns_port.descriptors))
        if self._api_port is not None:
            bequests.append(Bequest("api", str(config.api_listen_addr), (self._api_port.socket.fileno(),)))
        if self._metrics_port is not None:
            bequests.append(
                Bequest("metrics", str(config.metrics_listen_addr), (self._metrics_port.socket.fileno(),))
            )
        admin = str(config.admin_socket.absolute())
        bequests.append(Bequest("admin", admin, (self._admin.descriptor,)))
        return Estate(os.getpid(), __version__, self._segment_fd, self._feed.table.slots, tuple(bequests))

    def _apply(self, config: Config) -> None:
        self._config = config
        self._rate_limit = _rate_limit(config)
        self._supervisor.change_settings(self._worker_settings(config))
        if self._verdicts is not None:
            self._verdicts.change_settings(_verdict_settings(config))
        if self._checks is not None:
            self._checks.change_settings(
                _probe(config),
                interval_s=config.health_check_interval_secs,
                timeout_s=config.health_check_timeout_secs,
            )
        if self._candidates is not None:
            self._candidates.set_panic_threshold(_panic_threshold(config))

    def _worker_settings(self, config: Config) -> Start:
        settings = _worker_settings(config)
        of_each = [
            listening
            for listening, listeners in zip(settings.listeners, self._listeners, strict=True)
            for _ in range(listeners.per_worker(config.workers))
        ]
        settings = replace(settings, listeners=tuple(of_each))
        if self._certificates is None:
            return settings
        tls = TlsSettings(
            identities=self._certificates.identities,
            alpn=config.tls_alpn,
            handshake_timeout_s=config.tls_handshake_timeout_secs,
            max_handshakes=config.tls_max_handshakes,
        )
        return replace(settings, tls=tls)

    def _save_affinity(self) -> None:
        state_dir = self._config.state_dir
        if state_dir is None:
            return
        try:
            saved = affinity_file.save(
                state_dir, self._state, monotonic(), time(), self._config.binding_ttl_secs
            )
        except OSError as error:
            self._log.warning("affinity is not saved", folder=str(state_dir), why=str(error))
        else:
            self._log.info("affinity saved", bindings=saved, folder=str(state_dir))

    # ---- what workers say (runtime.supervisor.Observer) --------------------------------------

    def reported(self, worker: int, report: Report) -> None:
        self._traffic.add(worker, report)
        if self._verdicts is not None:
            self._verdicts.reported(report)
        for session in report.sessions:
            self._log.info(
                "session",
                client=session.client,
                country=session.country,
                backend=session.backend,
                score=round(session.score, 6),
                affinity=session.from_affinity,
                bytes_received=session.bytes_received,
                bytes_sent=session.bytes_sent,
                duration_s=round(session.duration_s, 6),
                reason=session.reason,
                tries=session.tries,
            )
        if report.sessions_dropped:
            self._log.warning("the access log did not keep up", sessions_lost=report.sessions_dropped)

    def noticed(self, worker: int, notice: Notice) -> None:
        getattr(self._log, notice.level)(notice.event, worker=worker, **notice.fields)

    def died(self, worker: int, pid: int, exit_code: int) -> None:
        self._traffic.worker_died(worker)
        self._tell(
            Topic.WORKER,
            "a worker died, starting another",
            level="error",
            worker=worker,
            pid=pid,
            exit_code=exit_code,
        )

    def undecodable(self, worker: int, why: str) -> None:
        what = "a worker sent what is no frame, ending it"
        self._tell(Topic.WORKER, what, level="error", worker=worker, why=why)

    def not_started(self, worker: int, why: str) -> None:
        what = "a worker cannot be started, trying again"
        self._tell(Topic.WORKER, what, level="error", worker=worker, why=why)

    # ---- events ------------------------------------------------------------------------------

    def _tell(
        self,
        topic: Topic,
        name: str,
        *,
        priority: Priority = Priority.CRITICAL,
        level: str = "info",
        **fields: Any,
    ) -> None:
        self._events.publish(Event(topic, name, fields, priority, level))

    def _log_event(self, event: Event) -> None:
        getattr(self._log, event.level)(event.name, **event.fields)

    # ---- what can be seen from outside -------------------------------------------------------

    def _overview(self) -> Overview:
        table, uptime_s = self._feed.table, monotonic() - self._started_s
        return Overview(
            version=__version__,
            node=self._config.replication_node_id,
            region=self._config.region,
            started_at_s=time() - uptime_s,
            uptime_s=uptime_s,
            workers=len(self._supervisor.pids()),
            worker_restarts=self._supervisor.restarts,
            table_version=table.version,
            table_age_s=monotonic() - self._feed.read_at_s,
            bad_rows=len(table.issues),
            clients=self._traffic.clients,
            closes=self._traffic.closes,
            backends=backend_views(table.snapshot(), self._state.connections, self._traffic),
            countries=country_views(self._traffic),
            dns=self._dns.stats() if self._dns is not None else None,
        )

    # ---- what the admin socket answers -------------------------------------------------------

    def _answer_explain(self, request: dict[str, Any]) -> Explanation:
        address, app = request.get("client"), request.get("app")
        if not isinstance(address, str):
            raise ValueError("explain needs a client, an IP address as text")
        if not (app is None or isinstance(app, str)):
            raise ValueError("explain takes an app as text")
        app = app or self._config.app or ANY_APP
        client = locate(address, self._geo.database.country, self._config.geography)
        tag = binding_tag(self._state.secret, stable_key(app), affinity_network(client.address))
        self._state.lock(tag)
        binding = self._state.get(tag)
        self._state.unlock(tag)
        bound_to = None
        if binding is not None and holds(
            binding, country_code(client.country), monotonic(), self._config.binding_ttl_secs
        ):
            ids = (placed.backend.id for placed in self._feed.table.snapshot())
            bound_to = next((i for i in ids if stable_key(i) == binding.backend_key), None)
        return explain(
            client,
            app,
            self._config.region,
            self._feed.table.snapshot(),
            self._state.connections,
            bound_to,
            counts_known=True,
            why=self._why,
            panic_threshold=_panic_threshold(self._config),
            connections_allowed=self._connections_allowed(client.address),
        )

    def _bucket_fill_s(self) -> float:
        """How long an unused token bucket takes to be full again, whatever it held."""
        return self._rate_limit.fill_s if self._rate_limit is not None else 0.0

    def _why(self, backend_id: str) -> str:
        return self._verdicts.verdicts.why(backend_id, monotonic()) if self._verdicts is not None else ""

    def _connections_allowed(self, address: str) -> float | None:
        if self._rate_limit is None:
            return None
        return self._state.clients.remaining(self._rate_limit, self._client_tag(address), monotonic())

    def _client_tag(self, address: str) -> int:
        return client_tag(self._state.secret, affinity_network(address))

    def _answer_events(self, request: dict[str, Any]) -> dict[str, Any]:
        """The latest events, of one ``topic`` if that is given, and what the bus has counted."""
        count, topic = request.get("count", 100), request.get("topic")
        if not isinstance(count, int) or count < 0:
            raise ValueError("events takes a count as a whole number")
        if topic is not None and topic not in list(Topic):
            raise ValueError(f"there is no topic {topic!r}; there are: {', '.join(Topic)}")
        return {
            "events": self._recent_events.latest(count, Topic(topic) if topic is not None else None),
            "statistics": self._events.bus.statistics(),
        }

    def _answer_rate_limit(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a client may still do; with ``clear``, make it a new client, or without ``client`` all."""
        address, clear = request.get("client"), request.get("clear", False)
        if self._rate_limit is None:
            raise ValueError("there is no rate limit; set EDGEPROXY_RATE_LIMIT_ENABLED")
        if not (address is None or isinstance(address, str)) or (address is None and clear is not True):
            raise ValueError("rate_limit needs a client, an IP address as text, or clear for all clients")
        if address is None:
            return {"cleared": self._state.clients.clear_all()}
        if clear:
            self._state.clients.clear(self._client_tag(address))
        return {"client": address, "connections_allowed": self._connections_allowed(address)}

    def _answer_table(self, _request: dict[str, Any]) -> dict[str, Any]:
        table = self._feed.table
        return {
            "version": table.version,
            "age_s": monotonic() - self._feed.read_at_s,
            "backends": [asdict(placed.backend) for placed in table.snapshot()],
            "issues": [str(issue) for issue in table.issues],
        }

    def _write_row(self, operation: Operation[Refusal]) -> RowChange | Refusal:
        with open_store(self._config, "ctl") as store:
            return store.apply(operation)

    def _answer_stats(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "address": self.address,
            "uptime_s": monotonic() - self._started_s,
            "workers": self._supervisor.pids(),
            "worker_restarts": self._supervisor.restarts,
            "table_version": self._feed.table.version,
            "dns": self._dns.stats() if self._dns is not None else None,
            "backends": {
                placed.backend.id: self._state.connections(placed.slot)
                for placed in self._feed.table.snapshot()
            },
            "traffic": self._traffic.rows(),
            "closes": self._traffic.closes,
            "connect_errors": self._traffic.connect_errors,
            "verdicts": (
                self._verdicts.verdicts.statuses(monotonic()) if self._verdicts is not None else None
            ),
            "events": self._events.bus.statistics(),
        }


def explain_offline(config: Config, address: str, app: str | None) -> Explanation:
    """What a proxy with these settings would do for ``address``, taking all backends for idle.

    Raises:
        EdgeproxyError: the database or the country database cannot be used.
        ValueError: ``address`` is no IP address.
    """
    table = RoutingTable(config.geography)
    with open_store(config, "cli") as store:
        table.replace(store.poll() or ())
    with contextlib.closing(CountryDatabase.open(config.geoip_path)) as countries:
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


def _dns_port(config: Config, inherited: Inheritance) -> DnsPort:
    return DnsPort(*config.dns_listen_addr, inherited.take("dns", str(config.dns_listen_addr)))


def _api_port(config: Config, inherited: Inheritance) -> ApiPort:
    from edgeproxy.inbound.api_port import ApiPort

    source = config.sources["api_listen_addr"]
    chosen_by = None if source == SOURCE_DEFAULT else source
    return ApiPort(
        config.api_listen_addr,
        open_tokens(config),
        chosen_by=chosen_by,
        inherited=inherited.take("api", str(config.api_listen_addr)),
    )


def _addresses(config: Config) -> list[Address]:
    """That of the main listener, then those of the further ones."""
    further = [each.address for each in config.listeners]
    if config.tls_enabled:
        further.append(config.tls_listen_addr)
    return [config.listen_addr, *further]


def _open_all_listeners(config: Config, inherited: Inheritance) -> list[Listeners]:
    """Open the listeners that are not ``inherited``; all or none."""
    opened: list[Listeners] = []
    try:
        for address in _addresses(config):
            if sockets := inherited.take("listener", str(address)):
                opened.append(adopt_listeners(sockets, config.workers))
            else:
                opened.append(open_listeners(*address, config.workers))
    except ListenError:
        for listeners in opened:
            listeners.close()
        raise
    return opened


def _metrics_port(config: Config, inherited: Inheritance) -> MetricsPort:
    address = config.metrics_listen_addr
    is_default = config.sources["metrics_listen_addr"] == SOURCE_DEFAULT
    return MetricsPort(address, is_default=is_default, inherited=inherited.take("metrics", str(address)))


def _worker_settings(config: Config) -> Start:
    every = {"off": 0, "sampled": config.access_log_sample, "all": 1}[config.access_log]
    return Start(
        worker=0,
        pop_region=config.region,
        listeners=_listenings(config),
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
        connect_timeout_s=config.pool_connect_timeout_secs,
        backend_rules=config.backend_rules,
        retry_budget_percent=config.retry_budget_percent,
        opening_timeout_s=config.opening_timeout_secs,
        lifetimes=Lifetimes(config.idle_timeout_secs, config.half_close_timeout_secs, config.max_age_secs),
        shutdown_timeout_s=config.shutdown_timeout_secs,
        access_log_every=every,
        panic_threshold=_panic_threshold(config),
        watch_outcomes=config.circuit_breaker_enabled,
        rate_limit=_rate_limit(config),
    )


def _listenings(config: Config) -> tuple[Listening, ...]:
    main = Listening(app=config.app or ANY_APP)
    tls = [replace(main, terminates_tls=True)] if config.tls_enabled else []
    return main, *(each.listening for each in config.listeners), *tls


def _certificates(config: Config) -> CertificateWatch:
    # Imports that take a tenth of a second, while the workers boot.
    from edgeproxy.outbound.certificates_files import CertificateFiles

    return CertificateWatch(CertificateFiles(config.tls_cert, config.tls_key, config.tls_cert_dir))


def _inherited_segment(config: Config, segment_fd: int) -> int:
    if not has_capacities(segment_fd, config.affinity_capacity, _clients_capacity(config)):
        names = "EDGEPROXY_AFFINITY_CAPACITY, EDGEPROXY_RATE_LIMIT_CAPACITY or EDGEPROXY_RATE_LIMIT_ENABLED"
        raise ConfigError(
            [f"{names} has changed, and an upgrade keeps the shared segment: restart the proxy"]
        )
    return segment_fd


def _clients_capacity(config: Config) -> int:
    return config.rate_limit_capacity if config.rate_limit_enabled else 0


def _rate_limit(config: Config) -> TokenBucket | None:
    if not config.rate_limit_enabled:
        return None
    return TokenBucket(
        burst=config.rate_limit_burst,
        per_s=config.rate_limit_max_requests / config.rate_limit_window_secs,
    )


def _probe(config: Config) -> Probe:
    return HttpProbe(config.health_check_path) if config.health_check_type == "http" else TcpProbe()


def _panic_threshold(config: Config) -> float:
    return config.panic_threshold_percent / 100


def _verdict_settings(config: Config) -> VerdictSettings:
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
        panic_threshold=_panic_threshold(config),
    )


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
