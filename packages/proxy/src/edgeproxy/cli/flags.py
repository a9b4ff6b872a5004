"""Settings as flags, without typer: ``edgeproxy run`` starts faster than that can be imported."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeproxy.config import kinds
from edgeproxy.config.settings import SETTINGS, Computed, Setting
from edgeproxy.errors import ConfigError

_CONFIG_NAME = "config"


def parse_flags(arguments: Sequence[str]) -> tuple[Path | None, dict[str, str]]:
    """Split ``--name value`` and ``--name=value`` into the configuration file and settings by name.

    A switch may stand without a value and is then ``true``. Unknown names are passed on:
    :func:`edgeproxy.config.load` reports them together with everything else.

    Raises:
        ConfigError: with every argument that is no flag, lacks its value or is given twice.
    """
    given: dict[str, str] = {}
    problems: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            problems.append(f"{argument!r}: unexpected argument; settings are written --name value")
            continue
        spelling, has_value, value = argument.partition("=")
        name = spelling[2:].replace("-", "_")
        if not has_value:
            if rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            elif (setting := SETTINGS.get(name)) is not None and setting.kind is kinds.flag:
                value = "true"
            elif setting is not None or name == _CONFIG_NAME:
                problems.append(f"{spelling}: needs a value; write {spelling} VALUE")
                continue
        if name in given:
            problems.append(f"{spelling}: given twice; keep one")
        given[name] = value
    if problems:
        raise ConfigError(problems)
    file = given.pop(_CONFIG_NAME, None)
    return (None if file is None else Path(file)), given


def describe_flags(width: int) -> str:
    """Return the part of a help text that lists every flag, in lines of at most ``width`` characters."""
    return "\n".join(_lines(max(width, 40)))


def _lines(width: int) -> Iterator[str]:
    yield "Configuration file"
    yield "  --config FILE"
    yield from _wrapped("TOML file with settings; EDGEPROXY_CONFIG names it too.", width)
    section = None
    flags = [setting for setting in SETTINGS.values() if not setting.is_secret]
    for setting in flags:
        if setting.section.available:
            if section is not setting.section:
                section = setting.section
                yield ""
                yield section.title
            yield f"  {setting.flag} VALUE"
            yield from _wrapped(f"{setting.description} [{_values(setting)}]", width)
    yield ""
    yield "Not available yet: checked, but without effect, and a switch can only be false"
    names = ", ".join(setting.flag for setting in flags if not setting.section.available)
    yield from textwrap.wrap(
        names, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text.replace("`", ""), width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _values(setting: Setting) -> str:
    default = setting.default
    described = default.description if isinstance(default, Computed) else default or "none"
    return f"{setting.kind.values}; default: {described}"
