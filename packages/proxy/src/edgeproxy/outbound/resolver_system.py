"""Host names of backends, resolved the way the operating system is configured to."""

from __future__ import annotations

import asyncio
import socket


async def resolve(host: str) -> tuple[str, ...]:
    """The numeric addresses of ``host``, in the system's order of preference; none when it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))
