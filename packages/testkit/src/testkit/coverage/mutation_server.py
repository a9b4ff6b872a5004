"""A process in which pytest and its plugins are loaded already, and which forks for each trial.

Most of the time that a quick test file takes goes into importing pytest. Here that is done once: a session
stands ready to collect, and a child of it, forked for each request, collects and runs the tests named. Of the
repository nothing is imported before but what plugins and the first conftest files are made of; the server
says what that is, since a defect there would not be seen.

This file is the server, run by its path in the folder of the repository: ``mutation_server.py FD OPTION...``.
It imports nothing of testkit, which is a plugin of pytest itself. The other side is
:mod:`testkit.coverage.mutation_warm`. They exchange JSON over FD, a socket that keeps messages apart: first
``{"loaded": [FILE, ...]}``, then, for each ``{"tests": [...], "environment": {...}, "cpu_s": N,
"memory_bytes": N}``, ``{"pid": N}`` of the child, which leads a session of its own, and ``{"status": N,
"cpu_s": S}``, negative for the signal that ended it, with the processor time that it and what it waited for
took.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

MESSAGE_BYTES = 1 << 16


class _Server:
    """The plugin that holds a session at the point where it would collect."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Return in children only, which then collect what they were asked for."""
        # A child that collected garbage would touch, and so copy, every page it shares with this process.
        gc.freeze()
        self._send({"loaded": _loaded_below(Path.cwd())})
        while message := self._connection.recv(MESSAGE_BYTES):
            request = json.loads(message)
            pid = os.fork()
            if pid == 0:
                return self._become_trial(session, request)
            self._send({"pid": pid})
            _, status, used = os.wait4(pid, 0)
            self._send({"status": os.waitstatus_to_exitcode(status), "cpu_s": used.ru_utime + used.ru_stime})
        # Nobody asks any more, and a session that ran nothing has nothing to say.
        os._exit(0)

    def _become_trial(self, session: pytest.Session, request: dict[str, Any]) -> None:
        self._connection.close()
        os.setsid()
        os.environ.update(request["environment"])
        resource.setrlimit(resource.RLIMIT_DATA, (request["memory_bytes"], request["memory_bytes"]))
        resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_s"], request["cpu_s"]))
        session.config.args[:] = request["tests"]

    def _send(self, message: dict[str, object]) -> None:
        self._connection.send(json.dumps(message).encode())


def _loaded_below(folder: Path) -> list[str]:
    names = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    files = [Path(name) for name in names if name]
    return sorted(str(file.relative_to(folder)) for file in files if file.is_relative_to(folder))


def main(arguments: Sequence[str]) -> int:
    """Serve until the other side closes; in a child, return what pytest returns."""
    connection = socket.socket(fileno=int(arguments[0]))
    return int(pytest.main(list(arguments[1:]), plugins=[_Server(connection)]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
