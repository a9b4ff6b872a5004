"""What the stories have in common: the POP they run on, on each substrate that can tell them."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

from e2e.hosts.atlas import WORLDS
from e2e.hosts.engine import NoEngineError, reach_engine
from e2e.hosts.pop import HostPop
from e2e.hosts.world import World, running_world
from e2e.pop import Pop
from e2e.processes import FORKED_PROGRAM, PLANTED, PROGRAM, LocalPop
from e2e.table import SUBSTRATES, blanks_of, print_stories
from testkit.forked import programs_by_fork
from testkit.process import UNMEASURED, ProcessFactory

_WORLD_TIMEOUT_S = 900
"""For the first story of hosts, which waits until they are up."""
_HOSTS_VARIABLE = "EDGE_STORIES_OF_HOSTS"
"""``optional`` where an engine is nothing that can be required, as .ci/run finds out."""
_OF_HOSTS = "hosts"
_LONGEST = {
    "test_a_backend_registers_itself",
    "test_an_upgrade_fails_no_request",
    "test_load_outlasts_upgrades_and_deaths",
    "test_the_clock_of_a_pop_jumps",
    "test_the_demo",
}
"""Told first, so that no process tells one when the others have ended."""
_IMPORTED = (
    *("edgeproxy.app.control", "edgeproxy.cli.app", "edgeproxy.cli.run", "edgeproxy.inbound.api_port"),
    *("edgeproxy.outbound.geo_maxmind", "edgeproxy.worker.process"),
)
"""What nearly all programs of edgeproxy import in the stories."""
_pop_key = pytest.StashKey[Pop]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stories")
    group.addoption("--list", action="store_true", help="list the stories by substrate, and run none")
    group.addoption(
        "--plant",
        action="store_true",
        help="tell each story of a proxy with the fault that its marker plants; fail where none is noticed",
    )
    group.addoption("--keep", action="store_true", help="leave the hosts up, and say how to enter them")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "blank(processes=..., containers=...): why the story is not told on that substrate"
    )
    config.addinivalue_line(
        "markers",
        "planted(fault, by=function, **settings): what makes the story fail, for --plant; see `_plant`",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "substrate" in metafunc.fixturenames:
        blank = blanks_of(metafunc.definition)
        metafunc.parametrize("substrate", [each for each in SUBSTRATES if each not in blank])
    elif "world" in metafunc.fixturenames:
        # For the name of the test, by which it is scheduled.
        metafunc.fixturenames.append("substrate")
        metafunc.parametrize("substrate", ["containers"])


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return TellersOfHosts(config, log)


class TellersOfHosts(LoadScopeScheduling):  # type: ignore[misc]
    """Stories of hosts go, module by module, to no more processes than there may be worlds: each starts one.

    They take longest, so these processes tell them first. Any process tells the others.
    """

    def _split_scope(self, nodeid: str) -> str:
        return f"{_OF_HOSTS} {nodeid.partition('::')[0]}" if "[containers" in nodeid else nodeid

    def _reschedule(self, node: WorkerController) -> None:
        if self.workqueue and self._next_for(node) is None and not node.shutting_down:
            node.shutdown()
        else:
            super()._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        if (scope := self._next_for(node)) is not None:
            self.workqueue.move_to_end(scope, last=False)
            super()._assign_work_unit(node)

    def _next_for(self, node: WorkerController) -> str | None:
        of_hosts: list[str] = [scope for scope in self.workqueue if scope.startswith(_OF_HOSTS)]
        if of_hosts and node in self.nodes[:WORLDS]:
            return of_hosts[0]
        others: Iterator[str] = (scope for scope in self.workqueue if scope not in of_hosts)
        return next(others, None)


def pytest_itemcollected(item: pytest.Item) -> None:
    if needs_hosts(item):
        item.add_marker(pytest.mark.timeout(_WORLD_TIMEOUT_S))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # After those that shuffle them. Which of them are told of hosts, and where, is for TellersOfHosts to say.
    items.sort(key=lambda item: item.path.stem not in _LONGEST)
    if config.getoption("plant"):
        unplanted = [item for item in items if item.get_closest_marker("planted") is None]
        config.hook.pytest_deselected(items=unplanted)
        items[:] = [item for item in items if item not in unplanted]
        for item in items:
            item.add_marker(pytest.mark.xfail(reason="the fault is noticed", strict=True))


def needs_hosts(item: pytest.Item) -> bool:
    """Whether a story is told of hosts in containers."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("substrate") == "containers"


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("list"):
        print_stories(session.items)
        session.items.clear()
        session.config.option.collectonly = True


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("list"):
        # To have run none is what was asked for.
        session.exitstatus = pytest.ExitCode.OK


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    pop = item.stash.get(_pop_key, None)
    if report.failed and report.when == "call" and pop is not None:
        if pop.steps:
            report.sections.append(("step of the story", pop.steps[-1]))
        report.sections.extend(pop.report())
    return report


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Hosts in containers, shared by all stories of them; without an engine they are skipped, or fail."""
    config = request.config
    capture = config.pluginmanager.getplugin("capturemanager")

    def say(what: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{what}", flush=True)

    try:
        with running_world(say, keep=config.getoption("keep")) as hosts:
            yield hosts
    except NoEngineError as error:
        if config.getoption("require_services") and os.environ.get(_HOSTS_VARIABLE) != "optional":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def _plant(request: pytest.FixtureRequest, pop: Pop, planted_folder: str) -> None:
    """Plant what the marker says: settings, a fault of inside/planted, or what a function does to the POP."""
    marker = request.node.get_closest_marker("planted")
    if request.config.getoption("plant") and marker is not None:
        (fault,) = marker.args or (None,)
        if (plant := marker.kwargs.get("by")) is not None:
            plant(pop)
        else:
            pop.plant(planted_folder, fault, marker.kwargs)


@pytest.fixture
def planted(request: pytest.FixtureRequest) -> dict[str, str]:
    """What the marker of a story plants that is about no POP, for it to use; nothing without ``--plant``."""
    marker = request.node.get_closest_marker("planted")
    return dict(marker.kwargs) if request.config.getoption("plant") and marker is not None else {}


@pytest.fixture
def host_pop(request: pytest.FixtureRequest, world: World) -> Iterator[HostPop]:
    """The POP in ``eu`` of the hosts, for stories that only hosts can tell."""
    pop = HostPop(
        world,
        links=lambda: request.getfixturevalue("fault_links"),
        # What processes tell, too, is measured there. To be measured takes as long again.
        is_measured="processes" in blanks_of(request.node),
    )
    _plant(request, pop, "/opt/inside/planted")
    request.node.stash[_pop_key] = pop
    yield pop
    world.heal()


@pytest.fixture(scope="session")
def _programs_by_fork() -> Iterator[None]:
    """Start mock backends, and what is started with ``FORKED_PROGRAM``, in a fraction of the time."""
    unmeasured = {name: value for name, value in os.environ.items() if name not in UNMEASURED}
    with (
        programs_by_fork(["mock_backend"], ["mock_backend.server"], unmeasured),
        programs_by_fork(["edgeproxy", "edgeproxy.worker"], _IMPORTED),
    ):
        yield


@pytest.fixture(scope="session")
def _hosts_tell_it_too() -> bool:
    """Whether there is an engine, so that hosts start as users do what processes fork."""
    try:
        reach_engine().close()
    except NoEngineError:
        return False
    return True


def _program_for(node: pytest.Item, hosts_tell_it_too: bool) -> Sequence[str]:
    """What to start as ``edgeproxy``: a fork of a process that has imported it, or what users type.

    A fork only in a story that hosts tell, too, where all is started as users start it, and in none that is
    about how processes come and go (marker ``new_interpreters``).
    """
    is_of_processes = "containers" in blanks_of(node)
    if is_of_processes or not hosts_tell_it_too or node.get_closest_marker("new_interpreters") is not None:
        return PROGRAM
    return FORKED_PROGRAM


@pytest.fixture
def local_pop(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    process_factory: ProcessFactory,
    port_factory: Callable[[], int],
    _programs_by_fork: None,
    _hosts_tell_it_too: bool,
) -> LocalPop:
    """A POP of processes, for stories that only they can tell; what it starts is stopped with the test."""
    pop = LocalPop(
        *(tmp_path, process_factory, port_factory),
        links=lambda: request.getfixturevalue("fault_links"),
        program=_program_for(request.node, _hosts_tell_it_too),
        measures_backends=any(
            "testing.mock_backend" in marker.args for marker in request.node.iter_markers("feature")
        ),
    )
    _plant(request, pop, str(PLANTED))
    return pop


@pytest.fixture
def pop(request: pytest.FixtureRequest, substrate: str) -> Pop:
    """A POP in region ``eu`` with nothing running, on each substrate in turn."""
    fixture = {"processes": "local_pop", "containers": "host_pop"}[substrate]
    found: Pop = request.getfixturevalue(fixture)
    request.node.stash[_pop_key] = found
    return found
