"""What a listener wants to know of a client before it looks for a backend."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address

import msgspec

from edgeproxy.core.dataplane.selection import ANY_APP

NO_APP = ""
"""The app of a listener that serves clients by server name alone. No row has it."""


class Listening(msgspec.Struct, frozen=True):
    """How one listener treats its clients."""

    app: str = ANY_APP
    """The app it serves; with ``app_from_sni`` that of clients whose name says nothing, or ``NO_APP``."""
    app_from_sni: bool = False
    """Whether the server name in the client's TLS hello chooses the app. TLS itself goes to the backend,
    unless it is terminated."""
    proxy_protocol: bool = False
    """Whether trusted peers send a PROXY header first."""
    terminates_tls: bool = False
    """Whether TLS ends here, and the backend gets what was in it."""

    @property
    def has_opening(self) -> bool:
        """Whether something must be read before a backend can be chosen."""
        return self.app_from_sni or self.proxy_protocol or self.terminates_tls


class ServerNames:
    """Which app a server name means: the name itself first, then ``*.`` and the rest behind its first dot."""

    def __init__(self, app_by_name: Mapping[str, str]) -> None:
        """``app_by_name``: names in lower case, possibly with ``*`` for the first label."""
        self._app_by_name = dict(app_by_name)

    def app_of(self, server_name: str) -> str | None:
        """The app, ``None`` for a name that nothing was said about."""
        app = self._app_by_name.get(server_name)  # feature: listeners.further
        if app is None:
            app = self._app_by_name.get(f"*.{server_name.partition('.')[2]}")
        return app


class Networks:
    """A set of networks that addresses are looked up in."""

    def __init__(self, networks: tuple[str, ...]) -> None:
        """``networks`` in CIDR notation."""
        self._v4 = tuple(IPv4Network(each) for each in networks if ":" not in each)
        self._v6 = tuple(IPv6Network(each) for each in networks if ":" in each)

    def hold(self, address: str) -> bool:
        """Whether ``address``, normalised, is in one of them."""
        parsed = ip_address(address)
        if parsed.version == 4:
            return any(parsed in network for network in self._v4)
        return any(parsed in network for network in self._v6)
