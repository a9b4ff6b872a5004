"""Real PostgreSQL servers by name that replicate, crash, are promoted, backed up and restored.

They are the nodes of :mod:`testkit.contracts.failover`: streaming replication, an archive of the log for
restoring to a point in time, and backups that PostgreSQL itself verifies. A row is one of a table of keys and
values.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from testkit.contracts.failover import DamagedBackupError, NodeDownError, ReadOnlyError, Role
from testkit.ports import reserved_port
from testkit.postgres import USER, PostgresServer, Template, copy_data, give_away, new_folder
from testkit.wait import wait_until

_POSITION = (
    "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"
    " - '0/0')::bigint"
)
_UPSERT = "INSERT INTO rows VALUES ({key}, {value}) ON CONFLICT (key) DO UPDATE SET value = {value}"
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Backup:
    """A folder with a base backup of a node."""

    node: str
    folder: Path


class PostgresNodes:
    """The nodes; all their folders are below ``folder``, which must be reachable by `run_as`."""

    def __init__(self, binaries: Path, template: Template, folder: Path, stack: ExitStack) -> None:
        self._binaries = binaries
        self._template = template
        self._folder = folder
        self._stack = stack
        self._servers: dict[str, PostgresServer] = {}
        self._numbers = itertools.count()

    def create_primary(self, name: str) -> None:
        server = self._make(name)
        server.copy(self._template)
        server.start()

    def create_replica(self, name: str, of: str) -> None:
        primary = self._running(of)
        server = self._make(name)
        server.make_standby_of(primary)
        server.start()

    def remove(self, name: str) -> None:
        server = self._servers.pop(name)
        server.stop()
        shutil.rmtree(server.data)

    def crash(self, name: str) -> None:
        self._running(name).kill()

    def start(self, name: str) -> None:
        self._servers[name].start()

    def cut_off(self, name: str) -> None:
        self._set_source(name, "")
        wait_until(
            lambda: self._ask(name, "SELECT count(*) FROM pg_stat_wal_receiver") == "0",
            reason=f"{name} to receive no more",
            timeout_s=_TIMEOUT_S,
        )

    def follow(self, name: str, primary: str) -> None:
        source = self._servers[primary]
        self._set_source(name, f"host=127.0.0.1 port={source.port} user={USER} password={source.password}")

    def promote(self, name: str) -> None:
        self._running(name).promote()

    def role(self, name: str) -> Role:
        return Role.REPLICA if self._ask(name, "SELECT pg_is_in_recovery()") == "t" else Role.PRIMARY

    def position(self, name: str) -> int:
        return int(self._ask(name, _POSITION))

    def write(self, name: str, key: str, value: str) -> None:
        try:
            self._ask(name, _UPSERT.format(key=_literal(key), value=_literal(value)))
        except AssertionError as error:
            if "read-only transaction" in str(error):
                raise ReadOnlyError(name) from error
            raise

    def read(self, name: str) -> Mapping[str, str]:
        lines = self._ask(name, "SELECT key, value FROM rows").splitlines()
        return {key: value for key, _, value in (line.partition("|") for line in lines)}

    def back_up(self, name: str) -> Backup:
        folder = self._folder / f"backup-{next(self._numbers)}"
        server = self._running(name)
        server.run(
            *("pg_basebackup", "--pgdata", str(folder), "--dbname", server.url()),
            *("--wal-method=stream", "--checkpoint=fast", "--no-sync"),
        )
        return Backup(name, folder)

    def mark(self, name: str) -> str:
        point = f"point{next(self._numbers)}"
        self._ask(name, f"SELECT pg_create_restore_point('{point}')")
        segment = self._ask(name, "SELECT pg_walfile_name(pg_current_wal_lsn())")
        self._ask(name, "SELECT pg_switch_wal()")
        wait_until(
            lambda: self._ask(name, "SELECT last_archived_wal FROM pg_stat_archiver") >= segment,
            reason=f"the log of {name} to be archived",
            timeout_s=_TIMEOUT_S,
        )
        return point

    def validate(self, backup: Backup) -> None:
        try:
            self._servers[backup.node].run("pg_verifybackup", str(backup.folder))
        except AssertionError as error:
            raise DamagedBackupError(str(error)) from error

    def damage(self, backup: Backup) -> None:
        path = backup.folder / "base" / "1" / "pg_filenode.map"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    def restore(self, name: str, backup: Backup, until: str | None = None) -> None:
        self.validate(backup)
        server = self._make(name)
        copy_data(backup.folder, server.data)
        if until is not None:
            with (server.data / "postgresql.auto.conf").open("a", encoding="utf-8") as settings:
                settings.write(f"restore_command = 'cp {self._archive(backup.node)}/%f %p'\n")
                settings.write(f"recovery_target_name = '{until}'\nrecovery_target_action = 'promote'\n")
            signal = server.data / "recovery.signal"
            signal.touch()
            give_away(signal)
        server.start()
        wait_until(
            lambda: self.role(name) is Role.PRIMARY, reason=f"{name} to be restored", timeout_s=_TIMEOUT_S
        )

    def _make(self, name: str) -> PostgresServer:
        """A server without data."""
        folder = self._folder / f"{name}-{next(self._numbers)}"
        archive = self._archive(name)
        for each in (folder, archive):
            each.mkdir(exist_ok=True)
            give_away(each)
        port = self._stack.enter_context(reserved_port())
        settings = {
            "archive_mode": "on",
            "archive_command": f"cp %p {archive}/%f",
            "wal_retrieve_retry_interval": "50ms",
        }
        server = PostgresServer(self._binaries, folder, port, settings)
        server.password = self._template.password
        self._stack.callback(server.stop)
        self._servers[name] = server
        return server

    def _archive(self, name: str) -> Path:
        return self._folder / f"archive-{name}"

    def _running(self, name: str) -> PostgresServer:
        server = self._servers.get(name)
        if server is None or not server.running:
            raise NodeDownError(name)
        return server

    def _ask(self, name: str, sql: str) -> str:
        return self._running(name).execute(sql)

    def _set_source(self, name: str, source: str) -> None:
        # Not in one go: the first cannot be part of a transaction.
        self._ask(name, f"ALTER SYSTEM SET primary_conninfo = {_literal(source)}")
        self._ask(name, "SELECT pg_reload_conf()")


@contextmanager
def node_template(binaries: Path, empty: Template) -> Iterator[Template]:
    """An empty table in a server that does not run."""
    folder = new_folder()
    try:
        with reserved_port() as port:
            server = PostgresServer(binaries, folder, port)
            server.copy(empty)
            server.start()
            server.execute("CREATE TABLE rows (key text PRIMARY KEY, value text NOT NULL)")
            server.stop()
        yield Template(server.data, server.password)
    finally:
        shutil.rmtree(folder)


@contextmanager
def postgres_nodes(binaries: Path, template: Template) -> Iterator[PostgresNodes]:
    """No nodes yet; what has been made is gone at the end."""
    folder = new_folder()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        yield PostgresNodes(binaries, template, folder, stack)


def _literal(value: str) -> str:
    escaped = value.replace("'", "''")
    return f"'{escaped}'"
