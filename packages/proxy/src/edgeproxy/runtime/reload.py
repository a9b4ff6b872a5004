"""Reading the settings again while the proxy runs: what can change does, the rest is named.

The TOML file is read anew; the environment and the flags are those of the start, and still win over it. A
file that is wrong changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from edgeproxy.config import Config
from edgeproxy.config.settings import SETTINGS
from edgeproxy.errors import ConfigError

LIVE: Final = frozenset(
    {*(name for name, setting in SETTINGS.items() if setting.is_live), "app_by_server_name", "backend_rules"}
)
"""Settings, and tables of the TOML file, that change without a restart."""

_SWITCHES: Final = frozenset({"api_tls_cert", "api_tls_key"})
"""Of those, the ones that turn something on by being there, which needs a restart."""


class Log(Protocol):
    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class Reloader:
    """Keeps :attr:`config`, the settings in force, in step with their sources."""

    def __init__(self, config: Config, load: Callable[[], Config], apply: Callable[[Config], None]) -> None:
        """``load`` reads all sources again. ``apply`` puts settings in force: all, or none by raising a
        :class:`~edgeproxy.errors.ConfigError`.
        """
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
            different = _differences(self.config, new)
            changed = {name: texts for name, texts in different.items() if self._is_live(name, new)}
            if changed:
                sources = {**self.config.sources, **_picked(new.sources, changed)}
                values = {name: getattr(new, name) for name in changed}
                config = dataclasses.replace(self.config, **values, sources=sources)
                self._apply(config)
                self.config = config
        except ConfigError as error:
            log.warning("keeping the settings in force", problems=list(error.problems))
            raise
        waiting = {name: texts for name, texts in different.items() if name not in changed}
        if changed:
            log.info("settings changed", changed=changed)
        if waiting:
            log.warning("settings that need a restart are left as they are", waiting=waiting)
        return {"changed": changed, "needs_restart": waiting}

    def _is_live(self, name: str, new: Config) -> bool:
        comes_or_goes = (getattr(self.config, name) is None) != (getattr(new, name) is None)
        return name in LIVE and not (name in _SWITCHES and comes_or_goes)

    async def watch(self, path: Path, interval_s: Callable[[], float], log: Log) -> None:
        """Reload when the content of ``path`` changes, until cancelled.

        Times of change are not asked: an older file that is moved in place is a change, a file that is
        saved as it was is none.
        """
        seen = _content(path)
        # Nobody has looked since the start, which takes a while.
        with contextlib.suppress(ConfigError):  # said already
            self._follow(log)
        while True:
            await asyncio.sleep(interval_s())
            content = _content(path)
            if content == seen:
                continue
            seen = content
            if content is None:
                log.warning("the configuration file is gone, keeping the settings in force", path=str(path))
                continue
            with contextlib.suppress(ConfigError):
                self.reload(log)


def _picked(sources: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    # Tables of the TOML file have none.
    return {name: sources[name] for name in names if name in sources}


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
