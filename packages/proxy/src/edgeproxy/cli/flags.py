"""Settings as flags, without typer: ``edgeproxy run`` starts faster than that can be imported."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeproxy.config import Config, kinds, load
from edgeproxy.config.definitions import Computed, Setting
from edgeproxy.config.load import CONFIG_VARIABLE
from edgeproxy.config.settings import SETTINGS

_CONFIG_NAME = "config"


def load_with_flags(arguments: Sequence[str], config_file: Path | None = None) -> Config:
    """Return the settings in force with the flags in ``arguments``, of which ``--config`` is one.

    Raises:
        ConfigError: with every problem in the file, the environment and the flags.
    """
    flags, problems = parse_flags(arguments)
    if (named := flags.pop(_CONFIG_NAME, None)) is not None:
        config_file = Path(named)
    return load(os.environ, flags, config_file, known_problems=problems)


def config_path(arguments: Sequence[str]) -> Path | None:
    """The TOML file that the flags in ``arguments`` or the environment name, ``None`` without one."""
    named = parse_flags(arguments)[0].get(_CONFIG_NAME) or os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def parse_flags(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split ``--name value`` and ``--name=value`` into text by setting's name, and what is wrong with them.

    A switch may stand without a value and is then ``true``. Unknown names are no problem here:
    :func:`edgeproxy.config.load` reports them.
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
    return given, problems


def help_text(introduction: Sequence[str], width: int) -> str:
    """Return ``introduction``, paragraph by paragraph, and all flags, in lines of ``width`` (at least 50)."""
    return "\n".join(_lines(introduction, max(width, 50)))


def _lines(introduction: Sequence[str], width: int) -> Iterator[str]:
    for paragraph in introduction:
        yield from textwrap.wrap(paragraph, width, break_on_hyphens=False)
        yield ""
    yield "Configuration file"
    yield "  --config FILE"
    yield from _wrapped("TOML file with settings; EDGEPROXY_CONFIG names it too.", width)
    section = None
    flags = [setting for setting in SETTINGS.values() if not setting.is_secret]
    for setting in flags:
        if section is not setting.section:
            section = setting.section
            yield ""
            yield section.title
        yield f"  {setting.flag} VALUE"
        yield from _wrapped(f"{setting.description} [{_values(setting)}]", width)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text.replace("`", ""), width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _values(setting: Setting) -> str:
    default = setting.default
    described = default.description if isinstance(default, Computed) else default or "none"
    return f"{setting.kind.values}; default: {described}"
