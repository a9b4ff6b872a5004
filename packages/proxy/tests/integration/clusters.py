"""POPs that replicate: real proxies on the loopback interface, with everything they say to each other going
through a relay that can lose it."""

from __future__ import annotations

import base64
import selectors
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edgeproxy.outbound.store_sqlite import SqliteStore
from packages.proxy.tests.integration.proxies import API, Api, Proxy, StartProxy, write_rows
from testkit.wait import wait_until

KEY: Final = b"k" * 32
CLUSTER: Final = "stories"
KINDS: Final = ("gossip", "transport")
TIMEOUT_S: Final = 30.0


class Relay:
    """Passes datagrams between POPs on, both ways, unless that direction is cut.

    Each POP has an address here for each kind of datagrams, which it advertises. Who sends is known by the
    port that he is bound to.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._bound: dict[tuple[str, str], int] = {}
        self._names: dict[int, str] = {}
        self._fronts: dict[tuple[str, str], socket.socket] = {}
        self._ways: dict[tuple[str, str, str], socket.socket] = {}
        self._cut: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, node: str) -> None:
        """Choose ports for a POP to bind, and addresses to advertise."""
        for kind in KINDS:
            with _bound_socket() as free:
                port = free.getsockname()[1]
            with self._lock:
                self._bound[node, kind] = port
                self._names[port] = node
                front = self._fronts[node, kind] = _bound_socket()
                self._selector.register(front, selectors.EVENT_READ, ("front", node, kind, ""))

    def bound(self, node: str, kind: str) -> str:
        return f"127.0.0.1:{self._bound[node, kind]}"

    def advertised(self, node: str, kind: str) -> tuple[str, int]:
        host, port = self._fronts[node, kind].getsockname()
        return host, port

    @contextmanager
    def parted(self, some: Iterable[str], others: Iterable[str]) -> Any:
        """Lose everything between the one and the other, both ways, for as long as the block lasts."""
        ways = {way for a in some for b in others for way in ((a, b), (b, a))}
        with self._lock:
            self._cut |= ways
        try:
            yield
        finally:
            with self._lock:
                self._cut -= ways

    def close(self) -> None:
        self._over = True
        self._thread.join()
        for each in (*self._fronts.values(), *self._ways.values()):
            each.close()

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.1):
                with self._lock:
                    self._pass_on(key.fileobj, *key.data)  # type: ignore[arg-type]

    def _pass_on(self, sock: socket.socket, what: str, node: str, kind: str, sender: str) -> None:
        data, source = sock.recvfrom(65536)
        if what == "back":  # from `node` to `sender`, which had sent something
            if (node, sender) not in self._cut:
                self._fronts[node, kind].sendto(data, ("127.0.0.1", self._bound[sender, kind]))
            return
        sender = self._names.get(source[1], "")
        if not sender or (sender, node) in self._cut:
            return
        way = self._ways.get((sender, node, kind))
        if way is None:
            way = self._ways[sender, node, kind] = _bound_socket()
            self._selector.register(way, selectors.EVENT_READ, ("back", node, kind, sender))
        way.sendto(data, ("127.0.0.1", self._bound[node, kind]))


def _bound_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


class Cluster:
    """POPs by name; all know one key."""

    def __init__(self, start: StartProxy, folder: Path) -> None:
        self._start = start
        self._folder = folder
        self._seeds: list[str] = []
        self._relayed: set[str] = set()
        self.relay = Relay()
        self.pops: dict[str, Proxy] = {}

    def start(self, name: str, rows: Iterable[Mapping[str, object]] = (), **settings: object) -> Proxy:
        """Start a POP, or start it again with what it left."""
        place = self._folder / name
        if name not in self._relayed:
            self.relay.add(name)
            self._relayed.add(name)
            self._seeds.append("{}:{}".format(*self.relay.advertised(name, "gossip")))
            place.mkdir()
            SqliteStore.create(place / "routing.db")
            write_rows(place / "routing.db", rows)
        addresses = {
            f"replication_{kind}_{what}": address
            for kind in KINDS
            for what, address in (
                ("addr", self.relay.bound(name, kind)),
                ("advertise_addr", "{}:{}".format(*self.relay.advertised(name, kind))),
            )
        }
        proxy = self._start(
            db_path=place / "routing.db",
            admin_socket=place / "admin.sock",
            replication_enabled=True,
            replication_node_id=name,
            replication_cluster_name=CLUSTER,
            replication_keys=base64.b64encode(KEY).decode(),
            replication_bootstrap_peers=",".join(self._seeds),
            replication_gossip_interval_ms=100,
            replication_sync_interval_ms=300,
            **{**API, **addresses, "replication_db_path": place / "state.db", **settings},
        )
        self.pops[name] = proxy
        return proxy

    def api(self, name: str) -> Api:
        return Api(self.pops[name])

    def replication(self, name: str) -> Any:
        return self.pops[name].ask("replication")

    def ids(self, name: str) -> set[str]:
        """The backends by which a POP routes."""
        return {each["id"] for each in self.pops[name].ask("table")["backends"]}

    def wait(self, condition: Callable[[], object], reason: str, timeout_s: float = TIMEOUT_S) -> None:
        wait_until(lambda: bool(condition()), reason=reason, timeout_s=timeout_s)

    def wait_connected(self, *names: str) -> None:
        """Wait until each of these has a connection with each other one."""

        def connected(name: str) -> set[str]:
            return {each["node"] for each in self.replication(name)["members"] if each["connected"]}

        self.wait(
            lambda: all(connected(name) >= set(names) - {name} for name in names),
            f"connections between {', '.join(names)}",
        )

    def wait_same_rows(self, *names: str) -> None:
        """Wait until these route by the same rows."""

        def tables() -> list[Any]:
            return [
                sorted(self.pops[name].ask("table")["backends"], key=lambda each: each["id"])
                for name in names
            ]

        self.wait(lambda: all(each == tables()[0] for each in tables()), "the same rows everywhere")

    def close(self) -> None:
        self.relay.close()
