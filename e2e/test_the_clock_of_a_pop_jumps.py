"""Somebody sets the clock of a POP, an hour ahead and a day back: what counts intervals must not notice."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from e2e.processes import LocalPop
from testkit.faults.program_clock import ProgramClock
from testkit.wait import wait_until

# Long enough for heartbeats of machines that are busy with much else.
_TTL_S = 6
_HOUR_S, _DAY_S = 3600, 86_400


def _healthy(pop: LocalPop) -> dict[str, bool]:
    """What the routing table says of each backend."""
    with closing(sqlite3.connect(pop.folder / "routing.db")) as table:
        return {row[0]: bool(row[1]) for row in table.execute("SELECT id, healthy FROM backends")}


@pytest.mark.feature("api.leases")
# It asks for the time at every turn, which takes long here, and longer when it is measured.
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.blank(
    containers="systemd starts a host's programs, and it would have to load the clock's library"
)
@pytest.mark.planted("edits are not seen")
def test_leases_and_clients_outlast_it_and_edits_are_seen(
    local_pop: LocalPop, program_clock: ProgramClock
) -> None:
    pop = local_pop
    address, api_port = pop.listen()
    pop.edgeproxy("db", "init")
    token = pop.edgeproxy("token", "create", "--scope", "register", "--app", "test").strip()
    pop.configure(api_enabled="true", api_listen_addr=address, heartbeat_ttl_secs=str(_TTL_S))
    pop.settings.update(program_clock.environment)
    proxy = pop.start_proxy()
    pop.start_sidecar(pop.start_backend("mock-eu-1"), api_port, token)
    client = pop.client("DE")
    with client.connect(proxy) as before:
        assert before.ask() == "mock-eu-1"
        for number, ahead_s in enumerate((_HOUR_S, -_DAY_S), start=1):
            pop.step(f"the clock is {ahead_s} s ahead")
            doomed = f"mock-us-{number}"
            sidecar = pop.start_sidecar(pop.start_backend(doomed), api_port, token)
            program_clock.set_ahead(ahead_s)
            assert _healthy(pop)[doomed]
            sidecar.die()
            # Whose heartbeats have ended is missed, no sooner and no later than ever; whose go on, is not.
            wait_until(
                lambda doomed=doomed: not _healthy(pop)[doomed],  # type: ignore[misc]
                reason=f"the lease of {doomed} to end",
                timeout_s=4 * _TTL_S,
                interval_s=0.2,
            )
            assert _healthy(pop)["mock-eu-1"]
            assert before.ask() == client.ask(proxy) == "mock-eu-1"

    pop.step("an operator edits the table")
    pop.sql("UPDATE backends SET healthy = 0 WHERE id = 'mock-eu-1'")
    wait_until(
        lambda: "mock-eu-1" in pop.left_out(), reason="the edit to be seen", timeout_s=10, interval_s=0.2
    )
