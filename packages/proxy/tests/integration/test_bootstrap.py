"""The proxy starts and stops as a supervisor wants it."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from packages.proxy.tests.integration.proxies import (
    API,
    EDGEPROXY,
    StartBackend,
    environment,
    row,
    write_rows,
)
from testkit.contracts.bootstrap import BootstrapContract, Configuration
from testkit.contracts.http_program import HttpProgram
from testkit.process import ProcessFactory


class ProxyProgram:
    deadline_s = 30.0

    def __init__(self, processes: ProcessFactory, folder: Path, backend_port: int, taken_port: int) -> None:
        self._processes = processes
        self._folder = folder
        write_rows(folder / "routing.db", [row("one", backend_port)])
        self._settings: dict[Configuration, dict[str, object]] = {
            Configuration.GOOD: {},
            Configuration.MISSING: {"db_path": folder / "elsewhere.db"},
            Configuration.MALFORMED: {"db_path": folder / "routing.db", "listen_addr": "localhost"},
            Configuration.CONFLICTING: {"listen_addr": f"127.0.0.1:{taken_port}"},
        }

    def start(self, configuration: Configuration) -> HttpProgram:
        chosen = {
            "listen_addr": "127.0.0.1:0",
            "workers": 1,
            "region": "eu",
            "log_format": "json",
            "db_path": self._folder / "routing.db",
            "admin_socket": self._folder / "admin.sock",
            **API,
            **self._settings[configuration],
        }
        process = self._processes(
            [*EDGEPROXY, "run"], env=environment(chosen), cwd=self._folder, name="edgeproxy"
        )

        def told(what: str) -> str | None:
            found = re.search(rf'"event": "listening".*"{what}": "([^"]+)"', process.log) or re.search(
                rf'"{what}": "([^"]+)".*"event": "listening"', process.log
            )
            return found[1] if found else None

        async def serve() -> bool:
            address = told("address")
            if address is None:
                return False
            host, _, port = address.rpartition(":")
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
                greeting = await reader.readline()
                writer.close()
            except OSError:
                return False
            return greeting == b"one\n"

        def ready_url(_output: str) -> str | None:
            api = told("api")
            return f"http://{api}/health" if api else None

        return HttpProgram(process, ready_url=ready_url, serve=serve)

    def names(self, configuration: Configuration) -> str:
        names = {
            Configuration.MISSING: "elsewhere.db does not exist",
            Configuration.MALFORMED: "EDGEPROXY_LISTEN_ADDR",
        }
        return names.get(configuration, "another process has the port")


class TestProxy(BootstrapContract):
    @pytest.fixture
    def harness(
        self, process_factory: ProcessFactory, tmp_path: Path, start_backend: StartBackend
    ) -> Iterator[ProxyProgram]:
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            yield ProxyProgram(process_factory, tmp_path, start_backend("one").port, taken.getsockname()[1])
