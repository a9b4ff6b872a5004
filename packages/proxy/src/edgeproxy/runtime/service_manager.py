"""What the service manager is told of this process: the protocol of ``sd_notify(3)``, a few ``NAME=value``
lines in a datagram to the socket that ``NOTIFY_SOCKET`` names.

Without that variable nobody is told. It stays in the environment, for a successor to tell of itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, MutableMapping
from time import monotonic_ns
from typing import Final

_SEND_TIMEOUT_S: Final = 1.0
"""A service manager that takes nothing is waited for once in a while, not for good."""
_STOP_MARGIN_S: Final = 10.0
"""What an orderly end may take after the shutdown timeout."""


class ServiceManager:
    """The process that started this one and wants to hear how it is doing, if there is one."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """``WATCHDOG_PID`` is removed: it names this process, and a successor is another."""
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        interval_us = environ.get("WATCHDOG_USEC", "")
        is_watched = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(interval_us) / 1e6 if is_watched and interval_us.isdigit() else None
        """How long the service manager waits for a sign of life before it ends this process."""

    def ready(self, status: str, *, is_successor: bool) -> None:
        """Clients are served; from now on this is the process to follow, if it was not so from the start."""
        self._tell(*([f"MAINPID={os.getpid()}"] if is_successor else []), "READY=1", _status(status))

    def status(self, text: str) -> None:
        """Show ``text`` to those who ask for the state of the service."""
        self._tell(_status(text))

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """A context in which settings are read again."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self._tell("READY=1")

    def stopping(self, timeout_s: float) -> None:
        """The end has begun, and takes up to ``timeout_s``, whatever the unit allows."""
        patience_us = int((timeout_s + _STOP_MARGIN_S) * 1e6)
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={patience_us}", _status("draining"))

    def leave_to_successor(self) -> None:
        """Tell nothing any more: what would be said of this process would be taken for the service."""
        self._address = ""

    async def keep_alive(self) -> None:
        """Give a sign of life, twice as often as is asked for, until cancelled. It comes from the loop that
        does all the work of this process, so that a loop that hangs gives none."""
        while self.watchdog_s is not None:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # Who has asked to be told and is gone, or does not listen, misses it: no reason not to serve.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_SEND_TIMEOUT_S)
            sock.sendto("\n".join(lines).encode(), self._address)  # feature: process.service_manager


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())}"
