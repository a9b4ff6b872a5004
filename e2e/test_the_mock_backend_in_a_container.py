"""The mock backend as an instrument, in a container; its own tests have it in process and as a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from e2e.hosts.engine import provide_network
from e2e.hosts.images import HOST, ROOT
from e2e.hosts.world import PYTHON, World
from mock_backend.container import MockBackendContainer
from packages.mock_backend.tests.instrument_contract import InstrumentContract, secured_options
from testkit.cluster.containers import remove_network
from testkit.pki import Pki

pytestmark = pytest.mark.blank(processes="the tests of the package have it as a process")

Start = Callable[..., MockBackendContainer]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki")


@pytest.fixture(scope="module")
def start(world: World, certificates: Path) -> Iterator[Start]:
    """Start mock backends in a network of their own, which leads nowhere but here."""
    with ExitStack() as ending:
        network = provide_network(world.engine, world.atlas.called("instrument"), labels=world.labels)
        ending.callback(remove_network, network)
        mounts = {
            # PROXY headers are read by testkit's codec.
            str(ROOT / "packages" / "testkit" / "src"): {"bind": "/opt/testkit", "mode": "ro"},
            str(certificates): {"bind": str(certificates), "mode": "ro"},
        }
        options: dict[str, Any] = {
            "network": network.name,
            "volumes": mounts,
            "environment": {"PYTHONPATH": "/opt/testkit"},
            "labels": world.labels,
            "init": True,
        }

        def start_one(**settings: Any) -> MockBackendContainer:
            command = (PYTHON, "-m", "mock_backend")
            backend = MockBackendContainer(world.engine, HOST, command=command, container=options, **settings)
            ending.callback(backend.stop)
            return backend

        yield start_one


class TestInAContainer(InstrumentContract):
    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls, start: Start) -> MockBackendContainer:
        return start(tcp_echo=0, udp_echo=0)

    @pytest.fixture(scope="class")
    @classmethod
    def secured(cls, start: Start, certificates: Path, pki: Pki) -> MockBackendContainer:
        return start(**secured_options(certificates, pki))
