"""Does the server answer with success? One GET, of which the status line decides.

A process that hangs still has its kernel accept connections for it. Only an answer shows that it runs.
"""

from __future__ import annotations

import re

from edgeproxy.outbound.probe_tcp import PLAIN, Approach, BackendError, connection

_READ_BYTES = 16 << 10
"""Takes in most answers as a whole, so that closing sends no reset for what was left unread."""

_STATUS_LINE_MAX_BYTES = 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |$)")


class HttpProbe:
    """A :class:`edgeproxy.ports.Probe` that asks for ``path`` and expects a status from 200 to 299."""

    def __init__(self, path: str, approach: Approach = PLAIN) -> None:
        """``path`` begins with ``/`` and holds neither blanks nor control characters."""
        self._path = path
        self._approach = approach

    async def check(self, host: str, address: str, port: int) -> str | None:
        """See :meth:`edgeproxy.ports.Probe.check`."""
        try:
            async with connection(host, address, port, self._approach) as conversation:
                await conversation.send(self._request(host, port))
                received = b""
                while b"\n" not in received and len(received) < _STATUS_LINE_MAX_BYTES:
                    data = await conversation.receive(_READ_BYTES)
                    if not data:
                        return "closed the connection without an answer"
                    received += data
        except BackendError as error:
            return str(error)
        return _judged(received)

    def _request(self, host: str, port: int) -> bytes:
        # A zone (fe80::1%eth0) means something on this machine alone.
        name = f"[{host.partition('%')[0]}]" if ":" in host else host
        lines = (
            f"GET {self._path} HTTP/1.1",
            f"Host: {name}:{port}",
            "User-Agent: edgeproxy-health-check",
            "Accept: */*",
            "Connection: close",
        )
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


def _judged(received: bytes) -> str | None:
    line = received.partition(b"\n")[0].rstrip(b"\r")
    found = _STATUS_LINE.match(line)
    if found is None:
        return "does not answer in HTTP"
    status = int(found[1])
    return None if 200 <= status < 300 else f"answers with status {status}"
