"""The container image of the proxy, run as users run it: by itself, as nobody in particular."""

from __future__ import annotations

import pytest
from docker.models.containers import Container

from e2e.hosts.images import APPLICATION
from e2e.hosts.world import World
from testkit.wait import wait_until

pytestmark = pytest.mark.blank(processes="is about a container")

_RUN = "edgeproxy db init && exec edgeproxy run"
_INTERVAL_NS = 500_000_000
"""The image's own interval is for machines that run for months."""


@pytest.mark.planted(user="root")
def test_it_serves_as_an_ordinary_user_tells_its_health_and_stops_in_order(
    world: World, planted: dict[str, str]
) -> None:
    container = world.engine.containers.create(
        APPLICATION,
        ["sh", "-c", _RUN],
        name=world.atlas.called("image"),
        labels=world.labels,
        network=world.atlas.called("eu"),
        environment={"EDGEPROXY_REGION": "eu"},
        cap_drop=["ALL"],
        # What is not given is as in the image, above all the command.
        healthcheck={"test": [], "interval": _INTERVAL_NS},
        user=planted.get("user"),
    )
    try:
        container.start()
        wait_until(
            lambda: _health_of(container) == "healthy",
            reason="it to tell that it is healthy",
            timeout_s=90,
            interval_s=0.2,
        )
        assert container.exec_run(["id", "-un"]).output == b"edgeproxy\n"
        container.stop(timeout=30)
        assert container.wait()["StatusCode"] == 0
    finally:
        container.remove(force=True, v=True)


def _health_of(container: Container) -> str:
    container.reload()
    if container.status == "exited":
        raise AssertionError(f"it ended: {container.logs().decode(errors='replace')}")
    health: str = container.attrs["State"]["Health"]["Status"]
    return health
