"""The API as the control process serves it, in this process: real sockets, a real file, no workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from edgeproxy.config import Config, load
from edgeproxy.config.load import SOURCE_DEFAULT
from edgeproxy.core.controlplane.explain import Explanation, explain
from edgeproxy.core.controlplane.routing_table import RoutingTable
from edgeproxy.core.controlplane.tokens import Scope
from edgeproxy.core.dataplane.client import locate
from edgeproxy.inbound.api import ApiServer
from edgeproxy.inbound.api_port import ApiPort
from edgeproxy.outbound.leases_sqlite import SqliteLeases
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.outbound.tokens_files import TokenFiles
from edgeproxy.runtime.table_feed import TableFeed

BACKEND: Mapping[str, object] = {"id": "b1", "app": "web", "region": "eu", "ip": "10.0.0.7", "port": 9001}


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Mapping[str, str]


class NoWorkers:
    """Hears of every change and does nothing."""

    def publish(self, news: object) -> None: ...

    def catch_up(self) -> None: ...

    def applied_version(self) -> int:
        return -1


class Log:
    """Keeps lines as (event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info

    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


class Pop:
    """The API of one POP and the parts that it stands on. ``ready`` is what its workers are."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.log = Log()
        self.ready = True
        self.tokens = TokenFiles(config.api_tokens_dir)
        self.store = SqliteStore(config.db_path)
        self.feed = TableFeed(
            self.store, RoutingTable(config.geography), _no_names, lambda _slot: 0, config.db_reload_secs
        )
        self.feed.load()
        source = config.sources["api_listen_addr"]
        self.port = ApiPort(
            config.api_listen_addr, self.tokens, chosen_by=None if source == SOURCE_DEFAULT else source
        )
        log: Any = self.log
        leases = SqliteLeases(self.store)
        try:
            self.server = ApiServer(
                self.port, config, self.feed, leases, self._explain, lambda: self.ready, "0.0.0", log
            )
        except BaseException:
            self.port.close()
            raise
        self.token: str | None = None
        """What `ask` shows."""

    @property
    def url(self) -> str:
        scheme = "http" if self.config.api_tls_cert is None else "https"
        return f"{scheme}://{self.port.address}"

    async def ask(self, method: str, path: str, json: object = None, **options: Any) -> Answer:
        """Call the API; ``json`` is the body, ``options`` are those of aiohttp."""
        token = options.pop("token", self.token)
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **options.pop("headers", {})}
        if json is not None:
            options["json"] = json
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self.url}{path}", headers=headers, **options) as response,
        ):
            text = await response.text()
            body = await response.json() if text else None
            return Answer(response.status, body, response.headers)

    async def register(self, backend_id: str = "b1", **changes: object) -> Answer:
        return await self.ask("POST", "/api/v1/register", {**BACKEND, "id": backend_id, **changes})

    def make_token(self, scope: Scope, app: str | None = None) -> str:
        return self.tokens.create(scope, app, "", 1.0)[1]

    def _explain(self, client: str, app: str | None) -> Explanation:
        config = self.config
        where = locate(client, lambda _address: "DE", config.geography)
        return explain(
            where,
            app or "*",
            config.region,
            self.feed.table.snapshot(),
            lambda _slot: 0,
            None,
            counts_known=True,
        )


def _database(folder: Path) -> Path:
    database = folder / "routing.db"
    folder.mkdir(exist_ok=True)
    if not database.exists():
        SqliteStore.create(database)
    return database


async def _no_names(_name: str) -> tuple[str, ...]:
    return ()


@asynccontextmanager
async def served(folder: Path, **settings: object) -> AsyncIterator[Pop]:
    """Serve the API with its database in ``folder``, on a free loopback port unless told otherwise."""
    database = _database(folder)
    chosen = {"db_path": database, "api_listen_addr": "127.0.0.1:0", "region": "eu", **settings}
    environment = {f"EDGEPROXY_{name.upper()}": str(value) for name, value in chosen.items()}
    pop = Pop(load(environment, {}, None))
    workers: Any = NoWorkers()
    log: Any = pop.log
    watching = asyncio.create_task(pop.feed.watch(workers, log))
    await pop.server.start()
    running = asyncio.create_task(pop.server.run())
    try:
        yield pop
    finally:
        for task in (running, watching):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await pop.server.stop()
        pop.port.close()
