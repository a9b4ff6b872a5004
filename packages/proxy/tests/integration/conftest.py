"""What the tests of the running proxy share."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from packages.proxy.tests.integration.proxies import (
    Backend,
    StartBackend,
    StartProxy,
    proxy_starter,
)
from testkit.forked import programs_by_fork, started_as_ever
from testkit.process import UNMEASURED, ProcessFactory

PROGRAMS = ("edgeproxy", "edgeproxy.worker")
IMPORTED = (
    *("edgeproxy.app.control", "edgeproxy.app.replication", "edgeproxy.cli.app", "edgeproxy.cli.run"),
    *("edgeproxy.inbound.api_port", "edgeproxy.inbound.dns", "edgeproxy.inbound.metrics_server"),
    *("edgeproxy.outbound.geo_maxmind", "edgeproxy.outbound.integrity_sqlite", "edgeproxy.runtime.logs"),
    *("edgeproxy.worker.process", "concurrent.futures.thread"),
)
"""What nearly all of them import."""


@pytest.fixture(scope="session", autouse=True)
def _programs_by_fork() -> Iterator[None]:
    """Start programs of edgeproxy in a fraction of the time; see the marker ``new_interpreters``."""
    with programs_by_fork(PROGRAMS, IMPORTED):
        yield


@pytest.fixture(scope="session")
def _unmeasured_programs_by_fork() -> Iterator[None]:
    """The same for those that are not to be measured: what they are forked from must not be, either."""
    unmeasured = {name: value for name, value in os.environ.items() if name not in UNMEASURED}
    with programs_by_fork(PROGRAMS, IMPORTED, unmeasured):
        yield


@pytest.fixture
def unmeasured(unmeasured: None, _unmeasured_programs_by_fork: None) -> None:
    """As everywhere, and by fork."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if item.get_closest_marker("new_interpreters") is None:
        return (yield)
    with started_as_ever():
        return (yield)


@pytest.fixture
def start_proxy(process_factory: ProcessFactory, tmp_path: Path) -> StartProxy:
    """Start proxies that end with the test."""
    return proxy_starter(process_factory, tmp_path)


@pytest.fixture(scope="module")
def start_shared_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProxy]:
    """Start proxies that all tests of the module use; each test brings clients of its own."""
    folder = tmp_path_factory.mktemp("shared")
    factory = ProcessFactory(folder)
    yield proxy_starter(factory, folder)
    factory.stop_all()


@pytest.fixture(scope="module")
def start_backend() -> Iterator[Callable[[str], Backend]]:
    """Start backends that say their names."""
    with ExitStack() as running:

        def start(name: str) -> Backend:
            backend = Backend(name)
            running.callback(backend.stop)
            return backend

        yield start


@pytest.fixture(scope="module")
def ports(start_backend: StartBackend) -> dict[str, int]:
    """Where the backends "one" and "two" listen."""
    return {name: start_backend(name).port for name in ("one", "two")}


@pytest.fixture(scope="session")
def new_client() -> Callable[[], str]:
    """Loopback addresses that no other test of this process uses: each is a client nobody knows yet."""
    numbers = itertools.count(1)
    return lambda: f"127.77.{(number := next(numbers)) >> 8}.{number & 255}"


@pytest.fixture
def read_only_copy(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Copy a file to a file system of its own that is then made read-only; return where it is there."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("a read-only file system needs mount and umount")
    place = tmp_path / "read-only"
    place.mkdir()
    tried = subprocess.run(
        [mount, "-t", "tmpfs", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"mounting a read-only file system is not permitted: {tried.stderr.strip()}")

    def copy(path: Path) -> Path:
        copied = shutil.copy(path, place)
        subprocess.run([mount, "-o", "remount,ro", str(place)], check=True)
        return Path(copied)

    yield copy
    subprocess.run([umount, "--lazy", str(place)], check=True)
