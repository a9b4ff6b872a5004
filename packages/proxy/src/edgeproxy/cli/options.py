"""What all commands share: the options of configuration, and loading it."""

from __future__ import annotations

import os
from pathlib import Path
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


def load_config(config_file: Path | None) -> Config:
    """Return the settings that hold for this command.

    Raises:
        ConfigError: with every problem in the file and the environment.
    """
    return load(os.environ, {}, config_file)
