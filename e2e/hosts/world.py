"""A world of hosts: started once, shared by the stories of hosts that one process tells, gone at its end.

3 points of presence (POPs) under systemd, each with its instance-metadata service, 9 backends and 4 machines
of clients, in 6 networks. POPs get their settings as on EC2: the user data that ships writes them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import docker
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool

from e2e.hosts.atlas import (
    BACKEND_PORT,
    METADATA_ADDRESS,
    WORLDS,
    Atlas,
    BackendPlace,
    ClientPlace,
    PopPlace,
    delays_from,
)
from e2e.hosts.engine import LABEL, THREADS, one_of, provide_network, reach_engine, sweep
from e2e.hosts.host import ClientHost, Host, PopHost
from e2e.hosts.images import HOST, ROOT, provide_images
from e2e.hosts.measurements import collect
from testkit.faults import packets
from testkit.geo import write_country_database
from testkit.wait import wait_until

PYTHON: Final = "/opt/edgeproxy/bin/python"
MEASUREMENTS: Final = "/measurements"
COVERAGE: Final = "/opt/inside/coveragerc"
"""What the environment of a proxy names to be measured."""
_TESTKIT: Final = "/testkit"
_SOCKETS: Final = "/sockets"
"""Of what serves the stories from inside a host."""
MAP: Final = "/etc/edgeproxy/world.mmdb"

_BUSY_TIMEOUT_S: Final = 600
_WORTH_TELLING_S: Final = 1
_BOOT_TIMEOUT_S: Final = 90

Networks = dict[str, Network]


class World:
    """All hosts, by what they are."""

    def __init__(self, engine: docker.DockerClient, atlas: Atlas, folder: Path) -> None:
        self.engine = engine
        self.atlas = atlas
        self.labels = {LABEL: str(atlas.number)}
        """For whatever a story has on the engine besides."""
        self.folder = folder
        self.pops: dict[str, PopHost] = {}
        """By region."""
        self.backends: dict[str, Host] = {}
        """By name, which is the id of the backend."""
        self.clients: dict[str, ClientHost] = {}
        """By name."""
        self.distances: dict[str, Host] = {}
        """By region of the POP whose network they share: what puts the other regions far from it."""
        self.measured: set[str] = set()
        """Regions of the POPs that a story has had measured."""

    @property
    def hosts(self) -> list[Host]:
        return [
            *self.pops.values(),
            *self.backends.values(),
            *self.clients.values(),
            *self.distances.values(),
        ]

    def client_host(self, country: str) -> ClientHost:
        """The machine of the clients of a country."""
        return self.clients[self.atlas.countries[country].name]

    def heal(self) -> None:
        """Undo whatever a story did to any host."""
        for host in self.hosts:
            host.heal()

    def measurements(self, region: str) -> Path:
        """The folder of the data files of coverage of the POP in ``region``."""
        return self.folder / "measurements" / region


@contextmanager
def running_world(say: Callable[[str], None], *, keep: bool = False) -> Iterator[World]:
    """Start everything, and remove it at the end, unless it is to be kept.

    Raises:
        NoEngineError: no engine, or no image to start from.
        AssertionError: at the end, a proxy left no measurement.
    """
    client = reach_engine()
    with ExitStack() as ending:
        began_s = time.monotonic()
        number = ending.enter_context(one_of(WORLDS, "world", _BUSY_TIMEOUT_S))
        if (waited_s := time.monotonic() - began_s) > _WORTH_TELLING_S:
            say(f"waited {waited_s:.0f} s for another run to end")
        if swept := sweep(client, number):
            say(f"swept away what an earlier run left: {', '.join(sorted(swept))}")
        with one_of(1, "workshop", _BUSY_TIMEOUT_S):
            provide_images(client, say)
        # Of its own below /tmp: paths of Unix sockets must be short, and other users must reach them.
        folder = Path(tempfile.mkdtemp(prefix="edgeproxy-world-"))
        if not keep:
            ending.callback(shutil.rmtree, folder, ignore_errors=True)
            ending.callback(_sweep_timed, client, number, say)
        began_s = time.monotonic()
        atlas = Atlas(number)
        builder = _Builder(client, atlas, folder)
        world = builder.build()
        say(f"world: {len(world.hosts)} hosts in {time.monotonic() - began_s:.1f} s")
        yield world
        if keep:
            entry = f"docker exec -it {atlas.called('pop-eu')} bash"
            say(f"kept; enter a host with: {entry}. The next run removes it all")
            return
        began_s = time.monotonic()
        builder.stop_pops()
        stopped_s = time.monotonic()
        collect(world)
        say(
            f"proxies stopped in {stopped_s - began_s:.1f} s, "
            f"what they measured collected in {time.monotonic() - stopped_s:.1f} s"
        )


def _sweep_timed(client: docker.DockerClient, number: int, say: Callable[[str], None]) -> None:
    began_s = time.monotonic()
    sweep(client, number)
    say(f"hosts removed in {time.monotonic() - began_s:.1f} s")


class _Builder:
    def __init__(self, client: docker.DockerClient, atlas: Atlas, folder: Path) -> None:
        self._client = client
        self._atlas = atlas
        self._folder = folder
        self._world = World(client, atlas, folder)
        self._networks: Networks = {}

    def build(self) -> World:
        self._folder.chmod(0o755)
        (self._folder / "sockets").mkdir()
        self._write_map()
        with ThreadPoolExecutor(THREADS) as pool:
            names = self._atlas.networks
            self._networks = dict(zip(names, pool.map(self._network, names), strict=True))
            steps: list[Callable[[], None]] = [
                *(lambda place=place: self._start_pop(place) for place in self._atlas.pops.values()),
                *(lambda place=place: self._start_backend(place) for place in self._atlas.backends.values()),
                *(lambda place=place: self._start_client(place) for place in self._atlas.clients),
            ]
            for done in [pool.submit(step) for step in steps]:
                done.result()
            for done in [
                *(pool.submit(self._await_boot, pop) for pop in self._world.pops.values()),
                *(pool.submit(self._start_distance, place) for place in self._atlas.pops.values()),
            ]:
                done.result()
        for host in self._world.clients.values():
            wait_until(host.dialler.exists, reason=f"{host} to give out sockets", timeout_s=_BOOT_TIMEOUT_S)
        return self._world

    def stop_pops(self) -> None:
        """Stop the proxies in order, for only then do they leave their measurements."""
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [
                pool.submit(pop.run, "systemctl", "stop", "edgeproxy") for pop in self._world.pops.values()
            ]:
                done.result()

    def _network(self, name: str) -> Network:
        pool = IPAMPool(subnet=str(self._atlas.networks[name]), gateway=self._atlas.gateway_of(name))
        return provide_network(
            self._client,
            self._atlas.called(name),
            labels=self._world.labels,
            ipam=IPAMConfig(pool_configs=[pool]),
        )

    def _create(
        self, name: str, addresses: dict[str, str], command: list[str] | None, **options: Any
    ) -> tuple[Container, dict[str, tuple[Network, str]]]:
        """Create a container of the hosts' image with an address in each of the networks, and start it."""
        (first, first_address), *others = addresses.items()
        container = self._client.containers.create(
            HOST,
            command,
            name=self._atlas.called(name),
            hostname=name,
            labels=self._world.labels,
            network=self._networks[first].name,
            networking_config={
                str(self._networks[first].name): self._client.api.create_endpoint_config(
                    ipv4_address=first_address
                )
            },
            **options,
        )
        for network, address in others:
            self._networks[network].connect(container, ipv4_address=address)
        container.start()
        return container, {network: (self._networks[network], addresses[network]) for network in addresses}

    def _start_pop(self, place: PopPlace) -> None:
        measurements = self._world.measurements(place.region)
        measurements.mkdir(parents=True)
        measurements.chmod(0o777)
        options = _control_groups(self._client)
        options["volumes"] |= {
            str(measurements): {"bind": MEASUREMENTS, "mode": "rw"},
            str(self._folder / "sockets"): {"bind": _SOCKETS, "mode": "rw"},
            str(self._folder / "world.mmdb"): {"bind": MAP, "mode": "ro"},
        }
        options["tmpfs"] = dict.fromkeys(("/run", "/run/lock", "/tmp"), "")
        container, networks = self._create(place.name, place.addresses, None, **options)
        self._start_metadata(place)
        agent = self._folder / "sockets" / place.name
        container.exec_run([PYTHON, "/opt/inside/agent.py", f"{_SOCKETS}/{place.name}"], detach=True)
        self._world.pops[place.region] = PopHost(container, networks, agent)

    def _start_metadata(self, place: PopPlace) -> None:
        """What the instance asks at its boot, at the address that every instance has for that alone."""
        told = {
            "meta-data": {
                "instance-id": place.instance,
                "local-ipv4": place.addresses[place.region],
                "placement": {"region": place.cloud_region},
            },
            "user-data": (ROOT / "docs" / "operations" / "ec2" / "user-data.sh").read_text(encoding="utf-8"),
        }
        address = f"ip address add {METADATA_ADDRESS}/32 dev lo"
        self._start_beside(
            place,
            "metadata",
            ["sh", "-ec", f"{address}; exec {PYTHON} /opt/inside/metadata.py"],
            environment={"INSTANCE": json.dumps(told)},
            cap_add=["NET_ADMIN"],
        )

    def _start_distance(self, place: PopPlace) -> None:
        """Put the other regions where they belong."""
        ways = [
            f"--way={self._atlas.regions[region]}={1000 * delay_s:g}"
            for region, delay_s in delays_from(place.region).items()
        ]
        container = self._start_beside(
            place,
            "distance",
            [PYTHON, "-m", packets.__name__, *ways],
            volumes={str(ROOT / "packages" / "testkit" / "src"): {"bind": _TESTKIT, "mode": "ro"}},
            environment={"PYTHONPATH": _TESTKIT, "PYTHONDONTWRITEBYTECODE": "1"},
            devices=["/dev/net/tun"],
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN", "NET_RAW"],
            user="root",
        )
        wait_until(
            lambda: b"ready" in container.logs(),
            reason=f"the regions to be as far from {place.name} as they are",
            timeout_s=_BOOT_TIMEOUT_S,
        )
        self._world.distances[place.region] = Host(container, {})

    def _start_beside(self, place: PopPlace, name: str, command: list[str], **options: Any) -> Container:
        """Start a container that shares the network of a POP, for what the POP itself may not do to it."""
        container = self._client.containers.create(
            HOST,
            command,
            name=self._atlas.called(f"{name}-{place.region}"),
            labels=self._world.labels,
            network_mode=f"container:{self._atlas.called(place.name)}",
            **options,
            **_ORDINARY,
        )
        container.start()
        return container

    def _start_backend(self, place: BackendPlace) -> None:
        command = ["/opt/edgeproxy/bin/mock-backend", "-port", str(BACKEND_PORT)]
        command += ["-region", place.region, "-id", place.name]
        # What loses packets for a story is its own host, never that of the system under test.
        container, networks = self._create(
            place.name, {place.region: place.address}, command, cap_add=["NET_ADMIN"], **_ORDINARY
        )
        self._world.backends[place.name] = Host(container, networks)

    def _start_client(self, place: ClientPlace) -> None:
        sockets = self._folder / "sockets"
        # A local route makes every address of a network one of this host, with none to be configured.
        routes = "; ".join(f"ip route add local {network} dev eth0" for network in place.countries.values())
        path = f"{_SOCKETS}/{place.name}"
        container, networks = self._create(
            place.name,
            {place.network: place.own_address},
            ["sh", "-ec", f"{routes}; exec {PYTHON} /opt/inside/dialler.py {path}"],
            volumes={str(sockets): {"bind": _SOCKETS, "mode": "rw"}},
            cap_add=["NET_ADMIN"],
            **_ORDINARY,
        )
        self._world.clients[place.name] = ClientHost(container, networks, sockets / place.name)

    def _await_boot(self, pop: PopHost) -> None:
        wait_until(pop.agent.exists, reason=f"{pop} to take orders", timeout_s=_BOOT_TIMEOUT_S)
        # Written and started: from now on the proxy is a story's to start and to stop.
        wait_until(
            lambda: pop.run("systemctl", "is-active", "edgeproxy.service", check=False).strip() == "active",
            reason=f"{pop} to have booted and to run the proxy",
            timeout_s=_BOOT_TIMEOUT_S,
            interval_s=0.1,
        )

    def _write_map(self) -> None:
        write_country_database(
            self._folder / "world.mmdb",
            {
                str(network): country
                for place in self._atlas.clients
                for country, network in place.countries.items()
                if country
            },
        )
        (self._folder / "world.mmdb").chmod(0o644)


_ORDINARY: Final[dict[str, Any]] = {"init": True, "stop_signal": "SIGTERM"}


def _control_groups(client: docker.DockerClient) -> dict[str, Any]:
    """What systemd needs of the machine's control groups; no right over them where it can do without."""
    folder, is_first_version = "/sys/fs/cgroup", client.info().get("CgroupVersion") == "1"
    volumes = {folder: {"bind": folder, "mode": "ro" if is_first_version else "rw"}}
    return {"volumes": volumes} if is_first_version else {"volumes": volumes, "cgroupns": "host"}
