"""The proxies that are compared, and the backend behind all of them: real processes on loopback."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Final

from edgeproxy.outbound.store_sqlite import SqliteStore
from testkit.pki import Pki
from testkit.ports import free_port
from testkit.process import Process, ProcessFactory
from testkit.wait import wait_until

DIRECT, HAPROXY, NGINX, OURS = "direct", "haproxy", "nginx", "edgeproxy"
TARGETS: Final = (DIRECT, HAPROXY, NGINX, OURS)
"""In the order in which a round measures them."""

EDGEPROXY: Final = Path(sys.executable).with_name("edgeproxy")
SERVER_NAME: Final = "bench.test"
BULK_BYTES: Final = 64 << 20
ROWS: Final = 100
_REGIONS: Final = ("eu", "us", "sa", "ap")
_CONFIG: Final = Path(__file__).parent / "config"
_NGINX_MODULES: Final = (
    Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"), Path("/usr/share/nginx/modules"),
)  # fmt: skip


class Missing(Exception):  # noqa: N818 - no error: the report says so and goes on
    """A program that a measurement needs is not installed."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers HTTP on loopback, by itself or by way of the backend."""

    name: str
    port: int
    tls_port: int
    process: Process

    @property
    def pids(self) -> list[int]:
        """The processes whose time and memory count."""
        return self.process.group()

    def url(self, path: str, *, tls: bool = False) -> str:
        scheme, port = ("https", self.tls_port) if tls else ("http", self.port)
        return f"{scheme}://127.0.0.1:{port}/{path}"


class Stage:
    """A folder, the backend, and proxies in front of it."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.workers = workers
        """Worker processes, or threads, of each proxy."""
        self._start = ProcessFactory(folder)
        self._numbers = itertools.count()
        chain, key = folder / "chain.pem", folder / "key.pem"
        self.pki = Pki()
        self.pki.issue(chain, key, SERVER_NAME)
        (folder / "both.pem").write_bytes(chain.read_bytes() + key.read_bytes())

    def start(self, name: str) -> Target:
        """Start one of :data:`TARGETS` and wait until it serves.

        Raises:
            Missing: its program is not installed.
        """
        if name == DIRECT:
            return self.origin
        if name == OURS:
            return self.start_ours()
        program = _program(name)
        port, tls_port = free_port(), free_port()
        argv: list[Path | str]
        ports = {"port": port, "tls_port": tls_port, "origin_port": self.origin.port}
        if name == HAPROXY:
            argv = [program, "-db", "-f", self._write("haproxy.cfg", **ports)]
        else:
            config = self._write("nginx-stream.conf", modules=_nginx_modules(), **ports)
            argv = [program, "-c", config, "-e", self.folder / "nginx-start.log"]
        return _serving(Target(name, port, tls_port, self._start(argv, name=name)))

    def start_kernel(self) -> Target:
        """Start edgeproxy so that the kernel relays what is chatty.

        Raises:
            Missing: it may not, or this kernel cannot.
        """
        target = self.start_ours(settings={"relay": "kernel"})
        if (why := refusal_of_kernel(target.process.log)) is not None:
            self.stop(target)
            raise Missing(f"the kernel relays no connections: {why}")
        return target

    def start_ours(
        self,
        *,
        rows: int = ROWS,
        environment: dict[str, str] | None = None,
        settings: dict[str, str] | None = None,
    ) -> Target:
        """Start edgeproxy with so many healthy rows, whose settings are the defaults but for ``settings``."""
        return _serving(self.launch(self.database(rows, self.origin.port), environment, settings))

    def launch(
        self,
        database: Path,
        environment: dict[str, str] | None = None,
        settings: dict[str, str] | None = None,
    ) -> Target:
        """Start edgeproxy on a routing table and return when it listens."""
        process = self.spawn([EDGEPROXY, "run"], self.environment(database, environment, settings), OURS)
        process.wait_output('"event": "listening"', timeout_s=30)
        line = next(line for line in process.log.splitlines() if '"event": "listening"' in line)
        listening = json.loads(line)
        port, tls_port = (
            int(address.rpartition(":")[2]) for address in (listening["address"], *listening["further"])
        )
        return Target(OURS, port, tls_port, process)

    def environment(
        self,
        database: Path,
        environment: dict[str, str] | None = None,
        settings: dict[str, str] | None = None,
    ) -> dict[str, str | None]:
        """The variables that a proxy of ours is started with: none of the caller's settings."""
        foreign = [name for name in os.environ if name == "DEBUG" or name.startswith("EDGEPROXY_")]
        wanted = {
            "db_path": str(database),
            # Several may run on one table.
            "admin_socket": str(self.folder / f"{next(self._numbers)}.sock"),
            "region": "eu",
            "listen_addr": "127.0.0.1:0",
            "workers": str(self.workers),
            "tls_enabled": "true",
            "tls_listen_addr": "127.0.0.1:0",
            "tls_cert": str(self.folder / "chain.pem"),
            "tls_key": str(self.folder / "key.pem"),
            **(settings or {}),
        }
        return {
            **dict.fromkeys(foreign),
            "NO_COLOR": "1",
            **{f"EDGEPROXY_{name.upper()}": value for name, value in wanted.items()},
            **(environment or {}),
        }

    def database(self, rows: int, port: int) -> Path:
        """A routing table with so many rows, all of which lead to that port of loopback addresses."""
        path = self.folder / f"routing-{rows}-{port}.db"
        if not path.exists():
            SqliteStore.create(path)
            with closing(sqlite3.connect(path)) as database, database:
                database.executemany(
                    "INSERT INTO backends (id, app, region, country, wg_ip, port, healthy, weight, "
                    "soft_limit, hard_limit, deleted) VALUES (?, 'bench', ?, '', ?, ?, 1, 1, 100, 0, 0)",
                    [
                        (
                            f"b{row}",
                            _REGIONS[row % len(_REGIONS)],
                            f"127.0.0.{1 + row % ROWS}",
                            port,
                        )
                        for row in range(rows)
                    ],
                )
        return path

    def spawn(self, argv: list[Path | str], environment: dict[str, str | None], name: str) -> Process:
        """Start a program and return at once."""
        return self._start(argv, env=environment, cwd=self.folder, name=name)

    def stop(self, target: Target) -> None:
        target.process.stop(timeout_s=60)

    def stop_all(self) -> None:
        self._start.stop_all(timeout_s=60)

    @cached_property
    def origin(self) -> Target:
        """The backend of all proxies.

        Raises:
            Missing: nginx is not installed.
        """
        program = _program("nginx")
        www = self.folder / "www"
        www.mkdir()
        (www / "64m").write_bytes(os.urandom(BULK_BYTES))
        port, tls_port = free_port(), free_port()
        config = self._write("nginx-origin.conf", origin_port=port, origin_tls_port=tls_port)
        process = self._start(
            [program, "-c", config, "-e", self.folder / "nginx-start.log"], name="the backend"
        )
        return _serving(Target(DIRECT, port, tls_port, process))

    def _write(self, name: str, **values: object) -> Path:
        template = Template((_CONFIG / name).read_text(encoding="utf-8"))
        path = self.folder / name
        filled = template.substitute(folder=self.folder, threads=self.workers, **values)
        path.write_text(filled, encoding="utf-8")
        return path


@contextmanager
def stage(workers: int) -> Iterator[Stage]:
    """A stage in a folder of its own, gone afterwards with all that was started."""
    with TemporaryDirectory(prefix="edgeproxy-bench-") as folder:
        stage = Stage(Path(folder), workers)
        try:
            yield stage
        finally:
            stage.stop_all()


def refusal_of_kernel(log: str) -> str | None:
    """Why workers relay everything, by the log of a proxy that was asked to have the kernel do so."""
    found = re.search(r'"the kernel relays no connections[^\n]*"why": "([^"]*)', log)
    return found[1] if found is not None else None


def _serving(target: Target) -> Target:
    def answers() -> bool:
        with socket.create_connection(("127.0.0.1", target.port), 5) as sock:
            sock.sendall(b"GET /s HTTP/1.0\r\n\r\n")
            return sock.recv(1024).startswith(b"HTTP/")

    wait_until(answers, reason=f"{target.name} to serve", timeout_s=30, swallow=(OSError,))
    return target


def _program(name: str) -> str:
    # Those of administrators are not on everybody's path.
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Missing(f"{name} is not installed: apt-get install {name}")
    return path


def _nginx_modules() -> Path:
    for folder in _NGINX_MODULES:
        if (folder / "ngx_stream_module.so").exists():
            return folder
    raise Missing("the stream module of nginx is not installed: apt-get install libnginx-mod-stream")
