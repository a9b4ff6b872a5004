"""One point of presence (POP) on this machine: a folder, backends and the proxy, all real processes.

Stories tell a POP what its operator would do, in the operator's words: commands, SQL, signals. Whatever
else is to run the stories, such as containers, gives them a class with these methods.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from e2e.world import write_map
from mock_backend.process import MockBackendProcess
from testkit.process import Process, ProcessFactory

PROGRAM: Final = Path(sys.executable).with_name("edgeproxy")

_SCHEMA: Final = """
CREATE TABLE backends (
    id TEXT PRIMARY KEY, app TEXT, region TEXT, country TEXT, wg_ip TEXT, port INTEGER, healthy INTEGER,
    weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER DEFAULT 0
);
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running ``edgeproxy run``."""

    process: Process
    host: str
    port: int

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers: everything in the proxy's process group but itself."""
        return [pid for pid in self.process.group() if pid != self.process.pid]

    def events(self, name: str) -> list[dict[str, Any]]:
        """What the log says so far about events of this name."""
        return _records(self.process, name)


class Pop:
    """A POP in region ``eu``, with a country database and settings of its own; nothing runs at first."""

    def __init__(self, folder: Path, start: ProcessFactory) -> None:
        self.folder = folder
        self.database = folder / "routing.db"
        self.settings = {
            "EDGEPROXY_REGION": "eu",
            "EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0",
            "EDGEPROXY_GEOIP_PATH": "world.mmdb",
        }
        """The proxy's settings that are no defaults, as environment variables."""
        self._start_process = start
        write_map(folder / "world.mmdb")

    def configure(self, **settings: str) -> None:
        """Set what is named as in the TOML file; it holds for what is started from now on."""
        self.settings.update({f"EDGEPROXY_{name.upper()}": value for name, value in settings.items()})

    # ---- what an operator does ---------------------------------------------------------------

    def edgeproxy(self, *arguments: str) -> str:
        """Run ``edgeproxy`` with these arguments in the POP's folder and return what it prints.

        Raises:
            AssertionError: it failed; carries its exit code and what it said.
        """
        environment = {**os.environ, **self._environment()}
        ended = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env={name: value for name, value in environment.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, f"edgeproxy {arguments} exited {ended.returncode}: {ended.stderr}"
        return ended.stdout

    def add_rows(self, *rows: tuple[str, str, str, int, int]) -> None:
        """Add (id, region, country, port, hard_limit) as an operator would with SQL."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            if not connection.execute("PRAGMA table_info(backends)").fetchall():
                connection.executescript(_SCHEMA)
            connection.executemany(
                "INSERT INTO backends (id, app, region, country, wg_ip, port, healthy, weight, soft_limit, "
                "hard_limit) VALUES (?, 'test', ?, ?, '127.0.0.1', ?, 1, 2, 100, ?)",
                rows,
            )
            connection.commit()

    def sql(self, statement: str) -> None:
        """Run one statement on the routing database, as with the ``sqlite3`` shell."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            connection.execute(statement)
            connection.commit()

    def explain(self, address: str) -> dict[str, Any]:
        """What ``edgeproxy explain --json`` says about the client at ``address``."""
        explanation: dict[str, Any] = json.loads(self.edgeproxy("explain", "--client", address, "--json"))
        return explanation

    def open_connections(self) -> dict[str, int]:
        """Open connections of each backend, as ``edgeproxy explain`` counts them."""
        candidates = self.explain("127.0.0.1")["candidates"]
        return {candidate["backend"]: candidate["connections"] for candidate in candidates}

    # ---- what runs ---------------------------------------------------------------------------

    def start_backend(self, backend_id: str, region: str, port: int = 0) -> MockBackendProcess:
        """Start a mock backend; the routing database is not told."""
        return MockBackendProcess(self._start_process, region=region, id=backend_id, port=port)

    def start_backends(self, *backends: tuple[str, str, str]) -> dict[str, MockBackendProcess]:
        """Start mock backends (id, region, country) and add a row for each; return them by id."""
        started = {backend_id: self.start_backend(backend_id, region) for backend_id, region, _ in backends}
        self.add_rows(*((name, region, country, started[name].port, 0) for name, region, country in backends))
        return started

    def start_proxy(self) -> Proxy:
        """Start ``edgeproxy run`` and return when it accepts clients."""
        process = self._start_process(
            [PROGRAM, "run"], env=self._environment(), cwd=self.folder, name="edgeproxy"
        )
        process.wait_output('"event": "listening"', timeout_s=30)
        (listening,) = _records(process, "listening")
        host, _, port = listening["address"].rpartition(":")
        return Proxy(process, host, int(port))

    def _environment(self) -> dict[str, str | None]:
        """The settings, and none of those of whoever runs the stories."""
        foreign = [name for name in os.environ if name == "DEBUG" or name.startswith("EDGEPROXY_")]
        return {**dict.fromkeys(foreign), "NO_COLOR": "1", **self.settings}


def _records(process: Process, event: str) -> list[dict[str, Any]]:
    records = (json.loads(line) for line in process.log.splitlines() if line.startswith("{"))
    return [record for record in records if record["event"] == event]
