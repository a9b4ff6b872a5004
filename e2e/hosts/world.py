"""The world of the hosts: started once, shared by all stories of a run, gone at its end.

3 points of presence (POPs) under systemd, 9 backends, 4 machines of clients, an instance-metadata service, in
7 networks. POPs get their settings as on EC2: the user data that ships writes them at the first boot.
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

from e2e.hosts import atlas
from e2e.hosts.engine import LABEL, THREADS, engine_to_ourselves, reach_engine, sweep
from e2e.hosts.host import ClientHost, Host
from e2e.hosts.images import HOST, ROOT, provide_images
from e2e.hosts.measurements import collect
from testkit.faults import packets
from testkit.geo import write_country_database
from testkit.wait import wait_until

PYTHON: Final = "/opt/edgeproxy/bin/python"
MEASUREMENTS: Final = "/measurements"
COVERAGE: Final = {"COVERAGE_PROCESS_START": "/opt/inside/coveragerc"}
"""What the environment of a proxy needs to be measured."""
_TESTKIT: Final = "/testkit"
MAP: Final = "/etc/edgeproxy/world.mmdb"

_BUSY_TIMEOUT_S: Final = 600
_WORTH_TELLING_S: Final = 1
_BOOT_TIMEOUT_S: Final = 90

Networks = dict[str, Network]


class World:
    """All hosts, by what they are."""

    def __init__(self, engine: docker.DockerClient, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.pops: dict[str, Host] = {}
        """By region."""
        self.backends: dict[str, Host] = {}
        """By name, which is the id of the backend."""
        self.clients: dict[str, ClientHost] = {}
        """By name."""
        self.distances: dict[str, Host] = {}
        """By region of the POP whose network they share: what puts the other regions far from it."""

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
        return self.clients[atlas.COUNTRIES[country].name]

    @staticmethod
    def network_name(name: str) -> str:
        """What the engine calls a network of the atlas."""
        return f"edgeproxy-{name}"

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
        ending.enter_context(engine_to_ourselves(_BUSY_TIMEOUT_S))
        if (waited_s := time.monotonic() - began_s) > _WORTH_TELLING_S:
            say(f"waited {waited_s:.0f} s for another run to end")
        if swept := sweep(client):
            say(f"swept away what an earlier run left: {', '.join(sorted(swept))}")
        provide_images(client, say)
        # Of its own below /tmp: paths of Unix sockets must be short, and other users must reach them.
        folder = Path(tempfile.mkdtemp(prefix="edgeproxy-world-"))
        if not keep:
            ending.callback(shutil.rmtree, folder, ignore_errors=True)
            ending.callback(_sweep_timed, client, say)
        began_s = time.monotonic()
        builder = _Builder(client, folder)
        world = builder.build()
        say(f"world: {len(world.hosts)} hosts in {time.monotonic() - began_s:.1f} s")
        yield world
        if keep:
            say("kept; enter a host with: docker exec -it edgeproxy-pop-eu bash. The next run removes it all")
            return
        began_s = time.monotonic()
        builder.stop_pops()
        stopped_s = time.monotonic()
        collect(world)
        say(
            f"proxies stopped in {stopped_s - began_s:.1f} s, "
            f"what they measured collected in {time.monotonic() - stopped_s:.1f} s"
        )


def _sweep_timed(client: docker.DockerClient, say: Callable[[str], None]) -> None:
    began_s = time.monotonic()
    sweep(client)
    say(f"hosts removed in {time.monotonic() - began_s:.1f} s")


class _Builder:
    def __init__(self, client: docker.DockerClient, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._world = World(client, folder)
        self._networks: Networks = {}

    def build(self) -> World:
        self._folder.chmod(0o755)
        (self._folder / "sockets").mkdir()
        self._write_map()
        with ThreadPoolExecutor(THREADS) as pool:
            self._networks = dict(zip(atlas.NETWORKS, pool.map(self._network, atlas.NETWORKS), strict=True))
            self._start_metadata()
            steps: list[Callable[[], None]] = [
                *(lambda place=place: self._start_pop(place) for place in atlas.POPS.values()),
                *(lambda place=place: self._start_backend(place) for place in atlas.BACKENDS.values()),
                *(lambda place=place: self._start_client(place) for place in atlas.CLIENTS),
            ]
            for done in [pool.submit(step) for step in steps]:
                done.result()
            for done in [
                *(pool.submit(self._await_boot, pop) for pop in self._world.pops.values()),
                *(pool.submit(self._start_distance, place) for place in atlas.POPS.values()),
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
        subnet = atlas.NETWORKS[name]
        # An address on the metadata network would give this machine a route to its own cloud's service.
        options = {"com.docker.network.bridge.inhibit_ipv4": "true"} if name == "metadata" else {}
        return self._client.networks.create(
            World.network_name(name),
            driver="bridge",
            internal=True,
            options=options,
            labels={LABEL: "network"},
            ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet), gateway=atlas.gateway_of(name))]),
        )

    def _create(
        self, name: str, addresses: dict[str, str], command: list[str] | None, **options: Any
    ) -> tuple[Container, dict[str, tuple[Network, str]]]:
        """Create a container of the hosts' image with an address in each of the networks, and start it."""
        (first, first_address), *others = addresses.items()
        container = self._client.containers.create(
            HOST,
            command,
            name=f"edgeproxy-{name}",
            hostname=name,
            labels={LABEL: "host"},
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

    def _start_metadata(self) -> None:
        user_data = (ROOT / "docs" / "operations" / "ec2" / "user-data.sh").read_text(encoding="utf-8")
        instances = {
            place.addresses["metadata"]: {
                "meta-data": {
                    "instance-id": place.instance,
                    "local-ipv4": place.addresses[place.region],
                    "placement": {"region": place.cloud_region},
                },
                "user-data": user_data,
            }
            for place in atlas.POPS.values()
        }
        self._create(
            "metadata",
            {"metadata": atlas.METADATA_ADDRESS},
            [PYTHON, "/opt/inside/metadata.py"],
            environment={"INSTANCES": json.dumps(instances)},
            **_ORDINARY,
        )

    def _start_pop(self, place: atlas.PopPlace) -> None:
        measurements = self._world.measurements(place.region)
        measurements.mkdir(parents=True)
        measurements.chmod(0o777)
        options = _control_groups(self._client)
        options["volumes"] |= {
            str(measurements): {"bind": MEASUREMENTS, "mode": "rw"},
            str(self._folder / "world.mmdb"): {"bind": MAP, "mode": "ro"},
        }
        options["tmpfs"] = dict.fromkeys(("/run", "/run/lock", "/tmp"), "")
        container, networks = self._create(place.name, place.addresses, None, **options)
        self._world.pops[place.region] = Host(container, networks)

    def _start_distance(self, place: atlas.PopPlace) -> None:
        """Put the other regions where they belong: from a container of its own, since a POP may not."""
        ways = [
            f"--way={atlas.REGIONS[region]}={1000 * delay_s:g}"
            for region, delay_s in atlas.delays_from(place.region).items()
        ]
        container = self._client.containers.create(
            HOST,
            [PYTHON, "-m", packets.__name__, *ways],
            name=f"edgeproxy-distance-{place.region}",
            labels={LABEL: "host"},
            network_mode=f"container:edgeproxy-{place.name}",
            volumes={str(ROOT / "packages" / "testkit" / "src"): {"bind": _TESTKIT, "mode": "ro"}},
            environment={"PYTHONPATH": _TESTKIT, "PYTHONDONTWRITEBYTECODE": "1"},
            devices=["/dev/net/tun"],
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN", "NET_RAW"],
            user="root",
            **_ORDINARY,
        )
        container.start()
        wait_until(
            lambda: b"ready" in container.logs(),
            reason=f"the regions to be as far from {place.name} as they are",
            timeout_s=_BOOT_TIMEOUT_S,
        )
        self._world.distances[place.region] = Host(container, {})

    def _start_backend(self, place: atlas.BackendPlace) -> None:
        command = ["/opt/edgeproxy/bin/mock-backend", "-port", str(atlas.BACKEND_PORT)]
        command += ["-region", place.region, "-id", place.name]
        # What loses packets for a story is its own host, never that of the system under test.
        container, networks = self._create(
            place.name, {place.region: place.address}, command, cap_add=["NET_ADMIN"], **_ORDINARY
        )
        self._world.backends[place.name] = Host(container, networks)

    def _start_client(self, place: atlas.ClientPlace) -> None:
        sockets = self._folder / "sockets"
        # A local route makes every address of a network one of this host, with none to be configured.
        routes = "; ".join(f"ip route add local {network} dev eth0" for network in place.countries.values())
        path = f"/sockets/{place.name}"
        container, networks = self._create(
            place.name,
            {place.network: place.own_address},
            ["sh", "-ec", f"{routes}; exec {PYTHON} /opt/inside/dialler.py {path}"],
            volumes={str(sockets): {"bind": "/sockets", "mode": "rw"}},
            cap_add=["NET_ADMIN"],
            **_ORDINARY,
        )
        self._world.clients[place.name] = ClientHost(container, networks, sockets / place.name)

    def _await_boot(self, pop: Host) -> None:
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
                for place in atlas.CLIENTS
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
