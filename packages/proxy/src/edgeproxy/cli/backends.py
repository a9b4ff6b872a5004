"""``edgeproxy backends``: looking at the routing table at rest, and editing it.

These commands work on the database, whether a proxy is running or not; a running one sees the edit
within a second.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edgeproxy.cli.options import ConfigFile
from edgeproxy.config import Config, load
from edgeproxy.core.controlplane.registry import (
    Refusal,
    RefusalReason,
    add_backend,
    remove_backend,
    set_backend,
)
from edgeproxy.core.controlplane.routing_table import RoutingTable
from edgeproxy.core.controlplane.rows import RowIssue
from edgeproxy.core.model import Backend
from edgeproxy.errors import ConfigError
from edgeproxy.ports import Operation
from edgeproxy.stores import open_store

group = typer.Typer(help="Look at and edit the backends in the routing database.", no_args_is_help=True)

BackendId = Annotated[str, typer.Argument(metavar="ID", help="The backend's id.")]
Database = Annotated[
    Path | None,
    typer.Option("--db", metavar="PATH", help="A routing database in a file, whatever the settings name."),
]
_App = typer.Option("--app", help="The app it serves.")
_Region = typer.Option("--region", help="Where it stands: sa, us, eu, ap, or a region of your own.")
_Host = typer.Option("--host", help="Its IP address or host name (column wg_ip).")
_Port = typer.Option("--port", help="Its TCP port.")
Country = Annotated[
    str | None, typer.Option("--country", help="Two letters of ISO 3166-1; without it, the region's default.")
]
Weight = Annotated[int | None, typer.Option("--weight", help="0 to 255; more draws more clients.")]
SoftLimit = Annotated[int | None, typer.Option("--soft-limit", help="Connections it carries with ease.")]
HardLimit = Annotated[
    int | None, typer.Option("--hard-limit", help="Connections it never exceeds; 0 for no limit.")
]
Healthy = Annotated[
    bool | None, typer.Option("--healthy/--unhealthy", help="Whether it is to be given clients.")
]

_AUTHOR = "cli"
_COLUMNS = ("id", "app", "region", "country", "host", "port", "healthy", "weight", "soft_limit", "hard_limit")


@group.command("list")
def list_backends(
    app: Annotated[str | None, typer.Option("--app", help="Only those of this app.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    database: Database = None,
    config_file: ConfigFile = None,
) -> None:
    """Print every backend, and every row that cannot be used with the reason."""
    config = _load(config_file, database)
    table = RoutingTable(config.geography)
    with open_store(config, _AUTHOR) as store:
        table.replace(store.poll() or ())
        place = str(store)
    backends = [placed.backend for placed in table.snapshot() if app in (None, placed.backend.app)]
    if json:
        document = {
            "backends": [msgspec.structs.asdict(backend) for backend in backends],
            "issues": table.issues,
        }
        print(msgspec.json.format(msgspec.json.encode(document)).decode())
        return
    if backends:
        print("\n".join(_table(backends)))
    else:
        of_app = f" of app {app}" if app is not None else ""
        print(
            f"{place} holds no usable backend{of_app}; add one with: "
            "edgeproxy backends add ID --app APP --region REGION --host HOST --port PORT"
        )
    if table.issues:
        print("\n".join(_bad_rows(table.issues)))


@group.command("add")
def add(
    backend_id: BackendId,
    app: Annotated[str, _App],
    region: Annotated[str, _Region],
    host: Annotated[str, _Host],
    port: Annotated[int, _Port],
    country: Country = None,
    weight: Weight = None,
    soft_limit: SoftLimit = None,
    hard_limit: HardLimit = None,
    healthy: Healthy = None,
    database: Database = None,
    config_file: ConfigFile = None,
) -> None:
    """Add a backend: weight 2, soft limit 100, hard limit 150 and healthy, unless given otherwise."""
    values = _given(
        app=app, region=region, country=country, wg_ip=host, port=port, healthy=healthy, weight=weight,
        soft_limit=soft_limit, hard_limit=hard_limit,
    )  # fmt: skip
    config = _load(config_file, database)
    _apply(config, lambda table: add_backend(table, config.geography, backend_id, values))
    print(f"backend {backend_id} added")


@group.command("set")
def set_(
    backend_id: BackendId,
    app: Annotated[str | None, _App] = None,
    region: Annotated[str | None, _Region] = None,
    host: Annotated[str | None, _Host] = None,
    port: Annotated[int | None, _Port] = None,
    country: Country = None,
    weight: Weight = None,
    soft_limit: SoftLimit = None,
    hard_limit: HardLimit = None,
    healthy: Healthy = None,
    database: Database = None,
    config_file: ConfigFile = None,
) -> None:
    """Change a backend; what is not given stays as it is."""
    values = _given(
        app=app, region=region, country=country, wg_ip=host, port=port, healthy=healthy, weight=weight,
        soft_limit=soft_limit, hard_limit=hard_limit,
    )  # fmt: skip
    if not values:
        raise ConfigError(["nothing to change; name a value, e.g. --unhealthy or --weight 5"])
    config = _load(config_file, database)
    _apply(config, lambda table: set_backend(table, config.geography, backend_id, values))
    print(f"backend {backend_id} changed")


@group.command("remove")
def remove(backend_id: BackendId, database: Database = None, config_file: ConfigFile = None) -> None:
    """Remove a backend. Its connections end by themselves; its row stays, marked as deleted."""
    _apply(_load(config_file, database), lambda table: remove_backend(table, backend_id))
    print(f"backend {backend_id} removed")


def _load(config_file: Path | None, database: Path | None) -> Config:
    flags = {} if database is None else {"db_path": str(database), "postgres_enabled": "false"}
    return load(os.environ, flags, config_file)


def _given(**columns: object) -> dict[str, object]:
    """The columns that were given values."""
    return {column: value for column, value in columns.items() if value is not None}


_REMEDIES = {
    RefusalReason.EXISTS: "; change it with `edgeproxy backends set`",
    RefusalReason.UNKNOWN: "; `edgeproxy backends list` shows those there are",
    RefusalReason.INVALID: "",
}


def _apply(config: Config, operation: Operation[Refusal]) -> None:
    with open_store(config, _AUTHOR) as store:
        decision = store.apply(operation)
    if isinstance(decision, Refusal):
        raise ConfigError([f"{problem}{_REMEDIES[decision.reason]}" for problem in decision.problems])


def _table(backends: Sequence[Backend]) -> Iterator[str]:
    lines = [_COLUMNS, *(_cells(backend) for backend in backends)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cells(backend: Backend) -> tuple[str, ...]:
    values = msgspec.structs.asdict(backend)
    values["healthy"] = "yes" if backend.healthy else "no"
    return tuple(str(values[column]) for column in _COLUMNS)


def _bad_rows(issues: Sequence[RowIssue]) -> Iterator[str]:
    yield ""
    yield "Skipped rows:"
    for issue in issues:
        yield f"  {issue}"
