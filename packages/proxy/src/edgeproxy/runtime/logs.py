"""Logs of all processes of a POP: workers report, the control process writes.

Importing this module takes a good part of a start; whoever needs only the type imports it for the type
checker alone.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from edgeproxy.hidden import hidden

# Where rich is installed, structlog imports it, for tracebacks that our lines do not have. That takes 0.15 s,
# twice as long as structlog itself and a quarter of what a start may take.
with hidden("rich"):
    import structlog

Logger = structlog.typing.FilteringBoundLogger

_FIRST_KEYS = ("timestamp", "level", "event")


def open_log(level: str | Callable[[], str], log_format: str) -> Logger:
    """Return a logger that writes to standard error, one line per event.

    ``level`` is the least severe one that is written; a function is asked each time.
    ``log_format`` is ``json``, ``console``, or ``auto``: console on a terminal, json elsewhere.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
        if console
        else structlog.processors.JSONRenderer()
    )
    logger: Logger = structlog.wrap_logger(
        _Lines(sys.stderr.fileno()),
        processors=[
            _Threshold(level if callable(level) else lambda: level),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _first_keys_first,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )
    return logger


class _Threshold:
    """Drops what is less severe than the level of the moment."""

    def __init__(self, level: Callable[[], str]) -> None:
        self._level = level

    def __call__(
        self, _logger: object, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        severities = logging.getLevelNamesMapping()
        if severities[method.upper()] < severities[self._level().upper()]:
            raise structlog.DropEvent
        return event


def _first_keys_first(_logger: object, _method: str, event: structlog.typing.EventDict) -> dict[str, Any]:
    """Begin each line with what eyes look for; the rest stays in the order of the call."""
    return {key: event.pop(key) for key in _FIRST_KEYS} | dict(event)


class _Lines:
    """Writes lines to a descriptor. A reader that is gone, or a full disk, costs the line and nothing else.

    Without a buffer, because one that cannot be written would fail again at every later line and at exit.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def msg(self, line: str) -> None:
        rest = f"{line}\n".encode(errors="backslashreplace")  # feature: logs.structured
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            return

    debug = info = warning = error = critical = msg
