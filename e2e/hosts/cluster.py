"""The POPs of the world as one cluster: each with its own routing table, replicated to the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from e2e.hosts.pop import HostPop, HostProxy
from e2e.pop import SCHEMA
from testkit.wait import wait_until

TIMEOUT_S: Final = 30
KEY: Final = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="
"""Of the cluster, as ``edgeproxy replication key`` prints one."""
_GOSSIP_PORT: Final = 4001


class HostCluster:
    """POPs by region. What only an instance knows was written by its user data; a story gives the rest."""

    def __init__(self, eu: HostPop) -> None:
        self._places = eu.world.atlas.pops
        others = [region for region in self._places if region != eu.place.region]
        with ThreadPoolExecutor(len(others)) as pool:
            made = pool.map(eu.beside, others)
            self.pops = {eu.place.region: eu, **dict(zip(others, made, strict=True))}
        self.proxies: dict[str, HostProxy] = {}

    def start(self, keys: dict[str, str]) -> None:
        """Start the POPs of these regions, each with its key, as one of a fleet; return when all serve."""
        with ThreadPoolExecutor(len(keys)) as pool:
            self.proxies |= zip(keys, pool.map(self._start, keys, keys.values()), strict=True)

    def close(self) -> None:
        """Stop those that no next story resets."""
        for region, proxy in self.proxies.items():
            if region != "eu":
                proxy.begin_stop()

    def shown(self, region: str, what: str) -> Any:
        """What ``edgeproxy ctl show`` says of this at a POP, as JSON."""
        return json.loads(self.pops[region].edgeproxy("ctl", "show", what, "--json"))

    def wait_states(self, region: str, **expected: str) -> None:
        """Wait until ``ctl show members`` at a POP says this of each, given by region."""
        nodes = {self._places[each].instance: state for each, state in expected.items()}
        wait_until(
            lambda: {each["node"]: each["state"] for each in self.shown(region, "members")} == nodes,
            reason=f"{region} to say {expected}",
            timeout_s=TIMEOUT_S,
            interval_s=0.1,
        )

    def wait_heard(self, region: str, event: str, *others: str) -> None:
        """Wait until the journal of a POP has told such an event of each of these others."""
        nodes = {self._places[other].instance for other in others}
        wait_until(
            lambda: nodes <= {each.get("pop") or each["peer"] for each in self.proxies[region].events(event)},
            reason=f"{region} to have said {event!r} of {', '.join(others)}",
            timeout_s=TIMEOUT_S,
            interval_s=0.1,
        )

    def rows(self, region: str) -> str:
        """The routing table of a POP, as ``sqlite3`` prints it."""
        return self.pops[region].host.run(
            *("sqlite3", "-cmd", ".timeout 10000", "/var/lib/edgeproxy/routing.db"),
            "SELECT id, country, wg_ip, port, healthy, weight FROM backends WHERE deleted = 0 ORDER BY id",
        )

    def wait_rows(self, condition: Callable[[dict[str, str]], object], reason: str, *regions: str) -> None:
        """Wait until the tables of these regions, all without any named, are as they should."""
        wait_until(
            lambda: bool(condition({region: self.rows(region) for region in regions or self.pops})),
            reason=reason,
            timeout_s=TIMEOUT_S,
            interval_s=0.1,
        )

    def settles(self, region: str, country: str, backend_id: str) -> None:
        """Wait until a client from ``country`` that comes to a POP is served by this backend."""
        # A client that came before the row did would stay where it is then.
        wait_until(
            lambda: backend_id in {each["id"] for each in self.shown(region, "table")["backends"]},
            reason=f"the POP in {region} to route by {backend_id}",
            timeout_s=TIMEOUT_S,
            interval_s=0.1,
        )
        client, proxy = self.pops[region].client(country), self.proxies[region]
        wait_until(
            lambda: client.ask(proxy) == backend_id,
            reason=f"the POP in {region} to have {country} served by {backend_id}",
            timeout_s=TIMEOUT_S,
            interval_s=0.1,
            swallow=(OSError,),
        )

    def _start(self, region: str, key: str) -> HostProxy:
        pop = self.pops[region]
        peers = (f"{place.addresses[near]}:{_GOSSIP_PORT}" for near, place in self._places.items())
        pop.configure(
            replication_enabled="true",
            replication_keys=key,
            replication_bootstrap_peers=",".join(peers),
            replication_gossip_interval_ms="150",
            replication_sync_interval_ms="300",
        )
        pop.sql(SCHEMA)
        return pop.start_proxy()
