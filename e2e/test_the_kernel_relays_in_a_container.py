"""The container image with the capabilities that the kernel relay needs, and no others that count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from docker.errors import APIError
from docker.models.containers import Container

from e2e.hosts.images import APPLICATION
from e2e.hosts.world import World
from testkit.wait import wait_until

pytestmark = pytest.mark.blank(processes="is about a container")

_RUN = "edgeproxy db init && chown edgeproxy: routing.db && exec edgeproxy run"
_FOR_THE_USER = ["SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE"]


@pytest.mark.planted(powers="NET_ADMIN")
def test_it_relays_in_the_kernel_and_workers_keep_no_powers(world: World, planted: dict[str, str]) -> None:
    powers = planted.get("powers", "BPF NET_ADMIN").split()
    user = "edgeproxy"
    try:
        container = created(world, powers, user)
    except APIError as error:
        if "CAP_BPF" not in str(error):
            raise
        # What an engine has to offer that does not know it; no change of user keeps that.
        user = "root"
        container = created(world, ["SYS_ADMIN", "NET_ADMIN"], user)
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
        assert (
            said(container, "id", "-u", user).strip()
            == said(container, "stat", "-c", "%u", "/proc/1").strip()
        )
        for worker in stats(container)["workers"]:
            (permitted,) = said(container, "grep", "^CapPrm:", f"/proc/{worker}/status").split()[1:]
            assert int(permitted, 16) >> 3 == 0, "more than to read files"
    finally:
        container.remove(force=True, v=True)


def created(world: World, powers: list[str], user: str) -> Container:
    """The container that ships, with these powers and what it takes to become ``user``."""
    return world.engine.containers.create(
        APPLICATION,
        ["sh", "-c", _RUN],
        name=world.atlas.called("kernel-relay"),
        labels=world.labels,
        network=world.atlas.called("eu"),
        environment={
            "EDGEPROXY_REGION": "eu",
            "EDGEPROXY_RELAY": "kernel",
            **({} if user == "root" else {"EDGEPROXY_USER": user}),
        },
        cap_drop=["ALL"],
        cap_add=[*powers, *_FOR_THE_USER],
        # Some engines let bpf(2) pass with SYS_ADMIN alone.
        security_opt=["seccomp=unconfined"],
        user="root",
    )


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
