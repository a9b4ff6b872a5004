"""What stands before a client's own bytes: a PROXY header, a TLS hello that names a server.

Nothing is taken from the socket but the PROXY header. The hello stays where it is, for the backend to
read whole.
"""

from __future__ import annotations

import select
import socket
from typing import Protocol

from edgeproxy.core.dataplane.listening import Listening, Networks
from edgeproxy.core.wire import client_hello, proxy_protocol
from edgeproxy.core.wire.client_hello import ClientHello, read_client_hello
from edgeproxy.core.wire.prefix import Malformed, Verdict
from edgeproxy.core.wire.proxy_protocol import Header, read_header

_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT


class Owner(Protocol):
    """Who is told the outcome, once."""

    @property
    def peer_address(self) -> str: ...

    def opened(self, header: Header | None, server_name: str | None) -> None: ...

    def opening_failed(self) -> None: ...


class Opening:
    """The first handler of a client's socket; the connection takes over when it has come to an end."""

    __slots__ = ("_ended", "_header", "_owner", "_reads_header", "_reads_hello", "_sock")

    def __init__(self, sock: socket.socket, listening: Listening, owner: Owner, trusted: Networks) -> None:
        self._sock = sock
        self._owner = owner
        self._reads_header = listening.proxy_protocol and trusted.hold(owner.peer_address)
        self._reads_hello = listening.app_from_sni and not listening.terminates_tls
        self._header: Header | None = None
        self._ended = False

    @property
    def owner(self) -> Owner:
        """Whose opening this is."""
        return self._owner

    def ready(self, events: int) -> None:
        # The client may end right behind its last byte; more bytes will then not come.
        self._ended = self._ended or bool(events & ~(select.EPOLLIN | select.EPOLLOUT))
        if self._reads_header:
            if not self._read_header():
                return
            self._reads_header = False
        if not self._reads_hello:
            self._owner.opened(self._header, None)
            return
        hello = read_client_hello(self._peek(client_hello.MAX_PREFIX_BYTES))
        if isinstance(hello, ClientHello):
            self._owner.opened(self._header, hello.server_name)
        elif hello is not Verdict.NEED_MORE or self._ended:
            self._owner.opening_failed()

    def _read_header(self) -> bool:
        header = read_header(self._peek(proxy_protocol.MAX_PREFIX_BYTES))
        if isinstance(header, Header):
            self._sock.recv(header.length)
            self._header = header
            return True
        if isinstance(header, Malformed) or header is Verdict.OTHER_PROTOCOL or self._ended:
            self._owner.opening_failed()
        return False

    def _peek(self, size: int) -> bytes:
        """What has come so far; nothing for a socket that was reset, which its ``events`` say."""
        try:
            return self._sock.recv(size, _PEEK)
        except OSError:
            return b""
