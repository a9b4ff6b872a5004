"""A mock backend as a process of its own, as users start it."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testkit.process import Process, ProcessFactory

_LISTENING = re.compile(
    r"^mock-backend (?P<id>\S+) \((?P<region>\S+)\) listening on (?P<at>\S+)$", re.MULTILINE
)


class MockBackendProcess:
    """A running ``mock-backend`` with the properties that `MockBackend` has in process.

    ``process`` is what `testkit` knows about it: pid, log, signals.
    """

    def __init__(
        self,
        start: ProcessFactory,
        *,
        region: str = "eu",
        id: str | None = None,  # noqa: A002  as in MockBackend
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Start the process and wait until it says that it listens.

        Raises:
            AssertionError: it ended instead; carries its exit code and what it said.
        """
        argv = [sys.executable, "-m", "mock_backend", "-host", host, "-port", str(port), "-region", region]
        if id is not None:
            argv += ["-id", id]
        self.process: Process = start(argv, name=id or f"mock-{region}")
        listening = self.process.wait_output(_LISTENING)
        self.id = listening["id"]
        self.region = listening["region"]
        self.address = host
        self.port = int(listening["at"].rpartition(":")[2])

    def stop(self) -> None:
        """End it with SIGTERM and check that it exits with 0.

        Raises:
            AssertionError: another exit code, or no exit.
        """
        self.process.terminate()
