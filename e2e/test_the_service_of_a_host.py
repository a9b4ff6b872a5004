"""The POP as EC2 runs it: a service that systemd keeps up, with settings the instance found out."""

from __future__ import annotations

import pytest

from e2e.clients import keep_coming
from e2e.hosts.host import shell
from e2e.hosts.pop import HostPop
from e2e.hosts.world import World
from testkit.wait import wait_until

pytestmark = pytest.mark.blank(processes="needs systemd, networks or an instance-metadata service")

_CLIENTS = 4
_CAP_NET_BIND_SERVICE = 10
"""Of ``linux/capability.h``."""


@pytest.mark.planted(shutdown_timeout_secs="0")
def test_a_pop_that_is_killed_is_restarted_while_clients_go_on(host_pop: HostPop) -> None:
    pop = host_pop
    pop.start_backends({"mock-eu-1": "DE", "mock-eu-2": "FR"})
    proxy = pop.start_proxy()
    before = proxy.main_pid

    clients = [pop.client("PT", number) for number in range(1, _CLIENTS + 1)]
    with keep_coming(proxy, clients) as load:
        load.wait_more(20)
        pop.step("its control process is killed")
        proxy.kill()
        wait_until(
            lambda: proxy.main_pid not in {0, before} and proxy.state("ActiveState") == "active",
            reason="systemd to have restarted it",
            timeout_s=60,
            interval_s=0.1,
        )
        load.wait_more(20)
    # Its workers serve on until those of the next are up.
    assert load.failures == []
    assert proxy.state("NRestarts") == "1"


def _somewhere_else(pop: HostPop) -> None:
    """An instance that was told a wrong region at its boot."""
    settings = "/etc/edgeproxy/edgeproxy.env"
    for wrong, right, now in (("us", "eu", True), ("eu", "us", False)):
        change = ("sed", "-i", f"s/^EDGEPROXY_REGION={right}$/EDGEPROXY_REGION={wrong}/", settings)
        if now:
            pop.host.run(*change)
        else:
            pop.host.undo(pop.host.run, *change)


@pytest.mark.planted(by=_somewhere_else)
def test_an_instance_finds_out_where_it_is(host_pop: HostPop, world: World) -> None:
    regions = {
        region: host.run("sed", "-n", "s/^EDGEPROXY_REGION=//p", "/etc/edgeproxy/edgeproxy.env").strip()
        for region, host in world.pops.items()
    }
    assert regions == {region: region for region in world.pops}
    # What needs no token is no IMDSv2.
    answer = host_pop.host.run(
        *("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"),
        "http://169.254.169.254/latest/user-data",
    )
    assert answer == "401"


def _its_own_program(pop: HostPop) -> None:
    """A proxy that could write over its own program."""
    program = "/opt/edgeproxy/own/edgeproxy"
    pop.host.run("chown", "edgeproxy:", program)
    pop.host.undo(pop.host.run, *shell(f"rm -f {program}/x; chown root: {program}"))


@pytest.mark.planted(by=_its_own_program)
def test_the_proxy_runs_as_a_user_of_its_own_that_may_change_nothing(host_pop: HostPop) -> None:
    pop = host_pop
    pop.start_backends({"mock-eu-1": "DE"})
    proxy = pop.start_proxy()

    status = pop.host.run("cat", f"/proc/{proxy.main_pid}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) & ~(1 << _CAP_NET_BIND_SERVICE) == 0
    refused = pop.host.run("touch", "/opt/edgeproxy/own/edgeproxy/x", user="edgeproxy", check=False)
    assert "denied" in refused


@pytest.mark.planted(region="us")
def test_each_pop_serves_the_same_client_from_its_own_region(host_pop: HostPop) -> None:
    nearest = {"sa": "mock-sa-1", "us": "mock-us-1", "eu": "mock-eu-1"}
    for region, expected in nearest.items():
        pop = host_pop if region == "eu" else host_pop.beside(region)
        pop.start_backends({"mock-sa-1": "BR", "mock-us-1": "US", "mock-eu-1": "DE"})
        proxy = pop.start_proxy()
        host_pop.step(f"clients come to the POP in {region}")
        # Whose region has no backend gets one of the POP's region, all others one of their own.
        assert pop.client("JP").ask(proxy) == expected
        assert pop.client("BR").ask(proxy) == "mock-sa-1"
        assert pop.client("DE").ask(proxy) == "mock-eu-1"
