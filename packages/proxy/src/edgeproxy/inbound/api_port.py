"""Where the API listens, so that nothing listens to the world unprotected.

Apart from the server, whose imports take longer than a start may: the port is bound first of all.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from edgeproxy.config import Address
from edgeproxy.errors import ConfigError, EdgeproxyError, ListenError
from edgeproxy.inbound.bound_socket import bind_socket
from edgeproxy.ports import TokenStore

LOOPBACK: Final = "127.0.0.1"


class ApiPort:
    """A bound socket that nobody serves yet.

    An address that nobody chose is that of the loopback interface for as long as there is no token: the
    first one opens it, revoking the last one closes it. One that was chosen stays what it is.
    """

    def __init__(
        self,
        address: Address,
        tokens: TokenStore,
        *,
        chosen_by: str | None,
        inherited: Sequence[socket.socket] = (),
    ) -> None:
        """Bind, unless the socket is ``inherited``; where it should not be, it moves as it always does.

        ``chosen_by`` is what set the address: a variable, say; ``None`` for the default.

        Raises:
            ConfigError: the chosen address can be reached from elsewhere, and there is no token.
            ListenError: the address is taken, not ours or not allowed.
            EdgeproxyError: whether there is a token cannot be found out.
        """
        self._address = address
        self.tokens = tokens
        self._is_default = chosen_by is None
        is_exposed = not ip_address(address.host).is_loopback
        if chosen_by is not None and is_exposed and tokens.is_empty():
            problem = (
                f"{chosen_by}: {address} can be reached from other machines, and there is no token; "
                "make one with `edgeproxy token create`, or listen on 127.0.0.1"
            )
            raise ConfigError([problem])
        self._placed_for = self._wanted_host()
        if inherited:
            self._take(inherited[0])
            self._placed_for = self._bound_to.host
        else:
            self._bind(self._placed_for, address.port)

    def _wanted_host(self) -> str:
        return LOOPBACK if self._is_default and self.tokens.is_empty() else self._address.host

    def _bind(self, host: str, port: int) -> None:
        self._take(bind_socket(Address(host, port), to="serve the API", variable="EDGEPROXY_API_LISTEN_ADDR"))

    def _take(self, sock: socket.socket) -> None:
        self.socket = sock
        self._bound_to = Address(*sock.getsockname()[:2])
        self.address = str(self._bound_to)

    @property
    def is_bound(self) -> bool:
        """Whether the socket is open; whoever served it and stopped has closed it."""
        return self.socket.fileno() >= 0

    def place_to_move_to(self) -> str | None:
        """Where the socket should be, since tokens came or went; ``None`` while it is in its place."""
        try:
            wanted = self._wanted_host()
        except EdgeproxyError:
            return None  # every request is refused meanwhile
        return wanted if wanted != self._placed_for else None

    def move(self, host: str) -> None:
        """Bind a new socket there, or else where the last one was, which must be closed.

        Raises:
            ListenError: it stays where it was until tokens come or go again; or neither could be bound,
                and there is still a place to move to.
        """
        former, self._placed_for = self._bound_to, host
        try:
            self._bind(host, former.port)
        except ListenError:
            try:
                self._bind(*former)
            except ListenError:
                self._placed_for = ""
            raise

    def close(self) -> None:
        """Give the port back."""
        self.socket.close()
