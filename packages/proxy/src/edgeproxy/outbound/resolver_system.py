"""Host names of backends, resolved the way the operating system is configured to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from threading import Thread

_CONCURRENT_LOOKUPS = 16


class SystemResolver:
    """Asks ``getaddrinfo``, a bounded number of names at a time."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_CONCURRENT_LOOKUPS)

    async def resolve(self, host: str) -> tuple[str, ...]:
        """The numeric addresses of ``host``, in the system's order of preference; none when it has none.

        A look-up cannot be interrupted and takes half a minute when no name server answers. So each has a
        thread of its own that dies with the process: the loop's threads would keep the process from ending,
        and with all of them waiting here the routing table would not be read.
        """
        async with self._turn:
            loop = asyncio.get_running_loop()
            found: asyncio.Future[tuple[str, ...]] = loop.create_future()

            def hand_over(addresses: tuple[str, ...]) -> None:
                if not found.done():
                    found.set_result(addresses)

            def look_up() -> None:
                addresses = _addresses(host)
                with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(hand_over, addresses)

            Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
            return await found


def _addresses(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))
