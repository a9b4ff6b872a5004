"""The container engine: whether there is one, and who of us may use it."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import docker
import docker.errors
from docker.models.containers import Container
from docker.models.networks import Network

from testkit.wait import wait_until

LABEL: Final = "edgeproxy.e2e"
"""On every container and network of ours, so that what an aborted run left is found."""

THREADS: Final = 6
"""Orders that the engine is given at a time."""

_REACH_TIMEOUT_S: Final = 5
_DEFAULT: Final = "unix:///var/run/docker.sock"
_WORK_TIMEOUT_S: Final = 180
_LOCK: Final = Path(tempfile.gettempdir()) / "edgeproxy-e2e.lock"


class NoEngineError(Exception):
    """No containers can be run here; says why."""


def reach_engine() -> docker.DockerClient:
    """Return a client of the engine that the environment names, by default the one of this machine.

    Raises:
        NoEngineError: nobody answers within a few seconds, or the engine runs no Linux containers.
    """
    try:
        _knock(os.environ.get("DOCKER_HOST", _DEFAULT))
        docker.from_env(timeout=_REACH_TIMEOUT_S).ping()
        client = docker.from_env(timeout=_WORK_TIMEOUT_S)
        system = client.info()["OSType"]
    except (docker.errors.DockerException, OSError) as error:
        raise NoEngineError(f"no container engine answers: {error}") from None
    if system != "linux":
        raise NoEngineError(f"the container engine runs containers of {system}")
    return client


def _knock(url: str) -> None:
    """Connect to an engine's Unix socket and hang up: the package ``docker`` leaves its own open on failure.

    Raises:
        OSError: nobody listens there.
    """
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_REACH_TIMEOUT_S)
            sock.connect(url.removeprefix("unix://"))


@contextmanager
def engine_to_ourselves(timeout_s: float) -> Iterator[None]:
    """Wait until no other run uses the engine: our networks have fixed addresses, which collide.

    Raises:
        TimeoutError: another run did not end in time.
    """
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        wait_until(
            lambda: _try_lock(descriptor),
            reason=f"the run that holds {_LOCK} to end",
            timeout_s=timeout_s,
            interval_s=0.2,
        )
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def sweep(client: docker.DockerClient) -> list[str]:
    """Remove what earlier runs left behind, and return the names of it. Only while the engine is ours."""
    containers = client.containers.list(all=True, filters={"label": LABEL})
    networks = client.networks.list(filters={"label": LABEL})
    with ThreadPoolExecutor(THREADS) as pool:
        # All containers first: a network with one in it stays.
        list(pool.map(_remove_container, containers))
        list(pool.map(_remove_network, networks))
    return [*(str(each.name) for each in containers), *(str(each.name) for each in networks)]


def _remove_container(container: Container) -> None:
    with suppress(docker.errors.NotFound):
        container.remove(force=True, v=True)


def _remove_network(network: Network) -> None:
    with suppress(docker.errors.NotFound):
        network.remove()
