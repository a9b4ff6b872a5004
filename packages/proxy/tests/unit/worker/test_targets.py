"""Where a backend is connected to."""

from __future__ import annotations

import socket

import pytest

from edgeproxy.core.model import Backend
from edgeproxy.worker.targets import Targets


def backend(host: str, port: int = 9001) -> Backend:
    return Backend("b", "web", "eu", "DE", host, port, True, 1, 1, 0)


@pytest.mark.parametrize(
    ("host", "family", "address"),
    [
        ("192.0.2.1", socket.AF_INET, ("192.0.2.1", 9001)),
        ("2001:db8::1", socket.AF_INET6, ("2001:db8::1", 9001, 0, 0)),
        ("::ffff:192.0.2.1", socket.AF_INET6, ("::ffff:192.0.2.1", 9001, 0, 0)),
    ],
)
def test_a_numeric_host_is_its_own_address(host: str, family: int, address: tuple[str | int, ...]) -> None:
    targets = Targets()
    assert targets.of(backend(host)) == (family, address)
    assert targets.of(backend(host)) == (family, address)


def test_a_name_has_no_address_until_it_is_resolved() -> None:
    targets = Targets()
    assert targets.of(backend("backend.example")) is None
    targets.resolve("backend.example", ("192.0.2.1",))
    assert targets.of(backend("backend.example")) == (socket.AF_INET, ("192.0.2.1", 9001))
    targets.resolve("backend.example", ())
    assert targets.of(backend("backend.example")) is None
    targets.resolve("backend.example", ())


def test_the_addresses_of_a_name_take_turns() -> None:
    targets = Targets()
    targets.resolve("backend.example", ("192.0.2.1", "2001:db8::1"))
    found = [targets.of(backend("backend.example")) for _ in range(4)]
    assert [target[1][0] for target in found if target is not None] == ["192.0.2.1", "2001:db8::1"] * 2


def test_a_new_resolution_replaces_the_old_one() -> None:
    targets = Targets()
    targets.resolve("backend.example", ("192.0.2.1", "192.0.2.2"))
    targets.of(backend("backend.example"))
    targets.resolve("backend.example", ("192.0.2.9",))
    assert targets.of(backend("backend.example")) == (socket.AF_INET, ("192.0.2.9", 9001))


def test_ports_of_one_host_are_kept_apart() -> None:
    targets = Targets()
    assert targets.of(backend("192.0.2.1", 1)) == (socket.AF_INET, ("192.0.2.1", 1))
    assert targets.of(backend("192.0.2.1", 2)) == (socket.AF_INET, ("192.0.2.1", 2))


def test_what_is_forgotten_takes_no_memory_and_is_found_again() -> None:
    targets = Targets()
    for port in range(1, 100):
        targets.of(backend("192.0.2.1", port))
        targets.forget(backend("192.0.2.1", port))
    targets.forget(backend("192.0.2.1", 1))
    assert targets._numeric == {}
    assert targets.of(backend("192.0.2.1", 1)) == (socket.AF_INET, ("192.0.2.1", 1))
