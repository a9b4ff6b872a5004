"""What all commands share: the options of configuration, and loading it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from edgeproxy.config import Config, load

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file with settings; EDGEPROXY_CONFIG names it too. Environment variables win over it.",
    ),
]


def load_config(config_file: Path | None, flags: Mapping[str, str] = MappingProxyType({})) -> Config:
    """Return the settings that hold for this command.

    Raises:
        ConfigError: with every problem in the file, the environment and the flags.
    """
    return load(os.environ, flags, config_file)
