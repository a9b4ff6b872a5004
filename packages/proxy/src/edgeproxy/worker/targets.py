"""Where a backend is connected to: its address, or those its host name resolves to."""

from __future__ import annotations

import socket
from itertools import cycle

from edgeproxy.core.model import Backend

Target = tuple[int, tuple[str | int, ...]]
"""Address family and socket address."""


class Targets:
    """Socket addresses of all backends. Names are resolved by the control process, never here."""

    def __init__(self) -> None:
        self._numeric: dict[tuple[str, int], Target | None] = {}
        self._turns: dict[str, cycle[str]] = {}

    def resolve(self, host: str, addresses: tuple[str, ...]) -> None:
        """``host`` means these addresses from now on; with none it cannot be connected to."""
        if addresses:
            self._turns[host] = cycle(addresses)
        else:
            self._turns.pop(host, None)

    def forget(self, backend: Backend) -> None:
        """No row names this host and port any more, as far as the caller knows."""
        self._numeric.pop((backend.host, backend.port), None)

    def of(self, backend: Backend) -> Target | None:
        """The next address to try, in turn where a name has several; ``None`` when it has none now."""
        key = backend.host, backend.port
        if key not in self._numeric:
            self._numeric[key] = _numeric_target(*key)
        target = self._numeric[key]
        if target is None and (turn := self._turns.get(backend.host)) is not None:
            return _numeric_target(next(turn), backend.port)
        return target


def _numeric_target(host: str, port: int) -> Target | None:
    """The socket address of a numeric host, ``None`` for a name. Asks nobody."""
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )[0]
    except OSError:
        return None
    assert not isinstance(address[0], int)  # that shape is for other families
    return family, address
