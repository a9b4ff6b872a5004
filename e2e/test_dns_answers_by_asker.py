"""DNS sends everybody to the backend that the proxy would give them, and moves on when that goes away."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

import pytest

from e2e.clients import Client
from e2e.processes import Pop, Proxy
from testkit.wait import wait_until

COUNTRIES = ("BR", "DE", "PT", "US", "CA", "JP", "")


@dataclass(frozen=True)
class Service:
    """A line of what ``dig +short … SRV`` prints."""

    priority: int
    port: int
    backend: str


@dataclass(frozen=True)
class Resolver:
    """``dig`` at the DNS server of a proxy."""

    program: str
    host: str
    port: str

    def ask(self, asker: str, *words: str) -> list[str]:
        """The answers to an asker at the address ``asker``."""
        options = ["-r", f"@{self.host}", "-p", self.port, "-b", asker, "+short", "+tries=1", "+time=10"]
        ended = subprocess.run(
            [self.program, *options, *words], capture_output=True, text=True, timeout=30, check=True
        )
        return ended.stdout.splitlines()

    def services(self, asker: str) -> list[Service]:
        """All backends of the app, the one to try first before all others."""
        lines = [line.split() for line in self.ask(asker, "_test._tcp.internal", "SRV")]
        return [
            Service(int(priority), int(port), target.partition(".vm.")[0])
            for priority, _, port, target in lines
        ]


@pytest.fixture
def dig() -> str:
    program = shutil.which("dig")
    if program is None:
        pytest.skip("dig is not installed (Debian: dnsutils)")
    return program


def resolver_of(proxy: Proxy, dig: str) -> Resolver:
    (listening,) = proxy.events("listening")
    host, _, port = listening["dns"].rpartition(":")
    return Resolver(dig, host, port)


@pytest.mark.feature("dns.nearest")
def test_everybody_is_told_the_backend_that_the_proxy_gives_them(pop: Pop, dig: str) -> None:
    pop.configure(dns_enabled="true", dns_listen_addr="127.0.0.1:0")
    backends = pop.start_backends(
        ("in-brazil", "sa", "BR"), ("in-germany", "eu", "DE"), ("in-the-us", "us", "US")
    )
    proxy = pop.start_proxy()
    resolver = resolver_of(proxy, dig)

    for country in COUNTRIES:
        client = Client.of(country)
        best, *others = resolver.services(client.address)
        assert best.backend == client.ask(proxy)
        assert best.port == backends[best.backend].port
        assert {each.backend for each in others} == set(backends) - {best.backend}
        assert all(best.priority < each.priority for each in others)
    assert resolver.ask(Client.of("JP").address, "vms.test.internal", "TXT") == [
        '"in-brazil sa,in-germany eu,in-the-us us"'
    ]


def test_the_answer_moves_on_with_the_table_and_comes_back(pop: Pop, dig: str) -> None:
    pop.configure(dns_enabled="true", dns_listen_addr="127.0.0.1:0")
    pop.start_backends(("in-brazil", "sa", "BR"), ("in-chile", "sa", "CL"), ("in-germany", "eu", "DE"))
    resolver = resolver_of(pop.start_proxy(), dig)
    asker = Client.of("BR").address

    def wait_best(backend: str) -> None:
        wait_until(lambda: resolver.services(asker)[0].backend == backend, reason=f"{backend} to be answered")

    wait_best("in-brazil")
    pop.sql("UPDATE backends SET healthy = 0 WHERE id = 'in-brazil'")
    wait_best("in-chile")
    pop.sql("UPDATE backends SET deleted = 1 WHERE id = 'in-chile'")
    wait_best("in-germany")
    pop.sql("UPDATE backends SET healthy = 1 WHERE id = 'in-brazil'")
    wait_best("in-brazil")
    pop.sql("DELETE FROM backends")
    wait_until(lambda: not resolver.ask(asker, "_apps.internal", "TXT"), reason="no app to be left")
