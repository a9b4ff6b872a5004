"""Reading the settings again while the proxy runs: what can change does, the rest is named.

The TOML file is read anew; the environment and the flags are those of the start, and still win over it. A
file that is wrong changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from edgeproxy.config import Config
from edgeproxy.config.settings import SETTINGS
from edgeproxy.errors import ConfigError

HOT: Final = frozenset(
    {
        *(
            "log_level",
            "access_log",
            "access_log_sample",
            "pool_connect_timeout_secs",
            "shutdown_timeout_secs",
        ),
        *("max_connections", "max_connections_per_client"),
        *("queue_length", "queue_timeout_secs"),
        *("rate_limit_max_requests", "rate_limit_window_secs", "rate_limit_burst"),
        *("circuit_failure_threshold", "circuit_success_threshold", "circuit_timeout_secs"),
        *("circuit_max_ejected_percent", "slow_start_secs", "panic_threshold_percent"),
        *(
            "health_check_type",
            "health_check_path",
            "health_check_timeout_secs",
            "health_check_interval_secs",
        ),
        *("health_check_fast_interval_secs", "health_healthy_threshold", "health_unhealthy_threshold"),
    }
)
"""Settings that change without a restart. All others are bound to sockets, files, memory or processes."""


class Log(Protocol):
    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class Reloader:
    """Keeps :attr:`config`, the settings in force, in step with their sources."""

    def __init__(self, config: Config, load: Callable[[], Config], apply: Callable[[Config], None]) -> None:
        """``load`` reads all sources again; ``apply`` is called with settings that are new in force."""
        self.config = config
        self._load = load
        self._apply = apply

    def reload(self, log: Log) -> dict[str, Any]:
        """Read the settings again; return what changed, and what a restart would change, by name.

        Raises:
            ConfigError: they are wrong; nothing has changed.
        """
        outcome = self._follow(log)  # feature: administration.reload
        if not any(outcome.values()):
            log.info("settings are unchanged")
        return outcome

    def _follow(self, log: Log) -> dict[str, Any]:
        try:
            new = self._load()
        except ConfigError as error:
            log.warning("keeping the settings in force", problems=list(error.problems))
            raise
        different = _differences(self.config, new)
        changed = {name: texts for name, texts in different.items() if name in HOT}
        waiting = {name: texts for name, texts in different.items() if name not in HOT}
        if changed:
            sources = {**self.config.sources, **{name: new.sources[name] for name in changed}}
            values = {name: getattr(new, name) for name in changed}
            self.config = dataclasses.replace(self.config, **values, sources=sources)
            self._apply(self.config)
            log.info("settings changed", changed=changed)
        if waiting:
            log.warning("settings that need a restart are left as they are", waiting=waiting)
        return {"changed": changed, "needs_restart": waiting}

    async def watch(self, path: Path, interval_s: float, log: Log) -> None:
        """Reload when the content of ``path`` changes, until cancelled.

        Times of change are not asked: an older file that is moved in place is a change, a file that is
        saved as it was is none.
        """
        seen = _content(path)
        # Nobody has looked since the start, which takes a while.
        with contextlib.suppress(ConfigError):  # said already
            self._follow(log)
        while True:
            await asyncio.sleep(interval_s)
            content = _content(path)
            if content == seen:
                continue
            seen = content
            if content is None:
                log.warning("the configuration file is gone, keeping the settings in force", path=str(path))
                continue
            with contextlib.suppress(ConfigError):
                self.reload(log)


def _differences(old: Config, new: Config) -> dict[str, list[str]]:
    """Before and after of each setting that differs, as text; tables of the TOML file by name alone."""
    different: dict[str, list[str]] = {}
    for field in dataclasses.fields(Config):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if not field.compare or before == after:
            continue
        setting = SETTINGS.get(field.name)
        if setting is None:
            different[field.name] = []
        elif setting.is_secret:
            different[field.name] = ["***", "***"]
        else:
            different[field.name] = [setting.kind.format(value) for value in (before, after)]
    return different


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
