"""Which store the settings name, opened: the composition root of everything that reads and writes rows.

Apart from :mod:`edgeproxy.app`, because commands need a store and nothing else of the control process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from edgeproxy.config import Config
from edgeproxy.outbound.change_log_sqlite import LogSettings
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import ChangeLog, LeaseStore, RowStore

if TYPE_CHECKING:
    from edgeproxy.core.controlplane.history import Restorable, RowDifference, Rows
    from edgeproxy.outbound.archive import ArchiveKeeper
    from edgeproxy.outbound.backup_sqlite import Restored
    from edgeproxy.outbound.integrity_sqlite import Findings
    from edgeproxy.outbound.node_file import NodeFile
    from edgeproxy.outbound.replica_sqlite import SqliteReplica
    from edgeproxy.outbound.tokens_files import TokenFiles

PATIENCE_AT_START_S: Final = 30.0
"""How long a proxy that starts waits for a database that may be starting, too."""

CHECK_AT_START_S: Final = 0.25
"""How long the check of a large file may delay a start."""

API_AUTHOR: Final = "api"


class Store(RowStore, ChangeLog, Protocol):
    """Rows and what happened to them. As text it is where they are, without secrets."""


@contextmanager
def open_store(
    config: Config,
    author: str,
    *,
    patience_s: float = 0.0,
    on_change: Callable[[], None] = lambda: None,
) -> Iterator[Store]:
    """Open the store; what is written through it is logged as ``author``'s.

    ``on_change`` is called, in another thread, when a poll is worth its while before its time; a store that
    cannot know never calls it.

    Raises:
        ConfigError: the settings cannot be used.
        StoreError: the store does not let us in, or cannot be reached within ``patience_s``.
    """
    if not config.postgres_enabled:
        yield open_file(config, author)
        return
    # Takes a fifth of a second to import.
    from edgeproxy.outbound.postgres_hosts import PostgresSettings
    from edgeproxy.outbound.store_postgres import PostgresStore

    assert config.postgres_url is not None
    settings = PostgresSettings(
        config.postgres_url,
        config.postgres_min_connections,
        config.postgres_max_connections,
        config.postgres_connect_timeout_secs,
        config.postgres_query_timeout_secs,
        config.postgres_reload_secs,
    )
    store = PostgresStore(
        settings,
        author=author,
        max_changes=config.change_log_max_changes,
        max_age_s=config.change_log_max_age_secs,
        patience_s=patience_s,
        on_change=on_change,
    )
    try:
        yield store
    finally:
        store.close()


@contextmanager
def open_store_to_serve(config: Config, on_change: Callable[[], None]) -> Iterator[Store]:
    """Open the store for a proxy: wait for a database that is starting, look whether a file is sound.

    Raises:
        StoreError: it cannot be served from.
    """
    if not config.postgres_enabled:
        check_file(config)
    with open_store(config, "proxy", patience_s=PATIENCE_AT_START_S, on_change=on_change) as store:
        yield store


def open_leases(config: Config, store: Store) -> LeaseStore:
    """The leases of backends that register themselves, beside the rows of ``store``, which must stay open.

    What they change in rows is logged as the API's.
    """
    if not config.postgres_enabled:
        from edgeproxy.outbound.leases_sqlite import SqliteLeases

        return SqliteLeases(open_file(config, API_AUTHOR))
    from edgeproxy.outbound.leases_postgres import PostgresLeases
    from edgeproxy.outbound.store_postgres import PostgresStore

    assert isinstance(store, PostgresStore)
    return PostgresLeases(store, API_AUTHOR)


def open_file(config: Config, author: str, path: Path | None = None) -> SqliteStore:
    """The store in the file at ``path``, which is by default that of the settings."""
    log = LogSettings(
        author,
        config.replication_node_id,
        config.change_log_max_changes,
        config.change_log_max_age_secs,
        replicated=config.replication_enabled,
    )
    return SqliteStore(path or config.db_path, log)


def open_replica(config: Config, warn: Callable[[str], None]) -> tuple[SqliteReplica, NodeFile]:
    """What the database replicates by, and what this node remembers; ``warn`` is told if that was lost.

    Raises:
        StoreError: what is remembered cannot be read.
    """
    from edgeproxy.core.replication.clock import Clock
    from edgeproxy.outbound.node_file import NodeFile
    from edgeproxy.outbound.replica_sqlite import ReplicaSettings, SqliteReplica

    node = config.replication_node_id
    file = NodeFile(config.replication_db_path, node, warn)
    store = open_file(config, "proxy")
    if file.state.origin:
        store.expect(file.state.origin, file.state.sequence)

    def keep(clock_ms: int, origin: str, sequence: int) -> None:
        file.write(clock_ms=clock_ms, origin=origin, sequence=sequence)

    settings = ReplicaSettings(node, config.change_log_max_changes, config.change_log_max_age_secs)
    return SqliteReplica(store, Clock(node, file.state.clock_ms), settings, keep=keep), file


def open_tokens(config: Config) -> TokenFiles:
    """The bearer tokens of the API; a folder that is not there holds none."""
    from edgeproxy.outbound.tokens_files import TokenFiles

    return TokenFiles(config.api_tokens_dir)


def create_file(path: Path) -> None:
    """Make a database with an empty table.

    Raises:
        StoreError: there is something at ``path`` already, or nothing can be made there.
    """
    SqliteStore.create(path)


def check_file(config: Config) -> None:
    """Look for damage, for as long as a start may take.

    Raises:
        StoreError: the file is damaged or cannot be read.
    """
    from edgeproxy.outbound.integrity_sqlite import check_quickly

    check_quickly(open_file(config, "proxy"), CHECK_AT_START_S)


def back_up(config: Config, target: Path) -> None:
    """Copy the database of the settings; see :func:`edgeproxy.outbound.backup_sqlite.back_up`."""
    from edgeproxy.outbound import backup_sqlite

    backup_sqlite.back_up(open_file(config, "backup"), target)


def restore(config: Config, backup: Path) -> Restored:
    """Put a backup in place; see :func:`edgeproxy.outbound.backup_sqlite.restore`."""
    from edgeproxy.outbound import backup_sqlite

    return backup_sqlite.restore(open_file(config, "restore"), SqliteStore(backup))


def rows_at(config: Config, at: str) -> Rows:
    """What the table was; see :func:`edgeproxy.outbound.history_sqlite.rows_at`."""
    from edgeproxy.outbound import history_sqlite

    return history_sqlite.rows_at(open_file(config, "restore"), at)


def restore_rows(config: Config, wanted: Rows, *, dry_run: bool) -> Sequence[RowDifference]:
    """Make the rows what they were, or tell what that would change.

    See :func:`edgeproxy.outbound.history_sqlite.restore_rows`.
    """
    from edgeproxy.outbound import history_sqlite

    store = open_file(config, "restore")
    # Edits that no trigger saw are changes since then, too.
    if not dry_run:
        store.tend()
    return history_sqlite.plan(store, wanted) if dry_run else history_sqlite.restore_rows(store, wanted)


def open_archive(config: Config, url: str) -> ArchiveKeeper:
    """What adds the changes of the settings' database to the archive at ``url``.

    Raises:
        ConfigError: ``url`` names no archive.
        StoreError: what it takes to reach it is not installed.
    """
    from edgeproxy.outbound.archive import Archive, ArchiveKeeper
    from edgeproxy.outbound.archive_places import open_place

    archive = Archive(open_place(url), config.replication_node_id)
    return ArchiveKeeper(open_file(config, "archive"), archive, config.archive_keep_secs)


def read_archive(url: str, node: str, at: str) -> Restorable:
    """What the rows of ``node`` were; see :meth:`edgeproxy.outbound.archive.Archive.rows_at`."""
    from edgeproxy.outbound.archive import Archive
    from edgeproxy.outbound.archive_places import open_place

    return Archive(open_place(url), node).rows_at(at)


def look_through(path: Path) -> Findings:
    """Check a file thoroughly; see :func:`edgeproxy.outbound.integrity_sqlite.look_through`."""
    from edgeproxy.outbound import integrity_sqlite

    return integrity_sqlite.look_through(SqliteStore(path))
