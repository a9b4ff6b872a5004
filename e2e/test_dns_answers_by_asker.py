"""DNS sends everybody to the backend that the proxy would give them, and moves on when that goes away."""

from __future__ import annotations

from dataclasses import dataclass

import dns.message
import pytest

from e2e.clients import Client
from e2e.pop import Pop, Proxy
from testkit.wait import wait_until

COUNTRIES = ("BR", "DE", "PT", "US", "CA", "JP", "")


@dataclass(frozen=True)
class Service:
    """A record of an answer of type SRV."""

    priority: int
    port: int
    backend: str


@dataclass(frozen=True)
class Resolver:
    """The DNS server of a proxy, asked over UDP."""

    proxy: Proxy
    port: int

    def ask(self, asker: Client, name: str, kind: str) -> list[str]:
        """The answers to a client, as text."""
        query = dns.message.make_query(name, kind)
        with asker.socket(self.proxy, self.port, kind="udp") as sock:
            sock.send(query.to_wire())
            answer = dns.message.from_wire(sock.recv(65536))
        assert query.is_response(answer)
        return [record.to_text() for records in answer.answer for record in records]

    def services(self, asker: Client) -> list[Service]:
        """All backends of the app, the one to try first before all others."""
        lines = [line.split() for line in self.ask(asker, "_test._tcp.internal", "SRV")]
        services = [
            Service(int(priority), int(port), target.partition(".vm.")[0])
            for priority, _, port, target in lines
        ]
        return sorted(services, key=lambda each: each.priority)


@pytest.fixture
def dns_port(pop: Pop) -> int:
    """Where the POP answers DNS once it runs."""
    address, port = pop.listen()
    pop.configure(dns_enabled="true", dns_listen_addr=address)
    return port


@pytest.mark.feature("dns.services")
@pytest.mark.planted(dns_domain="elsewhere")
def test_everybody_is_told_the_backend_that_the_proxy_gives_them(pop: Pop, dns_port: int) -> None:
    backends = pop.start_backends({"mock-sa-1": "BR", "mock-eu-1": "DE", "mock-us-1": "US"})
    proxy = pop.start_proxy()
    resolver = Resolver(proxy, dns_port)

    for country in COUNTRIES:
        pop.step(f"somebody in {country or 'no country'} asks")
        client = pop.client(country)
        best, *others = resolver.services(client)
        assert best.backend == client.ask(proxy)
        assert best.port == backends[best.backend].port
        assert {each.backend for each in others} == set(backends) - {best.backend}
        assert all(best.priority < each.priority for each in others)
    assert resolver.ask(pop.client("JP"), "vms.test.internal", "TXT") == [
        '"mock-eu-1 eu,mock-sa-1 sa,mock-us-1 us"'
    ]


@pytest.mark.planted("edits are not seen")
def test_the_answer_moves_on_with_the_table_and_comes_back(pop: Pop, dns_port: int) -> None:
    pop.start_backends({"mock-sa-1": "BR", "mock-sa-2": "CL", "mock-eu-1": "DE"})
    resolver = Resolver(pop.start_proxy(), dns_port)
    asker = pop.client("BR")

    def wait_best(backend: str) -> None:
        wait_until(lambda: resolver.services(asker)[0].backend == backend, reason=f"{backend} to be answered")

    wait_best("mock-sa-1")
    pop.sql("UPDATE backends SET healthy = 0 WHERE id = 'mock-sa-1'")
    wait_best("mock-sa-2")
    pop.sql("UPDATE backends SET deleted = 1 WHERE id = 'mock-sa-2'")
    wait_best("mock-eu-1")
    pop.sql("UPDATE backends SET healthy = 1 WHERE id = 'mock-sa-1'")
    wait_best("mock-sa-1")
    pop.sql("DELETE FROM backends")
    wait_until(lambda: not resolver.ask(asker, "_apps.internal", "TXT"), reason="no app to be left")
