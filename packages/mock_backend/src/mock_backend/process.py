"""A mock backend as a process of its own, as users start it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Unpack

from mock_backend.driver import Driver
from mock_backend.settings import Options, Settings

if TYPE_CHECKING:
    from testkit.process import Process

LISTENING = re.compile(
    r"^mock-backend (?P<id>\S+) \((?P<region>\S+)\) listening on (?P<at>\S+)$", re.MULTILINE
)
OPEN_PORT = re.compile(
    r"^mock-backend \S+ (?P<name>tcp-echo|udp-echo|admin) on \S+:(?P<port>\d+)$", re.MULTILINE
)
"""Follow, one for each further port, in the same write."""


class MockBackendProcess:
    """A running ``mock-backend`` with the properties that `MockBackend` has in process.

    Takes the fields of `Settings`; its admin API is open on any free port unless ``admin_port`` says
    otherwise.
    ``process`` is what `testkit` knows about it: pid, log, signals.
    """

    def __init__(self, start: Callable[..., Process], **options: Unpack[Options]) -> None:
        """Start the process and wait until it says that it listens; ``start`` is as `ProcessFactory`.

        Raises:
            AssertionError: it ended instead; carries its exit code and what it said.
        """
        options.setdefault("admin_port", 0)
        settings = Settings(**options)
        argv = [sys.executable, "-m", "mock_backend", *settings.flags()]
        self.process: Process = start(argv, name=settings.id or f"mock-{settings.region}")
        listening = self.process.wait_output(LISTENING)
        self.id = listening["id"]
        self.region = listening["region"]
        self.address = settings.host
        self.port = int(listening["at"].rpartition(":")[2])
        self.ports = {"http": self.port, **ports_told(self.process.log)}
        self._settings = settings

    @property
    def driver(self) -> Driver:
        """What changes and asks it while it runs."""
        return Driver(self._settings.admin_host, self.ports["admin"], self._settings.admin_token)

    def stop(self) -> None:
        """End it with SIGTERM and check that it exits with 0.

        Raises:
            AssertionError: another exit code, or no exit.
        """
        self.process.terminate()


def ports_told(log: str) -> dict[str, int]:
    """Return the further ports by name that a process said it has opened."""
    return {found["name"]: int(found["port"]) for found in OPEN_PORT.finditer(log)}
