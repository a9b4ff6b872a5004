"""``edgeproxy token``: who may call the API."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from edgeproxy.cli.options import ConfigFile, load_config
from edgeproxy.core.controlplane.tokens import Scope
from edgeproxy.errors import ConfigError
from edgeproxy.stores import open_tokens

group = typer.Typer(help="Make, list and revoke the bearer tokens of the API.", no_args_is_help=True)


@group.command()
def create(
    scope: Annotated[
        Scope,
        typer.Option(
            "--scope",
            help="read looks at backends, register is for the backends of one app, admin for everything.",
        ),
    ],
    app: Annotated[
        str | None, typer.Option("--app", help="With scope register: the app whose backends may register.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What the token is for, for the list.")] = "",
    config_file: ConfigFile = None,
) -> None:
    """Make a token and print it, this once; a running proxy takes it from now on.

    Run this as the user that runs the proxy.
    """
    if (scope is Scope.REGISTER) != bool(app):
        raise ConfigError(
            ["--scope register needs --app APP, the app whose backends may register"]
            if scope is Scope.REGISTER
            else [f"--app goes with --scope register only; scope {scope} is for all apps"]
        )
    if not name.isprintable():
        raise ConfigError(["--name: holds characters that cannot be printed"])
    _, text = open_tokens(load_config(config_file)).create(scope, app, name, time.time())
    print(text)


@group.command("list")
def list_tokens(config_file: ConfigFile = None) -> None:
    """Print the tokens there are, without their secrets."""
    tokens = open_tokens(load_config(config_file)).all()
    if not tokens:
        print("there is no token: only this machine may call the API")
        return
    lines = [("id", "scope", "app", "created", "name")]
    for token in tokens:
        created = datetime.fromtimestamp(token.created_at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        lines.append((token.id, token.scope, token.app or "", created, token.name))
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@group.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, the part between its _.")],
    config_file: ConfigFile = None,
) -> None:
    """Make a token worthless; a running proxy refuses it from now on."""
    if not open_tokens(load_config(config_file)).revoke(token_id):
        raise ConfigError([f"there is no token {token_id!r}; `edgeproxy token list` shows those there are"])
    print(f"token {token_id} revoked")
