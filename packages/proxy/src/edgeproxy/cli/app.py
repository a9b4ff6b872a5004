"""All commands in one place: each group has its own module and one line at the end of this one."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeproxy import __version__
from edgeproxy.cli import backends, config, ctl, db, explain, register, replication, token
from edgeproxy.cli import run as run_command

app = typer.Typer(
    name="edgeproxy",
    help="An edge TCP proxy that routes each client to the best backend: by geography, health, load, limits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeproxy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


@app.command(
    "run",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def _run(context: typer.Context) -> None:
    """Run the proxy until SIGTERM or Ctrl-C; `edgeproxy run --help` lists every setting."""
    raise typer.Exit(run_command.run(context.args))


app.command("explain")(explain.explain)
app.command("register")(register.register)
app.command("upgrade")(ctl.upgrade)

# The groups, in the order in which the help shows them.
app.add_typer(backends.group, name="backends")
app.add_typer(db.group, name="db")
app.add_typer(ctl.group, name="ctl")
app.add_typer(token.group, name="token")
app.add_typer(replication.group, name="replication")
app.add_typer(config.group, name="config")
