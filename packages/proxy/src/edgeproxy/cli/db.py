"""``edgeproxy db``: the database file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeproxy.cli.options import ConfigFile, load_config
from edgeproxy.outbound.store_sqlite import SqliteStore

group = typer.Typer(help="Make a routing database.", no_args_is_help=True)


@group.callback()
def _group() -> None:
    # With a callback, a group of one command keeps that command's name.
    pass


@group.command()
def init(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="The file to make; else that of the settings.")
    ] = None,
    config_file: ConfigFile = None,
) -> None:
    """Make a new routing database with an empty table. An existing file is never touched."""
    path = path or load_config(config_file).db_path
    SqliteStore.create(path)
    print(f"{path} is ready; add backends with `edgeproxy backends add` or the sqlite3 shell")
