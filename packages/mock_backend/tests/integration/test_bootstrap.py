"""The mock backend starts and stops as a supervisor wants it."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from testkit.contracts.bootstrap import BootstrapContract, Configuration
from testkit.contracts.http_program import HttpProgram, answers
from testkit.process import ProcessFactory

LISTENING = re.compile(r"listening on (\S+:\d+)$", re.MULTILINE)


class MockBackendProgram:
    deadline_s = 20.0

    def __init__(self, processes: ProcessFactory, taken_port: int) -> None:
        self._processes = processes
        self._flags = {
            Configuration.GOOD: ["-port", "0"],
            Configuration.MISSING: [
                "-port",
                "0",
                "-tls-cert",
                "/nothing/cert.pem",
                "-tls-key",
                "/nothing/key.pem",
            ],
            Configuration.MALFORMED: ["-port", "nine"],
            Configuration.CONFLICTING: ["-port", str(taken_port)],
        }

    def start(self, configuration: Configuration) -> HttpProgram:
        argv = [sys.executable, "-m", "mock_backend", "-host", "127.0.0.1", *self._flags[configuration]]
        process = self._processes(argv)

        def url(path: str) -> str | None:
            found = LISTENING.search(process.log)
            return f"http://{found[1]}{path}" if found else None

        async def serve() -> bool:
            info = url("/api/info")
            return info is not None and await answers(info)

        return HttpProgram(process, ready_url=lambda _: url("/health"), serve=serve)

    def names(self, configuration: Configuration) -> str:
        names = {Configuration.MISSING: "--tls-cert", Configuration.MALFORMED: "--port: 'nine'"}
        return names.get(configuration, "Address already in use")


class TestMockBackend(BootstrapContract):
    @pytest.fixture
    def harness(self, process_factory: ProcessFactory) -> Iterator[MockBackendProgram]:
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            yield MockBackendProgram(process_factory, taken.getsockname()[1])
