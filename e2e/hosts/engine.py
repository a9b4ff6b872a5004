"""The container engine: whether there is one, and which of us may have which world on it."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
from docker.models.containers import Container
from docker.models.networks import Network

from testkit.cluster.containers import remove_network
from testkit.wait import wait_until

LABEL: Final = "edgeproxy.e2e"
"""On every container and network of ours, with the number of its world, so that what an aborted run left of
it is found."""

THREADS: Final = 6
"""Orders that the engine is given at a time."""

_REACH_TIMEOUT_S: Final = 5
_DEFAULT: Final = "unix:///var/run/docker.sock"
_WORK_TIMEOUT_S: Final = 180


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
def one_of(count: int, what: str, timeout_s: float) -> Iterator[int]:
    """Have one of ``count`` things to ourselves, of all processes of this machine: its number, from 0.

    Raises:
        TimeoutError: others did not give any of them back in time.
    """
    folder = Path(tempfile.gettempdir())
    with ExitStack() as ending:
        locks = []
        for number in range(count):
            path = folder / f"edgeproxy-e2e-{what}-{number}.lock"
            locks.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
            ending.callback(os.close, locks[-1])
        # Whoever waits for all of them has the first that is free.
        _, number = wait_until(
            lambda: next(((True, number) for number, lock in enumerate(locks) if _try_lock(lock)), None),
            reason=f"another run to give back a {what}, held by a lock in {folder}",
            timeout_s=timeout_s,
            interval_s=0.2,
        )
        yield number


def _try_lock(descriptor: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def sweep(client: docker.DockerClient, world: int) -> list[str]:
    """Remove what earlier runs left of a world that is ours, and return the names of it."""
    label = f"{LABEL}={world}"
    containers = client.containers.list(all=True, filters={"label": label})
    networks = client.networks.list(filters={"label": label})
    with ThreadPoolExecutor(THREADS) as pool:
        # All containers first: a network with one in it stays.
        list(pool.map(_remove_container, containers))
        list(pool.map(remove_network, networks))
    return [*(str(each.name) for each in containers), *(str(each.name) for each in networks)]


def _remove_container(container: Container) -> None:
    with suppress(docker.errors.NotFound):
        container.remove(force=True, v=True)


def provide_network(client: docker.DockerClient, name: str, **options: Any) -> Network:
    """Return a new network, or the one of this name that `sweep` had to leave, which is as good."""
    left = (each for each in client.networks.list(names=[name]) if each.name == name)
    return next(left, None) or client.networks.create(name, driver="bridge", internal=True, **options)
