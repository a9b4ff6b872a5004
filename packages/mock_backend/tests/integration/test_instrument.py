"""The instrument in this process and as a process; `e2e` has it in a container."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mock_backend.plugin import RunningMockBackend
from mock_backend.process import MockBackendProcess
from mock_backend.threaded import ThreadedMockBackend
from packages.mock_backend.tests.instrument_contract import InstrumentContract, secured_options
from testkit.pki import Pki
from testkit.process import ProcessFactory


@pytest.fixture(scope="module")
def secured_with(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> dict[str, Any]:
    return secured_options(tmp_path_factory.mktemp("pki"), pki)


class TestInThisProcess(InstrumentContract):
    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls) -> Iterator[RunningMockBackend]:
        with ThreadedMockBackend(tcp_echo=0, udp_echo=0) as backend:
            yield backend

    @pytest.fixture(scope="class")
    @classmethod
    def secured(cls, secured_with: Any) -> Iterator[RunningMockBackend]:
        with ThreadedMockBackend(**secured_with) as backend:
            yield backend


class TestAsAProcess(InstrumentContract):
    @pytest.fixture(scope="class")
    @classmethod
    def start(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunningMockBackend]]:
        processes = ProcessFactory(tmp_path_factory.mktemp("logs"))
        yield partial(MockBackendProcess, processes)
        processes.stop_all()

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls, start: Callable[..., RunningMockBackend]) -> RunningMockBackend:
        return start(tcp_echo=0, udp_echo=0)

    @pytest.fixture(scope="class")
    @classmethod
    def secured(cls, start: Callable[..., RunningMockBackend], secured_with: Any) -> RunningMockBackend:
        return start(**secured_with)


def test_settings_of_a_process_arrive_as_they_were_given(
    mock_backend_process: Callable[..., MockBackendProcess], tmp_path: Path
) -> None:
    script = 'connections 2-3: send "a;b:\\n", wait 5 ms, reset\n# and a comment\n'
    backend = mock_backend_process(
        state="unready", script=script, faults="every request: delay 1 ms", seed=99
    )
    status = backend.driver.status()
    told = [status[name] for name in ("state", "script", "faults", "seed")]
    assert told == ["unready", script, "every request: delay 1 ms", 99]
