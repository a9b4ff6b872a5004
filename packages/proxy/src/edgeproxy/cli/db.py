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
from edgeproxy.core.controlplane.history import Restorable
from edgeproxy.core.controlplane.routing_table import RoutingTable
from edgeproxy.core.controlplane.rows import written
from edgeproxy.errors import ConfigError, DamagedStoreError
from edgeproxy.ports import Change, Row

group = typer.Typer(help="Make, back up, restore and check the routing database.", no_args_is_help=True)

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PROBLEMS_FOUND = 1
_ALL = 1 << 62
"""More changes than any log has."""


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
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="What `edgeproxy db backup` made.")
    ] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="WHEN", help="Back to this time, by the change log or the archive.")
    ] = "",
    from_archive: Annotated[
        str, typer.Option("--from-archive", metavar="URL", help="By what was archived there.")
    ] = "",
    node: Annotated[
        str, typer.Option("--node", help="Whose archive, if not that of this POP.", metavar="NAME")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would change; for --to and --from-archive.")
    ] = False,
    config_file: ConfigFile = None,
) -> None:
    """Make the backends those of a backup, of a time, or of an archive, in one step.

    These are changes like any other: they are logged, and replicated to other POPs. A proxy that runs sees
    them within a second.
    """
    from edgeproxy import stores

    config = _with_a_file(config_file, "pg_restore")
    if file is None:
        if not to and not from_archive:
            raise ConfigError(["name a backup, or a time with --to, or an archive with --from-archive"])
        moment = _moment("--to", to) if to else ""
        if from_archive:
            wanted = stores.read_archive(from_archive, node or config.replication_node_id, moment)
        else:
            wanted = Restorable(stores.rows_at(config, moment), moment)
        _restore_rows(config, wanted, dry_run=dry_run)
        return
    if to or from_archive or dry_run:
        raise ConfigError([f"{file} is restored as a whole: leave out --to, --from-archive and --dry-run"])
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


@group.command()
def at(
    when: Annotated[str, typer.Argument(metavar="TIME", help="90s, 10m, 2h, 3d ago, or a time in ISO 8601.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Show every backend as it was at a time, as far as the change log goes back."""
    from edgeproxy import stores

    config = _with_a_file(config_file, "point-in-time recovery")
    moment = _moment("TIME", when)
    rows = stores.rows_at(config, moment)
    if json:
        import msgspec

        content = {"at": moment, "backends": [{"id": row_id, **row} for row_id, row in sorted(rows.items())]}
        print(msgspec.json.format(msgspec.json.encode(content)).decode())
        return
    for row_id, row in sorted(rows.items()):
        print(f"{row_id}  " + ", ".join(f"{column} {written(value)}" for column, value in row.items()))
    if not rows:
        print(f"there were no rows at {moment}")


@group.command()
def archive(
    url: Annotated[
        str,
        typer.Argument(
            metavar="[URL]", help="file:///FOLDER or s3://BUCKET/PREFIX; else that of the settings."
        ),
    ] = "",
    config_file: ConfigFile = None,
) -> None:
    """Copy what was changed since the last time to the archive, so that any time since can be restored.

    A proxy that runs with EDGEPROXY_ARCHIVE_URL does this by itself.
    """
    from edgeproxy import stores

    config = _with_a_file(config_file, "continuous archiving")
    url = url or config.archive_url or ""
    if not url:
        raise ConfigError(["name an archive, or set EDGEPROXY_ARCHIVE_URL"])
    keeper = stores.open_archive(config, url)
    done = keeper.step()
    total, snapshots = done.changes, int(done.snapshot)
    while done.more:
        done = keeper.step()
        total, snapshots = total + done.changes, snapshots + int(done.snapshot)
    snapshot = ", and a snapshot" if snapshots else ""
    print(f"{total} changes of {config.db_path} are added to {url}{snapshot}; it goes up to {done.until}")


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
    backend: Annotated[
        str, typer.Option("--backend", metavar="ID", help="Only what became of this backend.")
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="So many changes at most, the last ones.")
    ] = 100,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Show who changed which backend, when, and from what to what."""
    from edgeproxy import stores

    start = _moment("--since", since) if since else ""
    with stores.open_store(load_config(config_file), "cli") as store:
        changes = store.changes(start, limit if not backend else _ALL)
    if backend:
        changes = [change for change in changes if change.id == backend][-limit:]
    if json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode({"changes": changes})).decode())
    elif changes:
        print("\n".join(_lines(changes)))
    else:
        whose = f" of backend {backend}" if backend else ""
        print(f"no change{whose} is logged" + (f" since {start}" if start else ""))


def _restore_rows(config: Config, wanted: Restorable, *, dry_run: bool) -> None:
    from edgeproxy import stores

    differences = stores.restore_rows(config, wanted.rows, dry_run=dry_run)
    for row_id, old, new in differences:
        print(f"{row_id}  {_difference(old, new)}")
    added = sum(old is None for _, old, _ in differences)
    removed = sum(new is None for _, _, new in differences)
    counts = f"{added} rows added, {len(differences) - added - removed} changed, {removed} removed"
    if dry_run:
        print(f"{config.db_path} would be restored to {wanted.at}: {counts}; nothing was written")
    else:
        print(f"{config.db_path} is restored to {wanted.at}: {counts}")


def _with_a_file(config_file: Path | None, program: str) -> Config:
    config = load_config(config_file)
    if config.postgres_enabled:
        raise ConfigError([f"this is for databases in files; for PostgreSQL use {program}"])
    return config


def _moment(label: str, text: str) -> str:
    """The time that ``text`` means, as in :attr:`edgeproxy.ports.Change.at`."""
    try:
        if ago := re.fullmatch(r"(\d{1,9})([smhd])", text):
            moment = datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS_S[ago[2]])
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigError(
            [f"{label} {text}: write an age (90s, 10m, 2h, 3d) or a time in UTC (2026-11-20T10:00)"]
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _lines(changes: Sequence[Change]) -> Iterator[str]:
    width = max(len(change.author) for change in changes)
    for change in changes:
        yield f"{change.at}  {change.author.ljust(width)}  {change.id}  {_difference(change.old, change.new)}"


def _difference(old: Row | None, new: Row | None) -> str:
    if new is None:
        return "removed"
    if old is None:
        return "added: " + ", ".join(f"{column} {written(value)}" for column, value in new.items())
    return ", ".join(
        f"{column} {written(old.get(column))} → {written(value)}"
        for column, value in new.items()
        if old.get(column) != value
    )
