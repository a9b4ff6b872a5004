"""What a story can do: a point of presence (POP), its proxy, backends and clients, wherever they run.

Stories tell a POP what its operator would do, in the operator's words: commands, SQL, signals, faults. Each
substrate brings its own kind of these, so that the same stories are told of processes on this machine
(``e2e.processes``) and of hosts with networks between them (``e2e.hosts``).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from e2e.clients import Client
from testkit.faults.vocabulary import Fault

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS backends (
    id TEXT PRIMARY KEY, app TEXT, region TEXT, country TEXT, wg_ip TEXT, port INTEGER, healthy INTEGER,
    weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER DEFAULT 0
);
"""


class Place(Protocol):
    """Where something listens that a row can be about."""

    @property
    def id(self) -> str: ...

    @property
    def region(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def port(self) -> int: ...


class Listening(NamedTuple):
    """Something of which nothing else is known."""

    id: str
    region: str
    address: str
    port: int


class Backend(Place, Protocol):
    """A machine with a mock backend, and what may happen to it."""

    def stop(self) -> None:
        """End it in order."""
        ...

    def inject(self, fault: Fault) -> None:
        """Let something go wrong with it, or with the way to it.

        Raises:
            UnavailableError: this cannot be done to it.
        """
        ...

    def recover(self) -> None:
        """Undo what happened to it."""
        ...


class Sidecar(Protocol):
    """An ``edgeproxy register`` beside a backend."""

    @property
    def log(self) -> str: ...

    def stop(self) -> None:
        """End it in order, which deregisters the backend."""
        ...

    def die(self) -> None:
        """End it without a word."""
        ...


class Proxy(ABC):
    """A running ``edgeproxy run``."""

    host: str
    """Where clients reach it."""
    port: int
    """Of the main listener."""

    @abstractmethod
    def events(self, name: str) -> list[dict[str, Any]]:
        """What the log says so far about events of this name."""

    @abstractmethod
    def begin_stop(self) -> None:
        """Ask it to end, as its supervisor does, and do not wait."""

    @abstractmethod
    def wait_stopped(self) -> None:
        """Wait until it has ended, and check that it did so in order."""

    @property
    @abstractmethod
    def running(self) -> bool: ...

    @abstractmethod
    def stop_successor(self) -> None:
        """End whatever the last upgrade put in its place, in order, and wait until all is gone."""

    def stop(self) -> None:
        """End it in order."""
        self.begin_stop()
        self.wait_stopped()


class Pop(ABC):
    """A POP in region ``eu``, with a country database and settings of its own; nothing runs at first."""

    def __init__(self) -> None:
        self.settings: dict[str, str] = {}
        """The proxy's settings that are no defaults, as environment variables."""
        self.steps: list[str] = []
        self._planted: dict[str, str] = {}

    def step(self, what: str) -> None:
        """Say what the story does next: if it fails, its report begins with where it was."""
        self.steps.append(what)

    def configure(self, **settings: str) -> None:
        """Set what is named as in the TOML file; it holds for what is started from now on."""
        self.settings.update({f"EDGEPROXY_{name.upper()}": value for name, value in settings.items()})

    def plant(self, planted_folder: str, fault: str | None, settings: Mapping[str, str]) -> None:
        """Sabotage the proxy: with a fault of ``inside/planted``, with settings that win over the story's."""
        self._planted = {f"EDGEPROXY_{name.upper()}": value for name, value in settings.items()}
        if fault is not None:
            self._planted |= {"PYTHONPATH": planted_folder, "PLANTED_FAULT": fault}

    @property
    def environment(self) -> dict[str, str]:
        """What the proxy is started with."""
        return {**self.settings, **self._planted}

    @abstractmethod
    def listen(self) -> tuple[str, int]:
        """A free address for a listener of the proxy, as a setting takes it, and its port."""

    @abstractmethod
    def write(self, name: str, content: bytes | str) -> str:
        """Write a file of the proxy's, replacing it as a whole, and return its path as a setting takes it."""

    @abstractmethod
    def folder_of(self, name: str) -> str:
        """The path of a folder of the proxy's, as a setting takes it; need not exist."""

    @abstractmethod
    def edgeproxy(self, *arguments: str) -> str:
        """Run ``edgeproxy`` with these arguments on the POP and return what it prints.

        Raises:
            AssertionError: it failed; carries its exit code and what it said.
        """

    @abstractmethod
    def sql(self, statements: str) -> None:
        """Run SQL on the routing database, which need not exist yet, as with the ``sqlite3`` shell."""

    @abstractmethod
    def client(self, country: str, number: int = 1) -> Client:
        """The client of that number in ``country``, "" for one whose country nobody knows."""

    @abstractmethod
    def start_backend(self, backend_id: str) -> Backend:
        """Start a mock backend; the routing database is not told. Its region is the middle of its id."""

    @abstractmethod
    def start_breakable_backends(self, countries: dict[str, str]) -> dict[str, Backend]:
        """As :meth:`start_backends`, with ways to them that can break, too."""

    @abstractmethod
    def reach(self, port: int) -> tuple[str, int]:
        """Where the POP reaches what listens on a loopback port of the machine of the tests."""

    @abstractmethod
    def start_echo(self, backend_id: str) -> tuple[str, int]:
        """Start a backend that echoes on WebSockets where the mock backend of that id runs; return where."""

    @abstractmethod
    def start_sidecar(self, backend: Backend, api_port: int, token: str) -> Sidecar:
        """Have a backend register itself with the API of this POP; return when it has."""

    @abstractmethod
    def start_proxy(self) -> Proxy:
        """Start the proxy and return when it accepts clients."""

    @abstractmethod
    def report(self) -> list[tuple[str, str]]:
        """What an operator would look at when a story fails: title and text of each."""

    def add_row(self, backend: Backend, country: str, *, hard_limit: int = 0) -> None:
        """Add a row for a backend, as an operator would with SQL."""
        self.sql(SCHEMA + _row(backend, country, hard_limit))

    def add_address(self, backend_id: str, region: str, country: str, address: str, port: int) -> None:
        """Add a row for whatever listens there."""
        self.sql(SCHEMA + _row(Listening(backend_id, region, address, port), country))

    def start_backends(self, countries: dict[str, str]) -> dict[str, Backend]:
        """Start mock backends (id to country), add a row for each, and return them by id."""
        started = {backend_id: self.start_backend(backend_id) for backend_id in countries}
        self.add_rows(started, countries)
        return started

    def add_rows(self, backends: Mapping[str, Backend], countries: Mapping[str, str]) -> None:
        """Add a row for each backend, by id."""
        self.sql(SCHEMA + "".join(_row(backend, countries[name]) for name, backend in backends.items()))

    def explain(self, address: str) -> dict[str, Any]:
        """What ``edgeproxy explain --json`` says about the client at ``address``."""
        explanation: dict[str, Any] = json.loads(self.edgeproxy("explain", "--client", address, "--json"))
        return explanation

    def left_out(self) -> dict[str, str]:
        """Backends that no client gets, with the reason."""
        candidates = self.explain(self.client("").address)["candidates"]
        return {each["backend"]: each["left_out"] for each in candidates if each["left_out"]}

    def open_connections(self) -> dict[str, int]:
        """Open connections of each backend, as ``edgeproxy explain`` counts them."""
        candidates = self.explain(self.client("").address)["candidates"]
        return {candidate["backend"]: candidate["connections"] for candidate in candidates}


def _row(place: Place, country: str, hard_limit: int = 0) -> str:
    """The statement that adds a row for what listens there."""
    return (
        "INSERT INTO backends "
        "(id, app, region, country, wg_ip, port, healthy, weight, soft_limit, hard_limit) "
        f"VALUES ('{place.id}', 'test', '{place.region}', '{country}', '{place.address}', {place.port}, "
        f"1, 2, 100, {hard_limit});"
    )


def region_of(backend_id: str) -> str:
    """The region in an id such as ``mock-eu-1``."""
    return backend_id.split("-")[1]


def records_of(log: str, event: str) -> list[dict[str, Any]]:
    """The lines about an event in a log of JSON lines, among which others may stand."""
    records = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [record for record in records if record["event"] == event]


def register_command(backend: Backend, api: str, token_file: str) -> tuple[str, ...]:
    """What a sidecar types after ``edgeproxy``; ``api`` is host and port."""
    return (
        *("register", f"http://{api}", "--id", backend.id, "--app", "test", "--region", backend.region),
        *("--ip", backend.address, "--port", str(backend.port), "--token-file", token_file),
    )
