"""The container image with the capabilities that the kernel relay needs, and no others that count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from docker.models.containers import Container

from e2e.hosts.engine import LABEL
from e2e.hosts.images import APPLICATION
from e2e.hosts.world import World
from testkit.wait import wait_until

pytestmark = pytest.mark.blank(processes="is about a container")

_RUN = "edgeproxy db init && chown edgeproxy: routing.db && exec edgeproxy run"
_FOR_THE_USER = ["SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE"]


@pytest.mark.planted(powers="NET_ADMIN")
def test_it_relays_in_the_kernel_as_an_ordinary_user(world: World, planted: dict[str, str]) -> None:
    powers = planted.get("powers", "BPF NET_ADMIN").split()
    container = world.engine.containers.create(
        APPLICATION,
        ["sh", "-c", _RUN],
        name="edgeproxy-kernel-relay",
        labels={LABEL: "image"},
        network=world.network_name("eu"),
        environment={
            "EDGEPROXY_REGION": "eu",
            "EDGEPROXY_USER": "edgeproxy",
            "EDGEPROXY_RELAY": "kernel",
        },
        cap_drop=["ALL"],
        cap_add=[*powers, *_FOR_THE_USER],
        # Older engines let bpf(2) pass with SYS_ADMIN alone.
        security_opt=["seccomp=unconfined"],
        user="root",
    )
    try:
        container.start()

        def all_do() -> bool:
            told = stats(container)
            return bool(told["kernel_relay"]["workers"] == len(told["workers"]) > 0)

        wait_until(
            all_do,
            reason="every worker to have the kernel relay",
            timeout_s=90,
            interval_s=0.2,
            swallow=(ValueError,),
        )
        assert b"the kernel relays no connections" not in container.logs()
        user = said(container, "id", "-u", "edgeproxy").strip()
        assert user in said(container, "grep", "^Uid:", "/proc/1/status").split()
    finally:
        container.remove(force=True, v=True)


def stats(container: Container) -> dict[str, Any]:
    """Raises ValueError while nobody answers."""
    container.reload()
    if container.status == "exited":
        raise AssertionError(f"it ended: {container.logs().decode(errors='replace')}")
    answer: dict[str, Any] = json.loads(said(container, "edgeproxy", "ctl", "show", "stats", "--json"))
    return answer


def said(container: Container, *command: str) -> bytes:
    """What a command says that is run in the container."""
    output = container.exec_run(list(command)).output
    assert isinstance(output, bytes)
    return output
