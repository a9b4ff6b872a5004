"""What is asked of a container engine; `e2e` has a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mock_backend.container import MockBackendContainer

SAID = (
    b"mock-backend mock-eu-9001 (eu) listening on 0.0.0.0:9001\n",
    b"mock-backend mock-eu-9001 tcp-echo on 0.0.0.0:91\nmock-backend mock-eu-9001 adm",
    b"in on 0.0.0.0:92\n",
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mock_backend.container._INTERVAL_S", 0.0)


class FakeEngine:
    """An engine of one container, which says what it is told to."""

    def __init__(self, *said: bytes, ends: bool = False) -> None:
        self.said = said
        self.asked = 0
        self.ends = ends
        self.ran: list[tuple[str, list[str], dict[str, Any]]] = []
        self.removed = 0
        self.attrs = {
            "NetworkSettings": {"Networks": {"none": {"IPAddress": ""}, "a": {"IPAddress": "10.0.0.2"}}}
        }

    @property
    def containers(self) -> FakeEngine:
        return self

    def run(self, image: str, command: list[str], **arguments: Any) -> FakeEngine:
        self.ran.append((image, command, arguments))
        return self

    def logs(self) -> bytes:
        self.asked += 1
        return b"".join(self.said[: self.asked])

    @property
    def status(self) -> str:
        return "exited" if self.ends and self.asked >= len(self.said) else "running"

    def reload(self) -> None:
        assert not self.removed

    def remove(self, *, force: bool, v: bool) -> None:
        assert force
        assert v
        self.removed += 1


def test_address_and_ports_are_those_of_the_container() -> None:
    backend = MockBackendContainer(FakeEngine(*SAID), "image", tcp_echo=0)
    assert (backend.id, backend.region, backend.address, backend.port) == (
        "mock-eu-9001",
        "eu",
        "10.0.0.2",
        9001,
    )
    assert backend.ports == {"http": 9001, "tcp-echo": 91, "admin": 92}
    assert (backend.driver.host, backend.driver.port) == ("10.0.0.2", 92)
    assert len(backend.driver.headers["Authorization"]) > 30


def test_settings_become_its_command() -> None:
    engine = FakeEngine(*SAID)
    MockBackendContainer(
        engine,
        "image",
        command=("python", "-m", "mock_backend"),
        container={"network": "n"},
        tcp_echo=0,
        port=9001,
    )
    ((image, command, arguments),) = engine.ran
    assert image == "image"
    assert command[:3] == ["python", "-m", "mock_backend"]
    assert {"-host=0.0.0.0", "-port=9001", "-tcp-echo=0", "-admin-host=0.0.0.0", "-admin-port=0"} <= {
        *command
    }
    assert arguments == {"detach": True, "network": "n"}


def test_stopped_container_is_removed_once() -> None:
    engine = FakeEngine(*SAID)
    backend = MockBackendContainer(engine, "image", tcp_echo=0)
    backend.stop()
    backend.stop()
    assert engine.removed == 1


def test_container_that_ends_instead_is_removed_and_tells_why() -> None:
    engine = FakeEngine(b"mock-backend: cannot listen on ", b"0.0.0.0:80\n", ends=True)
    with pytest.raises(
        AssertionError, match=r"(?s)ended instead of listening:.*cannot listen on 0\.0\.0\.0:80"
    ):
        MockBackendContainer(engine, "image")
    assert engine.removed == 1


def test_container_that_never_listens_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mock_backend.container._TIMEOUT_S", 0.0)
    engine = FakeEngine(b"importing\n")
    with pytest.raises(TimeoutError, match="does not listen after 0 s:\nimporting"):
        MockBackendContainer(engine, "image")
    assert engine.removed == 1


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    engine = FakeEngine(*SAID)
    yield engine
    assert engine.removed == 1


def test_fixture_removes_what_it_started(
    engine: FakeEngine, mock_backend_container: Callable[..., MockBackendContainer]
) -> None:
    assert mock_backend_container(engine, "image", tcp_echo=0).address == "10.0.0.2"
