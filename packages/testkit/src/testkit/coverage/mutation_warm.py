"""Trials by children of one process that has pytest loaded, which spares each the second that takes.

The server's side, and what both say, is :mod:`testkit.coverage.mutation_server`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from testkit.coverage import mutation_server

_START_S = 60.0


class WarmPytest:
    """One server in one folder, started when first asked for."""

    def __init__(self, folder: Path, pytest_options: Sequence[str], environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._pytest_options = tuple(pytest_options)
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._loaded: frozenset[str] = frozenset()

    def can_try(self, file: str) -> bool:
        """Whether a defect in ``file`` would be seen: there is a server, and it has not loaded the file."""
        if self._process is None:
            self._start()
        return self._connection is not None and file not in self._loaded

    def run(
        self,
        tests: Sequence[str],
        environment: Mapping[str, str],
        timeout_s: float,
        cpu_s: int,
        memory_bytes: int,
        end: Callable[[int], None],
    ) -> tuple[int | None, float]:
        """Return the exit status of ``tests`` and their processor seconds.

        The status is negative for a signal, None when ``timeout_s`` is up.

        ``environment`` is added to the server's. ``end`` is called with the id of the session in which they
        ran, before this returns, to end what they left.

        Raises:
            ConnectionError: the server is gone, perhaps by what a defect made the tests do.
        """
        assert self._connection is not None
        limits = {"cpu_s": cpu_s, "memory_bytes": memory_bytes}
        request = {"tests": list(tests), "environment": dict(environment), **limits}
        try:
            self._connection.settimeout(None)
            self._connection.send(json.dumps(request).encode())
            pid = self._receive()["pid"]
            self._connection.settimeout(timeout_s)
            try:
                ended = self._receive()
            except TimeoutError:
                end(pid)
                self._connection.settimeout(None)
                return None, self._receive()["cpu_s"]
            end(pid)
            return ended["status"], ended["cpu_s"]
        except ConnectionError:
            self.close()
            # The next trial gets another.
            self._process = None
            raise

    def close(self) -> None:
        """End the server."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", mutation_server.__file__, str(theirs.fileno())),
                    *("-q", "--exitfirst", *self._pytest_options),
                ],
                cwd=self._folder,
                env=self._environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._connection = ours
        ours.settimeout(_START_S)
        try:
            self._loaded = frozenset(self._receive()["loaded"])
        except OSError:
            # A pytest that cannot be loaded without tests can still run them.
            self.close()

    def _receive(self) -> Any:
        assert self._connection is not None
        message = self._connection.recv(mutation_server.MESSAGE_BYTES)
        if not message:
            raise ConnectionResetError("the process that runs the trials is gone")
        return json.loads(message)
