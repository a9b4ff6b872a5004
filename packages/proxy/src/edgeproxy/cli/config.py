"""``edgeproxy config``: what the settings are, where each comes from, and whether they are right."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeproxy.cli.flags import load_with_flags
from edgeproxy.cli.options import ConfigFile
from edgeproxy.config.reference import reference_page
from edgeproxy.config.show import as_json, as_toml

group = typer.Typer(help="Show, check and document the settings.", no_args_is_help=True)

_TAKES_SETTINGS = {"ignore_unknown_options": True, "allow_extra_args": True}


@group.command(context_settings=_TAKES_SETTINGS)
def show(
    context: typer.Context,
    config_file: ConfigFile = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
) -> None:
    """Print the settings in force and the source of each, as a TOML file; secrets are left out.

    Takes the flags of `edgeproxy run`, to see what they would do.
    """
    config = load_with_flags(context.args, config_file)
    print(as_json(config) if json else as_toml(config))


@group.command(context_settings=_TAKES_SETTINGS)
def check(context: typer.Context, config_file: ConfigFile = None) -> None:
    """Print OK, or everything that is wrong with the settings (exit code 2).

    Takes the flags of `edgeproxy run`, to check them too.
    """
    load_with_flags(context.args, config_file)
    print("OK")


@group.command()
def reference() -> None:
    """Print the reference of all settings, in Markdown."""
    print(reference_page(), end="")
