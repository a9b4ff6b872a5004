"""The POP in region ``eu`` of the world of the hosts, set up for one story."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from e2e.clients import TIMEOUT_S, Client
from e2e.hosts.atlas import BACKEND_PORT, BackendPlace
from e2e.hosts.host import Host, shell
from e2e.hosts.world import COVERAGE, MAP, PYTHON, World
from e2e.pop import Backend, Pop, Proxy, records_of, register_command
from testkit.faults.blocking import BlockingLinks
from testkit.faults.vocabulary import Fault
from testkit.wait import wait_until

_START_TIMEOUT_S: Final = 60
_STOP_TIMEOUT_S: Final = 60
_HOME: Final = "/var/lib/edgeproxy"
_SETTINGS: Final = "/etc/edgeproxy/story.env"
_FIRST_PORT: Final = 9100
_ECHO_PORT: Final = 9002
_SIDECAR: Final = "sidecar"
_TOLD_LINES: Final = 60
"""Of a journal, in a report."""
# What the user data wrote, then what the story wants, as the unit reads them.
_COMMAND: Final = (
    f'set -a; . /etc/edgeproxy/edgeproxy.env; . {_SETTINGS}; exec /opt/edgeproxy/bin/edgeproxy "$@"'
)
# A service may be gone before the journal has taken in its last words.
_JOURNAL: Final = """
journalctl --sync
journalctl --unit=edgeproxy.service --output=cat --no-pager --quiet --after-cursor="$CURSOR"
"""
_RESET: Final = f"""
systemctl stop edgeproxy.service || true
# What outlives its service would go on serving the table of an earlier story.
systemctl kill --kill-whom=all --signal=KILL edgeproxy.service || true
systemctl reset-failed edgeproxy.service || true
rm -rf {_HOME}/* {_SETTINGS}
install --directory --owner edgeproxy --group edgeproxy --mode 0750 {_HOME}/state
journalctl --lines=0 --show-cursor --quiet | sed -n 's/^-- cursor: //p'
"""


class HostBackend:
    """A host with a mock backend on it."""

    def __init__(self, host: Host, place: BackendPlace) -> None:
        self.host = host
        self._place = place

    @property
    def id(self) -> str:
        return self._place.name

    @property
    def region(self) -> str:
        return self._place.region

    @property
    def address(self) -> str:
        return self._place.address

    @property
    def port(self) -> int:
        return BACKEND_PORT

    def stop(self) -> None:
        self.host.stop()

    def inject(self, fault: Fault) -> None:
        self.host.inject(fault)

    def recover(self) -> None:
        self.host.heal()


class HostSidecar:
    """A program beside a backend on its host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def log(self) -> str:
        return self._host.log_of(_SIDECAR)

    def stop(self) -> None:
        self._host.end_program(_SIDECAR)

    def die(self) -> None:
        self._host.end_program(_SIDECAR, "KILL")


class HostProxy(Proxy):
    """The service of a host, whatever process it is at the moment."""

    def __init__(self, pop: HostPop) -> None:
        self._pop = pop
        self.host = pop.place.addresses["north"]
        self.port = 8080

    @property
    def running(self) -> bool:
        return self.state("ActiveState") in {"active", "deactivating"}

    @property
    def main_pid(self) -> int:
        return int(self.state("MainPID"))

    def state(self, name: str) -> str:
        """A property of the service, as ``systemctl show`` names them."""
        return self._pop.host.run(
            "systemctl", "show", "--property", name, "--value", "edgeproxy.service"
        ).strip()

    def events(self, name: str) -> list[dict[str, Any]]:
        return records_of(self._pop.journal(), name)

    def kill(self) -> None:
        """Kill its main process, as the kernel does when memory runs out."""
        self._pop.host.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "edgeproxy.service")

    def begin_stop(self) -> None:
        self._pop.host.run("systemctl", "stop", "--no-block", "edgeproxy.service")

    def wait_stopped(self) -> None:
        wait_until(
            lambda: self.state("ActiveState") not in {"active", "deactivating"},
            reason="the service to stop",
            timeout_s=_STOP_TIMEOUT_S,
            interval_s=0.1,
        )
        assert self.state("Result") == "success"
        assert self.state("ExecMainStatus") == "0"

    def stop_successor(self) -> None:
        # The service manager follows an upgrade.
        self.stop()


class HostPop(Pop):
    """One POP of the world. What earlier stories left on it is gone."""

    def __init__(
        self,
        world: World,
        region: str = "eu",
        links: Callable[[], BlockingLinks] | None = None,
        *,
        is_measured: bool = True,
    ) -> None:
        """``links``: asked for when the first is needed; ``is_measured``: for coverage."""
        super().__init__()
        self._is_measured = is_measured
        self._links = links
        self.world = world
        self.place = world.atlas.pops[region]
        self.host = world.pops[region]
        self.settings = {"EDGEPROXY_GEOIP_PATH": MAP}
        self._cursor = self.host.run(*shell(_RESET)).strip().splitlines()[-1]
        self._written = ""
        self._ports = itertools.count(_FIRST_PORT)
        self._involved: list[Host] = []
        self._beside: list[HostPop] = []

    def beside(self, region: str) -> HostPop:
        """Another POP of the same world that the story is about, too."""
        pop = HostPop(self.world, region, is_measured=self._is_measured)
        self._beside.append(pop)
        return pop

    def listen(self) -> tuple[str, int]:
        port = next(self._ports)
        return f"0.0.0.0:{port}", port

    def write(self, name: str, content: bytes | str) -> str:
        path = f"{_HOME}/{name}"
        folder = path.rpartition("/")[0]
        self.host.run(*shell(f"mkdir -p {folder}"))
        self.host.put(f"{path}.new", content)
        self.host.run(*shell(f"mv {path}.new {path}; chown -R edgeproxy: {_HOME}"))
        return path

    def folder_of(self, name: str) -> str:
        return f"{_HOME}/{name}"

    def edgeproxy(self, *arguments: str) -> str:
        self._write_settings()
        return self.host.run(
            *("sh", "-c", _COMMAND, "edgeproxy", *arguments),
            user="edgeproxy",
            folder=_HOME,
            env={"NO_COLOR": "1"},
        )

    def sql(self, statements: str) -> None:
        self.host.run(
            *("sqlite3", "-cmd", ".timeout 10000", f"{_HOME}/routing.db", statements), user="edgeproxy"
        )

    def client(self, country: str, number: int = 1) -> Client:
        host, network = self.world.client_host(country), self.world.atlas.countries[country].network

        def dial(
            source: str, to: tuple[str, int], *, kind: str = "tcp", timeout_s: float = TIMEOUT_S
        ) -> socket.socket:
            # The POP is in each network of the internet, and everybody uses the address that is next to them.
            return host.dial(source, (self.place.addresses[network], to[1]), kind=kind, timeout_s=timeout_s)

        return Client(self.world.atlas.address_in(country, number), dial)

    def start_backend(self, backend_id: str) -> HostBackend:
        """All run from the first; only say which of them the story is about."""
        host = self.world.backends[backend_id]
        self._involved.append(host)
        return HostBackend(host, self.world.atlas.backends[backend_id])

    def start_echo(self, backend_id: str) -> tuple[str, int]:
        host = self.world.backends[backend_id]
        self._involved.append(host)
        host.start_program("echo", PYTHON, "/opt/inside/echo.py", "0.0.0.0", str(_ECHO_PORT))
        return self.world.atlas.backends[backend_id].address, _ECHO_PORT

    def start_sidecar(self, backend: Backend, api_port: int, token: str) -> HostSidecar:
        host = self.world.backends[backend.id]
        token_file = "/run/token"
        host.put(token_file, token)
        api = f"{self.place.addresses[backend.region]}:{api_port}"
        command = register_command(backend, api, token_file)
        host.start_program(_SIDECAR, "/opt/edgeproxy/bin/edgeproxy", *command, ready=": registered")
        return HostSidecar(host)

    def start_breakable_backends(self, countries: dict[str, str]) -> dict[str, Backend]:
        return self.start_backends(countries)

    def reach(self, port: int) -> tuple[str, int]:
        assert self._links is not None, "this POP was made without links"
        # This machine has an address in every network of the world, but there is nothing of ours behind it.
        gateway = self.world.atlas.gateway_of(self.place.region)
        link = self._links().tcp("127.0.0.1", port, listen=gateway, name=f"{self.host.name} to this machine")
        return link.host, link.port

    def start_proxy(self) -> HostProxy:
        self._write_settings()
        self.host.run("systemctl", "start", "edgeproxy.service")
        proxy = HostProxy(self)
        wait_until(
            partial(proxy.events, "listening"),
            reason="the proxy to listen",
            timeout_s=_START_TIMEOUT_S,
            interval_s=0.1,
        )
        return proxy

    def wait_active(self) -> None:
        """Wait until the service has said that it serves."""
        wait_until(
            lambda: HostProxy(self).state("ActiveState") == "active",
            reason=f"{self.host} to serve",
            timeout_s=_START_TIMEOUT_S,
            interval_s=0.1,
        )

    def journal(self) -> str:
        """What the service has written since the story began."""
        return self.host.run(*shell(_JOURNAL), env={"CURSOR": self._cursor})

    def report(self) -> list[tuple[str, str]]:
        explain = ("edgeproxy", "explain", "--client", self.client("DE").address)
        explained = self.host.run("sh", "-c", _COMMAND, *explain, user="edgeproxy", folder=_HOME, check=False)
        journal = self.journal().splitlines()[-_TOLD_LINES:]
        return [
            (f"journal of {self.host.name}", "\n".join(journal)),
            (self.host.name, self.host.report()),
            (f"explain at {self.host.name}", explained),
            *((host.name, host.report()) for host in dict.fromkeys(self._involved)),
            *(told for pop in self._beside for told in pop.report()),
        ]

    def _write_settings(self) -> None:
        # Over what the unit says, which holds where a story starts it by hand.
        measured = {"COVERAGE_PROCESS_START": COVERAGE if self._is_measured else ""}
        lines = [f'{name}="{value}"\n' for name, value in {**self.environment, **measured}.items()]
        if (settings := "".join(lines)) != self._written:
            self.host.put(_SETTINGS, settings)
            self._written = settings
        if self._is_measured:
            self.world.measured.add(self.place.region)
