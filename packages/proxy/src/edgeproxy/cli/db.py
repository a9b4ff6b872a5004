"""``edgeproxy db``: the database itself, copies of it, and what was changed in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from edgeproxy.cli.options import ConfigFile, load_config
from edgeproxy.config import Config
from edgeproxy.core.controlplane.routing_table import RoutingTable
from edgeproxy.core.controlplane.rows import written
from edgeproxy.errors import ConfigError, DamagedStoreError
from edgeproxy.ports import Change

group = typer.Typer(help="Make, back up, restore and check the routing database.", no_args_is_help=True)

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PROBLEMS_FOUND = 1


@group.command()
def init(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="The file to make; else that of the settings.")
    ] = None,
    config_file: ConfigFile = None,
) -> None:
    """Make a new routing database with an empty table. An existing file is never touched."""
    from edgeproxy import stores

    config = load_config(config_file)
    if path is None and config.postgres_enabled:
        with stores.open_store(config, "cli") as store:
            print(f"{store} is ready; add backends with `edgeproxy backends add` or psql")
        return
    path = path or config.db_path
    stores.create_file(path)
    print(f"{path} is ready; add backends with `edgeproxy backends add` or the sqlite3 shell")


@group.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make; it must not exist.")],
    config_file: ConfigFile = None,
) -> None:
    """Copy the routing database as it is now, while the proxy runs and others write."""
    from edgeproxy import stores

    config = _with_a_file(config_file, "pg_dump")
    stores.back_up(config, file)
    print(f"{config.db_path} is copied to {file}")


@group.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `edgeproxy db backup` made.")],
    config_file: ConfigFile = None,
) -> None:
    """Make the backends those of a backup, in one step. A proxy that runs sees it within a second."""
    from edgeproxy import stores

    config = _with_a_file(config_file, "pg_restore")
    done = stores.restore(config, file)
    if done.damaged is not None:
        print(f"{config.db_path} could not be used; it is kept as {done.damaged}")
    print(
        f"{config.db_path} is restored from {file}: "
        f"{done.added} rows added, {done.changed} changed, {done.removed} removed"
    )


@group.command()
def verify(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The file to check; else that of the settings.")
    ] = None,
    config_file: ConfigFile = None,
) -> None:
    """Check a routing database or a backup: every page, the schema, every row, the change log.

    Exits with 0 when nothing is wrong, 1 when rows or the log are, and 3 when it cannot be used.
    """
    from edgeproxy import stores

    config = load_config(config_file) if file is not None else _with_a_file(config_file, "pg_amcheck")
    path = file or config.db_path
    findings = stores.look_through(path)
    if findings.damages:
        raise DamagedStoreError("\n".join(f"{path}: {damage}" for damage in findings.damages))
    table = RoutingTable(config.geography)
    table.replace(stores.open_file(config, "cli", path).poll() or ())
    problems = [*map(str, table.issues), *(f"change log: {problem}" for problem in findings.log)]
    for problem in problems:
        print(problem)
    usable = f"{len(table.snapshot())} usable backends"
    if problems:
        print(f"{path} is sound and holds {usable}; {len(problems)} problems found")
        raise typer.Exit(_PROBLEMS_FOUND)
    print(f"{path} is sound and holds {usable}")


@group.command("log")
def show_log(
    since: Annotated[
        str,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Only what came after: 90s, 10m, 2h, 3d ago, or a time in ISO 8601.",
        ),
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="So many changes at most, the last ones.")
    ] = 100,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Show who changed which backend, when, and from what to what."""
    from edgeproxy import stores

    start = _moment(since) if since else ""
    with stores.open_store(load_config(config_file), "cli") as store:
        changes = store.changes(start, limit)
    if json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode({"changes": changes})).decode())
    elif changes:
        print("\n".join(_lines(changes)))
    else:
        print("no change is logged" + (f" since {start}" if start else ""))


def _with_a_file(config_file: Path | None, program: str) -> Config:
    config = load_config(config_file)
    if config.postgres_enabled:
        raise ConfigError([f"this is for databases in files; for PostgreSQL use {program}"])
    return config


def _moment(text: str) -> str:
    """The time that ``text`` means, as in :attr:`edgeproxy.ports.Change.at`."""
    try:
        if ago := re.fullmatch(r"(\d{1,9})([smhd])", text):
            moment = datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS_S[ago[2]])
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigError(
            [f"--since {text}: write an age (90s, 10m, 2h, 3d) or a time in UTC (2026-11-20T10:00)"]
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _lines(changes: Sequence[Change]) -> Iterator[str]:
    width = max(len(change.author) for change in changes)
    for change in changes:
        yield f"{change.at}  {change.author.ljust(width)}  {change.id}  {_what(change)}"


def _what(change: Change) -> str:
    if change.new is None:
        return "removed"
    if change.old is None:
        return "added: " + ", ".join(f"{column} {written(value)}" for column, value in change.new.items())
    return ", ".join(
        f"{column} {written(change.old.get(column))} → {written(value)}"
        for column, value in change.new.items()
        if change.old.get(column) != value
    )
