"""The control process of one POP: builds every part, in the order in which data flows, and runs them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from random import random
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from edgeproxy import __version__
from edgeproxy.app.groundwork import Groundwork
from edgeproxy.app.parts import (
    listenings,
    panic_threshold,
    rate_limit,
    tls_settings,
    verdict_settings,
    worker_settings,
)
from edgeproxy.app.upgrading import Upgrading
from edgeproxy.app.view import View
from edgeproxy.app.worker_news import WorkerNews
from edgeproxy.config import Config
from edgeproxy.core.controlplane.control_view import TransitionCounts
from edgeproxy.core.controlplane.events import Event, EventBus, Priority, RecentEvents, Topic
from edgeproxy.core.controlplane.registry import Refusal
from edgeproxy.core.controlplane.routing_table import RoutingTable, TableChange
from edgeproxy.core.controlplane.traffic import TrafficTotals
from edgeproxy.core.controlplane.verdicts import Verdicts
from edgeproxy.core.dataplane.selection import ANY_APP
from edgeproxy.core.wire.frames import GeoDatabaseChanged, Start, TlsSettings
from edgeproxy.errors import ConfigError, EdgeproxyError
from edgeproxy.inbound.admin import AdminServer
from edgeproxy.inbound.admin_commands import SetBackend
from edgeproxy.inbound.dns_port import DnsPort
from edgeproxy.inbound.metrics_port import MetricsPort
from edgeproxy.outbound.backend_credentials_files import BackendCredentialFiles
from edgeproxy.outbound.geo_maxmind import CountryDatabase, signature
from edgeproxy.outbound.resolver_system import SystemResolver
from edgeproxy.ports import Operation, RowChange
from edgeproxy.runtime import affinity_file
from edgeproxy.runtime.affinity_sweep import sweep_bindings
from edgeproxy.runtime.archive_upkeep import keep_archive
from edgeproxy.runtime.certificate_watch import CertificateWatch
from edgeproxy.runtime.change_log_upkeep import keep_change_log
from edgeproxy.runtime.event_bus import EventFeed, TopicLog
from edgeproxy.runtime.geo_watch import GeoWatch
from edgeproxy.runtime.handover import Bequest, Estate
from edgeproxy.runtime.reload import Reloader
from edgeproxy.runtime.service_manager import ServiceManager
from edgeproxy.runtime.supervisor import Supervisor
from edgeproxy.runtime.table_feed import TableFeed, events_of, log_issues
from edgeproxy.runtime.upgrade import Successor, command_line, reclaim_rows, start_successor
from edgeproxy.runtime.verdict_feed import VerdictFeed
from edgeproxy.stores import open_archive, open_leases, open_store, open_store_to_serve

if TYPE_CHECKING:
    from edgeproxy.app.replication import ReplicationPart
    from edgeproxy.core.controlplane.candidates import Candidates
    from edgeproxy.inbound.api import ApiServer
    from edgeproxy.inbound.api_port import ApiPort
    from edgeproxy.inbound.dns import DnsServer
    from edgeproxy.inbound.metrics_server import MetricsServer
    from edgeproxy.inbound.replication_ports import ReplicationPort
    from edgeproxy.outbound.certificates_files import CertificateFiles
    from edgeproxy.outbound.certificates_files import Loaded as Certificates
    from edgeproxy.outbound.probes import Probes
    from edgeproxy.runtime.health_checks import HealthChecks
    from edgeproxy.runtime.logs import Logger

BUCKET_SWEEP_INTERVAL_S = 60.0
"""How often clients are forgotten whose token buckets are full again."""

NAMES_AT_START_S = 2.0
"""How long the first client waits for names of backends to resolve, before they are left for later."""


SAME_REQUEST_S = 0.5
"""Signals this close are one request to stop: ``timeout`` and Ctrl-C tell the process, then its group."""


class App:
    """The control process of one POP, on sockets that are bound and with workers that boot."""

    def __init__(
        self,
        groundwork: Groundwork,
        load: Callable[[], Config] | None = None,
        config_file: Path | None = None,
    ) -> None:
        self._config = config = groundwork.config
        self._predecessor = predecessor = groundwork.predecessor
        self._predecessor_gone: asyncio.Task[None] | None = None
        self._is_serving = False
        self._upgrading = Upgrading(
            self._start_successor,
            lambda: self._is_serving and not self._stop.is_set(),
            lambda event, fields: self._tell(Topic.CONFIG, event, **fields),
            self._relieved,
            self._upgrade_failed,
        )
        self._service = ServiceManager(os.environ)
        estate = predecessor.estate if predecessor is not None else None
        inherited = groundwork.inherited
        self._config_file = config_file
        self._reloader = Reloader(config, load or (lambda: config), self._apply)
        self._started_s = groundwork.started_s
        self._told_to_stop_s: float | None = None
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = contextlib.ExitStack()
        self._descriptors = groundwork.descriptors
        self._entrances = groundwork.entrances
        self._certificates: CertificateWatch[Certificates] | None = None
        self._dns: DnsServer | None = None
        self._candidates: Candidates | None = None
        self._api: ApiServer | None = None
        self._metrics: MetricsServer | None = None
        self._replication: ReplicationPart | None = None
        self._segment_fd = groundwork.segment_fd
        self._state = groundwork.state
        self._traffic = TrafficTotals()
        self._events = EventFeed(EventBus(), wall_clock=time)
        self._config_log = TopicLog(self._events, Topic.CONFIG)
        self._recent_events = RecentEvents()
        self._events.bus.subscribe("log", self._log_event)
        self._events.bus.subscribe("recent", self._recent_events)
        self._transitions = TransitionCounts()
        self._events.bus.subscribe("metrics", self._transitions, (Topic.HEALTH,))
        self._supervisor = Supervisor(
            groundwork.program,
            groundwork.listeners,
            self._segment_fd,
            self._state,
            observer=WorkerNews(
                self._traffic,
                lambda: self._verdicts,
                lambda: self._log,
                TopicLog(self._events, Topic.WORKER),
            ),
            rows=groundwork.rows,
            booted=groundwork.workers,
        )
        # While the workers boot, what they will be given is read.
        try:
            if any(each.terminates_tls for each in listenings(config)):
                self._certificates = CertificateWatch(_certificate_files(config))
            backend_files = BackendCredentialFiles(config.backend_rules)
            self._backend_credentials = CertificateWatch(backend_files)
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
            self._checks = self._health_checks(backend_files)
            self._first_rows = self._feed.load()
            self._view = View(
                config=lambda: self._config,
                address=self._entrances.address,
                started_s=self._started_s,
                feed=self._feed,
                state=self._state,
                traffic=self._traffic,
                supervisor=self._supervisor,
                bus=self._events.bus,
                recent_events=self._recent_events,
                verdicts=self._verdicts,
                geo=self._geo,
                transitions=self._transitions,
                api_counts=lambda: self._api.counts() if self._api is not None else None,
                dns_statistics=lambda: self._dns.stats() if self._dns is not None else None,
                replication_view=lambda: self._replication.view() if self._replication is not None else None,
            )
            self._admin = AdminServer(
                config.admin_socket,
                {
                    "connections": self._view.connections,
                    "events": self._view.events,
                    "explain": self._view.explain,
                    "reload": lambda _request: self._reload(),
                    "overview": lambda _request: self._view.overview(),
                    "rate_limit": self._view.rate_limit,
                    "replication": lambda _request: self._view.replication(),
                    "set_backend": SetBackend(self._write_row, config.geography, self._feed.refresh),
                    "stats": lambda _request: self._view.stats(),
                    "table": lambda _request: self._view.table(),
                    "upgrade": self._upgrading.answer,
                },
                inherited.take("admin", str(config.admin_socket.absolute())),
            )
            inherited.close()
        except BaseException:
            self._open.close()
            raise

    @cached_property
    def _log(self) -> Logger:
        # Importing it takes a good part of a start, so nothing that a start must wait for logs anything
        # unless there is a problem to tell.
        from edgeproxy.runtime.logs import open_log

        return open_log(lambda: self._config.log_level, self._config.log_format)

    def run(self) -> int:
        """:meth:`serve` in an event loop of its own."""
        return asyncio.run(self.serve())

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
        living = asyncio.create_task(self._service.keep_alive())
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signum, self._on_signal, stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._loop.add_signal_handler(signal.SIGUSR2, self._upgrading.on_signal)
        try:
            await self._admin.start()
            if self._feed.has_names():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(NAMES_AT_START_S):
                        await self._feed.resolve_names(self._supervisor, self._log)
            await self._supervisor.start(self._worker_settings(self._config), self._feed)
            for watch in self._certificate_watches():
                watch.tell(self._log)
            log_issues(self._first_rows, self._log)
            self._follow(self._first_rows)
            if self._entrances.dns is not None:
                self._dns = self._dns_server(self._entrances.dns)
                await self._dns.start()
            if self._entrances.api is not None:
                self._api = self._api_server(self._entrances.api)
                await self._api.start()
            if self._entrances.metrics is not None:
                self._metrics = self._metrics_server(self._entrances.metrics)
                await self._metrics.start()
            if self._entrances.gossip is not None and self._entrances.transport is not None:
                self._replication = self._replication_part(self._entrances.gossip, self._entrances.transport)
            self._tell(
                Topic.CONFIG,
                "listening",
                priority=Priority.NORMAL,  # behind the rows it listens with
                address=self._entrances.address,
                further=[listeners.address for listeners in self._entrances.listeners[1:]],
                dns=self._entrances.dns.address if self._entrances.dns is not None else None,
                api=self._entrances.api.address if self._entrances.api is not None else None,
                metrics=self._entrances.metrics.address if self._entrances.metrics is not None else None,
                gossip=str(self._entrances.gossip.address) if self._entrances.gossip is not None else None,
                transport=(
                    str(self._entrances.transport.address) if self._entrances.transport is not None else None
                ),
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
            self._tell_of_shared_sockets()
            self._is_serving = True
            # Before the predecessor lets go: without the one or the other the service has ended.
            self._service.ready(self._status(), is_successor=self._predecessor is not None)
            if self._predecessor is not None:
                self._predecessor.relieve(__version__)
                self._predecessor_gone = asyncio.create_task(self._predecessor.gone())
            exit_code = await self._work_until(stop)
        except BaseException:
            if self._predecessor is not None:
                self._admin.yield_path()  # to the predecessor, which goes on
            self._supervisor.kill()
            self._entrances.close_listeners()
            self._events.flush()
            raise
        finally:
            await self._admin.stop()
            if self._dns is not None:
                await self._dns.stop()
            if self._entrances.dns is not None:
                self._entrances.dns.close()
        if self._api is not None:
            self._api.drain()
        successor = self._upgrading.successor
        self._tell(
            Topic.DRAIN,
            "draining",
            timeout_s=self._config.shutdown_timeout_secs,
            successor=successor.pid if successor is not None else None,
        )
        # With these open, clients would go on being queued after the workers have closed theirs, for nobody.
        self._entrances.close_listeners()
        timeout_s = self._config.shutdown_timeout_secs
        if successor is None:
            self._service.stopping(timeout_s)
            reset, _ = await asyncio.gather(self._supervisor.stop(timeout_s), self._outlive_predecessor())
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
        living.cancel()
        self._events.flush()
        # The loop's end would give signals their default effect again, and one more of an impatient
        # user would turn the exit code of an orderly stop into that of a kill.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        return exit_code

    async def _outlive_predecessor(self) -> None:
        """Wait for a predecessor that still drains: a service manager takes the end of this process for
        that of all."""
        if self._predecessor_gone is not None:
            await asyncio.wait((self._predecessor_gone,), timeout=self._config.shutdown_timeout_secs)

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

    async def _work_until(self, stop: asyncio.Event) -> int:
        """Keep the workers' state up to date; return the exit code."""
        config = self._config
        jobs = [
            self._supervisor.watch(),
            self._feed.watch(self._supervisor, self._log),
            self._feed.watch_names(self._supervisor, self._log),
            keep_change_log(self._store, self._log),
            self._geo.watch(self._log, lambda: self._supervisor.publish(GeoDatabaseChanged())),
            sweep_bindings(
                self._state,
                lambda: self._config.binding_ttl_secs,
                lambda: self._config.binding_gc_interval_secs,
            ),
            reclaim_rows(self._state.reclaim_rows),
        ]
        if (url := config.archive_url) is not None:
            jobs.append(
                keep_archive(lambda: open_archive(config, url), config.archive_interval_secs, self._log)
            )
        if config.worker_hang_timeout_secs:
            jobs.append(self._supervisor.watch_for_hangs(config.worker_hang_timeout_secs))
        if self._verdicts is not None:
            jobs.append(self._verdicts.run(self._supervisor))
        if self._checks is not None:
            jobs.append(self._checks.run())
        jobs += [watch.watch(self._log, self._certificates_changed) for watch in self._certificate_watches()]
        if config.rate_limit_enabled:
            interval_s = BUCKET_SWEEP_INTERVAL_S
            jobs.append(sweep_bindings(self._state.clients, self._bucket_fill_s, lambda: interval_s))
        if self._api is not None:
            jobs.append(self._api.run())
        if self._replication is not None:
            jobs.append(self._replication.run())
        if config.config_watch_enabled and self._config_file is not None:
            jobs.append(
                self._reloader.watch(
                    self._config_file, lambda: self._config.config_watch_interval_secs, self._config_log
                )
            )
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
        settings = verdict_settings(self._config)
        if settings.checks is None and settings.circuits is None:
            return None
        apps = {each.app for each in listenings(self._config)}
        return VerdictFeed(
            Verdicts(settings, all_are_a_pool=ANY_APP in apps),
            self._feed.table,
            self._state.grant_trial,
            self._events.publish,
        )

    def _health_checks(self, backend_files: BackendCredentialFiles) -> HealthChecks | None:
        config, feed = self._config, self._verdicts
        if feed is None or not config.health_check_enabled:
            return None
        from edgeproxy.runtime.health_checks import HealthChecks  # only who checks needs it

        return HealthChecks(
            _probes(config, backend_files).of,
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
        if change.removed:
            self._traffic.forget({placed.backend.id for placed in self._feed.table.snapshot()})
        if self._verdicts is not None:
            self._verdicts.follow(change)
        if self._checks is not None:
            self._checks.follow(change)
        if self._replication is not None:
            self._replication.table_changed()

    def _dns_server(self, port: DnsPort) -> DnsServer:
        # Imports that take an eighth of a second, while the workers serve already.
        from edgeproxy.app.servers import dns_responder
        from edgeproxy.core.controlplane.candidates import Candidates
        from edgeproxy.inbound.dns import DnsServer

        config = self._config
        self._candidates = Candidates(
            config.region,
            self._feed.table,
            self._state,
            lambda: {each.host: each.addresses for each in self._feed.resolved_hosts()},
            panic_threshold(config),
        )
        responder = dns_responder(config, self._candidates, self._feed, self._geo)
        return DnsServer(port, responder, config.dns_rate_limit)

    def _api_server(self, port: ApiPort) -> ApiServer:
        # Imports that take a third of a second, while the workers serve already.
        from edgeproxy.inbound.api import ApiServer

        return ApiServer(
            port,
            self._config,
            self._feed,
            open_leases(self._config, self._store),
            lambda client, app: self._view.explain({"client": client, "app": app}),
            self._supervisor.any_ready,
            __version__,
            self._log,
            TopicLog(self._events, Topic.REGISTRY),
            lambda node: self._replication is not None and self._replication.is_elsewhere(node),
        )

    def _replication_part(self, gossip: ReplicationPort, transport: ReplicationPort) -> ReplicationPart:
        # Imports that take a fifth of a second, while the workers serve already.
        from edgeproxy.app.replication import ReplicationPart

        return ReplicationPart(
            self._config,
            gossip,
            transport,
            TopicLog(self._events, Topic.REPLICATION),
            self._feed.poll_soon,
            self._leases_changed,
            lambda: self._upgrading.successor is None,
        )

    def _leases_changed(self) -> None:
        if self._api is not None:
            self._api.leases_changed()

    def _metrics_server(self, port: MetricsPort) -> MetricsServer:
        # Imports that take a third of a second, while the workers serve already.
        from edgeproxy.app.servers import metrics_routes
        from edgeproxy.inbound.metrics_server import MetricsServer

        self._metrics_routes = metrics_routes(self._view)
        return MetricsServer(port, self._metrics_routes(self._config))

    def _on_signal(self, stop: asyncio.Event) -> None:
        if self._told_to_stop_s is None:
            self._told_to_stop_s = monotonic()
        elif monotonic() - self._told_to_stop_s > SAME_REQUEST_S:
            self._log.warning("told to stop a second time, ending at once")
            self._supervisor.reset()
            if self._predecessor_gone is not None:
                self._predecessor_gone.cancel()
        self._upgrading.cancel()
        # A service manager may have told the workers too; whoever ends from here on does as he was told.
        self._supervisor.retire()
        stop.set()

    def _on_hangup(self) -> None:
        with contextlib.suppress(ConfigError):  # said already
            self._reload()

    def _reload(self) -> dict[str, Any]:
        with self._service.reloading():
            return self._reloader.reload(self._config_log)

    def _tell_of_shared_sockets(self) -> None:
        """Where workers share a socket they wake one another, so it is good to know."""
        for each in self._entrances.listeners:
            if len(each.sockets) < self._config.workers:
                self._log.info(
                    "workers share listening sockets",
                    address=each.address,
                    sockets=len(each.sockets),
                    workers=self._config.workers,
                )

    def _status(self) -> str:
        """What ``systemctl status`` shows while all is well."""
        backends = len(self._feed.table.snapshot())
        return f"serving {self._entrances.address}, {backends} backends, version {__version__}"

    def _upgrade_failed(self, error: EdgeproxyError) -> None:
        self._tell(Topic.CONFIG, "the upgrade failed", level="error", why=str(error))
        self._service.status(f"{self._status()}; an upgrade failed: {error}")

    def _relieved(self) -> None:
        """The successor serves."""
        self._admin.yield_path()
        self._service.leave_to_successor()
        self._stop.set()

    async def _start_successor(self) -> Successor:
        async with self._feed.paused():
            return await start_successor(command_line(), self._estate())

    def _estate(self) -> Estate:
        bequests = self._entrances.bequests()
        admin = str(self._config.admin_socket.absolute())
        bequests.append(Bequest("admin", admin, (self._admin.descriptor,)))
        return Estate(os.getpid(), __version__, self._segment_fd, self._feed.table.slots, tuple(bequests))

    def _apply(self, config: Config) -> None:
        """Put other settings in force.

        Raises:
            ConfigError: they cannot be; all is as it was.
        """
        if self._api is not None:
            self._api.check_settings(config)
        backend_files = BackendCredentialFiles(config.backend_rules)
        prepared = [self._backend_credentials.prepare(backend_files)]
        if self._certificates is not None:
            prepared.append(self._certificates.prepare(_certificate_files(config)))
        # From here on nothing can go wrong.
        for follow in prepared:
            follow()
        for watch in self._certificate_watches():
            watch.tell(self._log)
        self._config = config
        self._supervisor.change_settings(self._worker_settings(config))
        self._feed.change_interval(config.db_reload_secs)
        if self._api is not None:
            self._api.change_settings(config)
        if self._dns is not None and self._candidates is not None:
            from edgeproxy.app.servers import dns_responder

            responder = dns_responder(config, self._candidates, self._feed, self._geo)
            self._dns.change_settings(responder, config.dns_rate_limit)
        if self._metrics is not None:
            self._metrics.routes = self._metrics_routes(config)
        if self._verdicts is not None:
            self._verdicts.change_settings(verdict_settings(config))
        if self._checks is not None:
            self._checks.change_settings(
                _probes(config, backend_files).of,
                interval_s=config.health_check_interval_secs,
                timeout_s=config.health_check_timeout_secs,
            )
        if self._candidates is not None:
            self._candidates.set_panic_threshold(panic_threshold(config))

    def _worker_settings(self, config: Config) -> Start:
        settings = worker_settings(config)
        of_each = [
            listening
            for listening, listeners in zip(settings.listeners, self._entrances.listeners, strict=True)
            for _ in range(listeners.per_worker(config.workers))
        ]
        settings = replace(settings, listeners=tuple(of_each))
        return replace(settings, tls=self._tls_settings(config))

    def _tls_settings(self, config: Config) -> TlsSettings | None:
        clients, backends = self._certificates, self._backend_credentials.loaded.credentials
        if clients is None and not backends:
            return None
        return tls_settings(
            config,
            clients.loaded.identities if clients is not None else (),
            clients.loaded.client_authorities if clients is not None else None,
            backends,
        )

    def _certificate_watches(self) -> list[CertificateWatch[Any]]:
        return [self._backend_credentials, *([self._certificates] if self._certificates is not None else [])]

    def _certificates_changed(self) -> None:
        tls = self._tls_settings(self._config)
        assert tls is not None
        self._supervisor.change_tls(tls)

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

    def _bucket_fill_s(self) -> float:
        """How long an unused token bucket takes to be full again, whatever it held."""
        limit = rate_limit(self._config)
        return limit.fill_s if limit is not None else 0.0

    def _write_row(self, operation: Operation[Refusal]) -> RowChange | Refusal:
        with open_store(self._config, "ctl") as store:
            return store.apply(operation)


def _certificate_files(config: Config) -> CertificateFiles:
    # Imports that take a tenth of a second, while the workers boot.
    from edgeproxy.outbound.certificates_files import CertificateFiles

    return CertificateFiles(config.tls_cert, config.tls_key, config.tls_cert_dir, config.tls_client_ca)


def _probes(config: Config, files: BackendCredentialFiles) -> Probes:
    from edgeproxy.outbound.probes import Probes  # only who checks needs it

    http_path = config.health_check_path if config.health_check_type == "http" else None
    return Probes(http_path, config.backend_rules, files.contexts)
