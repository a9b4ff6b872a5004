"""`edgeproxy upgrade` replaces the running proxy while clients come, stay and go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.clients import keep_coming
from e2e.pop import Pop, Proxy
from testkit.wait import wait_until

pytestmark = pytest.mark.new_interpreters

_CLIENTS = 6
_UPGRADES = 2


@pytest.fixture
def proxy(pop: Pop) -> Iterator[Proxy]:
    """A proxy with two backends, whose last successor is stopped at the end."""
    pop.start_backends({"mock-eu-1": "DE", "mock-eu-2": "DE"})
    proxy = pop.start_proxy()
    yield proxy
    proxy.stop_successor()


def _upgrade(pop: Pop) -> None:
    assert "serves; process" in pop.edgeproxy("upgrade")


@pytest.mark.feature("process.upgrade")
@pytest.mark.planted(shutdown_timeout_secs="0")
def test_a_client_goes_on_and_later_ones_are_served_by_the_new_version(pop: Pop, proxy: Proxy) -> None:
    client = pop.client("DE")
    with client.connect(proxy) as connection:
        backend = connection.ask()
        _upgrade(pop)
        with client.connect(proxy) as later:
            assert later.ask() == backend
            assert pop.open_connections()[backend] == 2
        assert connection.ask() == backend
        assert not proxy.events("stopped")
    wait_until(lambda: proxy.events("stopped"), reason="the old version to end", timeout_s=60)


@pytest.mark.planted(binding_ttl_secs="0.01")
def test_load_does_not_notice_two_upgrades(pop: Pop, proxy: Proxy) -> None:
    clients = [pop.client("DE", number) for number in range(1, _CLIENTS + 1)]
    with keep_coming(proxy, clients) as load:
        for number in range(1, _UPGRADES + 1):
            pop.step(f"upgrade {number}")
            load.wait_more(30)
            _upgrade(pop)
        load.wait_more(30)
    assert load.failures == []
    # Affinity went with it: nobody ever saw a second backend.
    assert len(set(load.answers)) == _CLIENTS, set(load.answers)
