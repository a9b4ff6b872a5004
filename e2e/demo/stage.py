"""What the demo shows, set up by the commands that a user would type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from e2e.processes import LocalBackend, LocalPop, LocalProxy
from e2e.world import address_in
from testkit.ports import free_port
from testkit.process import ProcessFactory

CLIENTS: Final = {"BR": 5, "CA": 4, "DE": 6, "FR": 4, "JP": 4, "PT": 5, "US": 6}
"""Number of clients by country."""


class Cast(NamedTuple):
    """One backend as the routing table has it."""

    backend: str
    region: str
    country: str


BACKENDS: Final = (
    Cast("mock-eu-1", "eu", "DE"),
    Cast("mock-eu-2", "eu", "FR"),
    Cast("mock-us-1", "us", "US"),
)
VICTIM: Final = "mock-eu-1"


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs."""

    proxy: LocalProxy
    backends: dict[str, LocalBackend]
    admin_socket: Path

    @property
    def addresses(self) -> dict[str, list[str]]:
        """The clients' addresses by country."""
        return {
            country: [address_in(country, number) for number in range(1, count + 1)]
            for country, count in CLIENTS.items()
        }


@contextmanager
def stage(typed: Callable[[str], None]) -> Iterator[Stage]:
    """Start the backends and the proxy in a folder of their own; both are gone afterwards, however it ends.

    ``typed`` is told each command before it runs.

    Raises:
        AssertionError: a command failed, or a process did not start or did not stop; carries its log.
    """
    # In the folder, as its user would be: from outside, the path to a socket may be longer than it can be.
    with TemporaryDirectory(prefix="edgeproxy-demo-") as name, chdir(name):
        folder = Path(name)
        (folder / "logs").mkdir()
        start = ProcessFactory(folder / "logs")
        try:
            pop = LocalPop(folder, start, free_port)
            pop.configure(shutdown_timeout_secs="2")
            yield _set_up(pop, typed)
        finally:
            start.stop_all()


def _set_up(pop: LocalPop, typed: Callable[[str], None]) -> Stage:
    backends = {}
    for backend, region, _ in BACKENDS:
        typed(f"mock-backend -port 0 -region {region} -id {backend} &")
        backends[backend] = pop.start_backend(backend)
    typed("edgeproxy db init")
    pop.edgeproxy("db", "init")
    for backend, region, country in BACKENDS:
        options = (
            f"--app demo --region {region} --country {country} "
            f"--host 127.0.0.1 --port {backends[backend].port}"
        )
        typed(f"edgeproxy backends add {backend} {options}")
        pop.edgeproxy("backends", "add", backend, *options.split())
    settings = " ".join(f"{name}={value}" for name, value in pop.settings.items())
    typed(f"{settings} edgeproxy run")
    return Stage(pop.start_proxy(), backends, Path("routing.db.sock"))
