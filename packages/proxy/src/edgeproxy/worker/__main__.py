"""Composition root of a worker process; the control process starts it with the descriptors it hands on.

``python -m edgeproxy.worker CHANNEL_FD SEGMENT_FD LISTENER_FD...``
"""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

# Ctrl-C reaches the whole process group; the control process decides when workers stop.
signal.signal(signal.SIGINT, signal.SIG_IGN)
# An upgrade is the control process's business too, and by default the signal would end this process.
signal.signal(signal.SIGUSR2, signal.SIG_IGN)

from edgeproxy.outbound.geo_maxmind import CountryDatabase  # noqa: E402
from edgeproxy.worker.process import WorkerProcess  # noqa: E402


def _open_geo(path: str | None) -> CountryDatabase:
    return CountryDatabase.open(Path(path) if path is not None else None)


def main(arguments: list[str]) -> None:
    """Serve until the control process says otherwise."""
    channel_fd, segment_fd, *listener_fds = map(int, arguments)
    WorkerProcess(
        channel=socket.socket(fileno=channel_fd),
        listeners=[socket.socket(fileno=fd) for fd in listener_fds],
        segment_fd=segment_fd,
        open_geo=_open_geo,
    ).run()


if __name__ == "__main__":
    main(sys.argv[1:])
