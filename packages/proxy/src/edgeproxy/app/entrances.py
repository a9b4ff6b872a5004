"""The sockets that clients, resolvers, backends and Prometheus connect to: opened before anything else is
done, or inherited, and handed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.config import Address, Config
from edgeproxy.config.load import SOURCE_DEFAULT
from edgeproxy.config.settings import SETTINGS
from edgeproxy.errors import ListenError
from edgeproxy.inbound.dns_port import DnsPort
from edgeproxy.inbound.metrics_port import MetricsPort
from edgeproxy.inbound.replication_ports import ReplicationPort
from edgeproxy.runtime.handover import Bequest, Inheritance
from edgeproxy.runtime.listeners import Listeners, activated_listeners, adopt_listeners, open_listeners
from edgeproxy.runtime.socket_activation import ActivatedSockets

if TYPE_CHECKING:
    from edgeproxy.inbound.api_port import ApiPort


class Entrances:
    """All that listens, but for the admin socket."""

    def __init__(self, config: Config, inherited: Inheritance, activated: ActivatedSockets) -> None:
        """Bind what is neither ``inherited`` nor ``activated``.

        Raises:
            EdgeproxyError: an address is taken, not ours, not allowed, or open to the world unprotected.
        """
        self._config = config
        self.listeners = _open_listeners(config, inherited, activated)
        """One for each of :func:`addresses`."""
        self.dns = _dns_port(config, inherited) if config.dns_enabled else None
        self.api = _api_port(config, inherited) if config.api_enabled else None
        self.metrics = _metrics_port(config, inherited) if config.metrics_enabled else None
        self.gossip: ReplicationPort | None = None
        self.transport: ReplicationPort | None = None
        if config.replication_enabled:
            self.gossip = _replication_port(config, "gossip", "exchange membership", inherited)
            self.transport = _replication_port(config, "transport", "exchange changes", inherited)

    @property
    def address(self) -> str:
        """That of the main listener."""
        return self.listeners[0].address

    def bequests(self) -> list[Bequest]:
        """All of it, for a successor."""
        config = self._config
        bequests = [
            Bequest("listener", str(address), listeners.descriptors)
            for address, listeners in zip(addresses(config), self.listeners, strict=True)
        ]
        if self.dns is not None:
            bequests.append(Bequest("dns", str(config.dns_listen_addr), self.dns.descriptors))
        if self.api is not None:
            bequests.append(Bequest("api", str(config.api_listen_addr), (self.api.socket.fileno(),)))
        if self.metrics is not None:
            bequests.append(
                Bequest("metrics", str(config.metrics_listen_addr), (self.metrics.socket.fileno(),))
            )
        for name, port in (("gossip", self.gossip), ("transport", self.transport)):
            if port is not None and port.socket.fileno() >= 0:
                address = str(getattr(config, f"replication_{name}_addr"))
                bequests.append(Bequest(name, address, (port.socket.fileno(),)))
        return bequests

    def close_listeners(self) -> None:
        """Give the clients' addresses back; the other sockets belong to their servers."""
        for listeners in self.listeners:
            listeners.close()


def named_addresses(config: Config) -> list[tuple[str, Address]]:
    """:func:`addresses`, with the names that a service manager may give their sockets, "" for none."""
    further = [("", each.address) for each in config.listeners]
    if config.tls_enabled:
        further.append(("tls", config.tls_listen_addr))
    return [("main", config.listen_addr), *further]


def addresses(config: Config) -> list[Address]:
    """That of the main listener, then those of the further ones, as :func:`listenings` has them."""
    return [address for _, address in named_addresses(config)]


def _open_listeners(config: Config, inherited: Inheritance, activated: ActivatedSockets) -> list[Listeners]:
    """All or none."""
    opened: list[Listeners] = []
    try:
        for name, address in named_addresses(config):
            if sockets := inherited.take("listener", str(address)):
                opened.append(adopt_listeners(sockets, config.workers))
            elif sockets := activated.take(name, address):
                opened.append(activated_listeners(sockets))
            else:
                opened.append(open_listeners(*address, config.workers))
        activated.refuse_rest()
    except ListenError:
        for listeners in opened:
            listeners.close()
        raise
    return opened


def _dns_port(config: Config, inherited: Inheritance) -> DnsPort:
    return DnsPort(*config.dns_listen_addr, inherited.take("dns", str(config.dns_listen_addr)))


def _api_port(config: Config, inherited: Inheritance) -> ApiPort:
    from edgeproxy.inbound.api_port import ApiPort
    from edgeproxy.stores import open_tokens  # slow to import

    source = config.sources["api_listen_addr"]
    chosen_by = None if source == SOURCE_DEFAULT else source
    return ApiPort(
        config.api_listen_addr,
        open_tokens(config),
        chosen_by=chosen_by,
        inherited=inherited.take("api", str(config.api_listen_addr)),
    )


def _metrics_port(config: Config, inherited: Inheritance) -> MetricsPort:
    address = config.metrics_listen_addr
    is_default = config.sources["metrics_listen_addr"] == SOURCE_DEFAULT
    return MetricsPort(address, is_default=is_default, inherited=inherited.take("metrics", str(address)))


def _replication_port(config: Config, name: str, to: str, inherited: Inheritance) -> ReplicationPort:
    setting = f"replication_{name}_addr"
    address = getattr(config, setting)
    return ReplicationPort(
        address,
        to=to,
        variable=SETTINGS[setting].variable,
        is_exposable=bool(config.replication_keys) or config.sources[setting] != SOURCE_DEFAULT,
        inherited=inherited.take(name, str(address)),
    )
