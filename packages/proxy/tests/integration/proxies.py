"""Real proxies, their databases, and backends that say who they are."""

from __future__ import annotations

import itertools
import json
import socket
import socketserver
import sqlite3
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError

from edgeproxy.admin_client import AdminClient
from edgeproxy.outbound.store_sqlite import SqliteStore
from testkit.process import Process, ProcessFactory
from testkit.wait import wait_until

EDGEPROXY = (sys.executable, "-m", "edgeproxy")

API: Mapping[str, Any] = {"api_enabled": True, "api_listen_addr": "127.0.0.1:0"}
"""Settings of a proxy that lets backends register themselves."""

UNREADABLE = "the routing table cannot be read, keeping the last good one"
READABLE = "the routing table can be read again"
"""Lines of the log."""

PROMISE_S = 1.0
"""What is promised within a second; tests wait ten times as long for it."""


def row(backend_id: str, port: int, **values: object) -> dict[str, object]:
    """One row of ``backends``: healthy, in the EU, on loopback, unless ``values`` say otherwise."""
    return {
        "id": backend_id,
        "app": "test",
        "region": "eu",
        "country": None,
        "wg_ip": "127.0.0.1",
        "port": port,
        "healthy": 1,
        "weight": 1,
        "soft_limit": 100,
        "hard_limit": 0,
        **values,
    }


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Make ``rows`` the table in the database at ``path``, which is made when it is missing."""
    if not path.exists():
        SqliteStore.create(path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM backends")
        for each in rows:
            names, places = ", ".join(each), ", ".join("?" * len(each))
            database.execute(f"INSERT INTO backends ({names}) VALUES ({places})", tuple(each.values()))


def edit(path: Path, statement: str) -> None:
    """Run one SQL statement on the database at ``path``, as the ``sqlite3`` shell would."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


class Backend:
    """A TCP server that sends its name and a line end to whoever connects, then echoes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connections: list[socket.socket] = []
        """Every connection so far, the open ones among them."""
        backend = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                backend.connections.append(self.request)
                try:
                    self.request.sendall(f"{backend.name}\n".encode())
                    while data := self.request.recv(65536):
                        self.request.sendall(data)
                except OSError:
                    return

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False
            request_queue_size = 1024

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; open connections go on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


StartBackend = Callable[[str], Backend]
NewClient = Callable[[], str]


class Proxy:
    """A running ``edgeproxy run``."""

    def __init__(self, process: Process, db_path: Path, admin_path: Path, address: str) -> None:
        self.process = process
        self.db_path = db_path
        self.admin_path = admin_path
        self.address = address
        self.port = int(address.rpartition(":")[2])

    def connect(self, source: str = "127.0.0.1", timeout_s: float = 10.0) -> socket.socket:
        """A client's connection from the loopback address ``source``."""
        return socket.create_connection(("127.0.0.1", self.port), timeout_s, (source, 0))

    def backend_of(self, source: str) -> str:
        """The name of the backend that greets a client from ``source``; "" when the client is reset."""
        try:
            with self.connect(source) as client:
                return greeting(client)
        except ConnectionResetError:  # so soon that it is connecting which fails
            return ""

    def ask(self, command: str, **arguments: object) -> Any:
        client = AdminClient.connect(self.admin_path)
        assert client is not None, f"no proxy answers on {self.admin_path}"
        with client:
            client.wait_up_to(60)  # an upgrade takes as long as a start, on a machine that may be busy
            return client.ask(command, **arguments)

    def stats(self) -> Any:
        return self.ask("stats")

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of the log so far, those of one event when it is given."""
        # The last line may be half written.
        lines = [json.loads(line) for line in self.process.log.split("\n")[:-1] if line.startswith("{")]
        return [line for line in lines if event in (None, line["event"])]

    def wait_log(self, event: str, count: int = 1, timeout_s: float = 10 * PROMISE_S) -> list[dict[str, Any]]:
        """Wait until ``event`` was logged ``count`` times; return all its lines."""
        return wait_until(
            lambda: found if len(found := self.log(event)) >= count else None,
            reason=f"{count} lines {event!r} in the log",
            timeout_s=timeout_s,
        )


class Api:
    """The API of a running proxy."""

    def __init__(self, proxy: Proxy) -> None:
        *_, listening = proxy.log("listening")
        self.url = f"http://{listening['api']}"

    def ask(self, method: str, path: str, body: object = None, token: str | None = None) -> tuple[int, Any]:
        """Status and answer."""
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        answer: HTTPResponse | HTTPError
        try:
            answer = urllib.request.urlopen(request, timeout=10)
        except HTTPError as error:
            answer = error
        with answer:
            return answer.status or 0, json.load(answer)

    def register(self, backend: Backend, **values: object) -> None:
        body = {
            "id": backend.name,
            "app": "test",
            "region": "eu",
            "ip": "127.0.0.1",
            "port": backend.port,
            **values,
        }
        assert self.ask("POST", "/api/v1/register", body)[0] == 201


def wait_until_served_by(proxy: Proxy, new_client: NewClient, name: str) -> None:
    """Wait until new clients come to the backend ``name``, to nobody if that is empty."""
    wait_until(
        lambda: proxy.backend_of(new_client()) == name,
        reason=f"new clients to come to {name or 'nobody'}",
        timeout_s=10 * PROMISE_S,
    )


class StartProxy(Protocol):
    """Starts a proxy and waits until it listens; settings by their names in the environment, in lower case,
    ``None`` for what the proxy is to find elsewhere.

    It has one worker, which starts sooner, unless a test is about several.
    ``rows`` become the table of a new database, unless ``db_path`` names one.
    """

    def __call__(self, rows: Iterable[Mapping[str, object]] = (), **settings: object) -> Proxy: ...


def greeting(client: socket.socket) -> str:
    """The line that a `Backend` begins with; "" when the connection is reset instead."""
    received = b""
    while not received.endswith(b"\n"):
        try:
            data = client.recv(4096)
        except ConnectionResetError:
            return ""
        assert data, f"the connection ended in order after {received!r}"
        received += data
    return received.decode().removesuffix("\n")


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    return {f"EDGEPROXY_{name.upper()}": str(value) for name, value in settings.items() if value is not None}


def proxy_starter(factory: ProcessFactory, folder: Path) -> StartProxy:
    numbers = itertools.count()

    def start(rows: Iterable[Mapping[str, object]] = (), **settings: object) -> Proxy:
        place = folder / f"proxy-{next(numbers)}"
        place.mkdir()
        db_path = Path(str(settings.get("db_path", place / "routing.db")))
        if "db_path" not in settings:
            write_rows(db_path, rows)
        admin_path = Path(str(settings.get("admin_socket", place / "admin.sock")))
        chosen = {
            "listen_addr": "127.0.0.1:0",
            "region": "eu",
            "workers": 1,
            "log_format": "json",
            "db_path": db_path,
            "admin_socket": admin_path,
            **settings,
        }
        process = factory([*EDGEPROXY, "run"], env=environment(chosen), cwd=place, name="edgeproxy")
        found = process.wait_output(r'listening.*?address(?:=|": ")([^\s"]+)', timeout_s=20)
        return Proxy(process, db_path, admin_path, found[1])

    return start
