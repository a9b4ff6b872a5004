"""``edgeproxy replication``: what POPs that replicate need before they start."""

from __future__ import annotations

import secrets

import typer

from edgeproxy.config import kinds

group = typer.Typer(help="Prepare POPs for replicating to each other.", no_args_is_help=True)


@group.callback()
def _group() -> None:
    # With it, a group of one command keeps that command's name.
    pass


@group.command()
def key() -> None:
    """Make a key and print it, this once: all POPs of a cluster get it in EDGEPROXY_REPLICATION_KEYS."""
    print(kinds.keys.format((secrets.token_bytes(32),)))
