"""A mock backend in a container, for whoever has a container engine and an image with it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, Unpack

from mock_backend.driver import Driver
from mock_backend.process import LISTENING, ports_told
from mock_backend.settings import Options, Settings

_TIMEOUT_S = 60.0
_INTERVAL_S = 0.05


class MockBackendContainer:
    """A running container with the properties that `MockBackend` has in process.

    Takes the fields of `Settings`. Unless they say otherwise it listens on all of its addresses, and so does
    its admin API, with a token drawn for it.
    """

    def __init__(
        self,
        engine: Any,
        image: str,
        *,
        command: Sequence[str] = ("mock-backend",),
        container: dict[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Start it and wait until it says that it listens.

        ``engine`` is a ``docker.DockerClient``; ``container``: further arguments of its ``containers.run``.

        Raises:
            AssertionError: it ended instead; carries what it said. Nothing is left of it.
            TimeoutError: it does not listen within a minute. Nothing is left of it.
        """
        options.setdefault("host", "0.0.0.0")
        options.setdefault("admin_host", "0.0.0.0")
        options.setdefault("admin_port", 0)
        options.setdefault("admin_token", secrets.token_hex(16))
        settings = Settings(**options)
        self.container = engine.containers.run(
            image, [*command, *settings.flags()], detach=True, **(container or {})
        )
        try:
            log = self._log_until_open(settings)
        except BaseException:
            self.stop()
            raise
        listening = LISTENING.search(log)
        assert listening is not None
        self.id = listening["id"]
        self.region = listening["region"]
        self.port = int(listening["at"].rpartition(":")[2])
        self.ports = {"http": self.port, **ports_told(log)}
        self.container.reload()
        networks = self.container.attrs["NetworkSettings"]["Networks"].values()
        self.address: str = next(each["IPAddress"] for each in networks if each["IPAddress"])
        self._token = settings.admin_token

    @property
    def driver(self) -> Driver:
        """What changes and asks it while it runs."""
        return Driver(self.address, self.ports["admin"], self._token)

    def stop(self) -> None:
        """Remove the container, whatever it does; may be called again."""
        container, self.container = self.container, None
        if container is not None:
            container.remove(force=True, v=True)

    def _log_until_open(self, settings: Settings) -> str:
        """Wait until it has told every port that was asked for, and return all that it said."""
        asked = [settings.tcp_echo, settings.udp_echo, settings.admin_port]
        further = sum(port is not None for port in asked)
        end_s = time.monotonic() + _TIMEOUT_S
        while True:
            # Asked anew each time: docker's stream of a log leaves its connection open.
            self.container.reload()
            ended = self.container.status == "exited"
            said: bytes = self.container.logs()
            log = said.decode(errors="replace")
            if LISTENING.search(log) and len(ports_told(log)) == further:
                return log
            if ended:
                raise AssertionError(f"the container ended instead of listening:\n{log}")
            if time.monotonic() > end_s:
                raise TimeoutError(f"the container does not listen after {_TIMEOUT_S:g} s:\n{log}")
            time.sleep(_INTERVAL_S)
