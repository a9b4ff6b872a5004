"""Logs of all processes of a POP: workers report, the control process writes."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

Logger = structlog.typing.FilteringBoundLogger


def open_log(level: str, log_format: str) -> Logger:
    """Return a logger that writes to standard error, one line per event.

    ``log_format`` is ``json``, ``console``, or ``auto``: console on a terminal, json elsewhere.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
        if console
        else structlog.processors.JSONRenderer()
    )
    logger: Logger = structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
    )
    return logger
