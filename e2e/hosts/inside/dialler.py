"""Runs on a client's host: makes sockets there, and hands them to the stories through a Unix socket.

A story's client code runs on the machine of the tests, but a socket belongs for ever to the network that it
was made in. So what travels are descriptors, and every byte goes from the client's host, with its true
address and at no further cost.

``dialler.py SOCKET``: each connection to SOCKET is one message ``{"kind": "tcp" or "udp", "source":
ADDRESS, "to": [ADDRESS, PORT], "timeout_s": N}``, answered by ``{"errno": 0}`` with the descriptor, or the
errno of what went wrong.
"""

from __future__ import annotations

import json
import socket
import sys
from contextlib import suppress
from errno import ETIMEDOUT
from pathlib import Path
from threading import Thread

_MESSAGE_BYTES = 4096
_BACKLOG = 128


def main() -> None:
    path = Path(sys.argv[1])
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen(_BACKLOG)
    while True:
        peer, _ = listener.accept()
        Thread(target=_serve, args=[peer], daemon=True).start()


def _serve(peer: socket.socket) -> None:
    # Whoever asked may be gone by the time there is an answer.
    with peer, suppress(BrokenPipeError, ConnectionResetError):
        order = json.loads(peer.recv(_MESSAGE_BYTES))
        kind = socket.SOCK_STREAM if order["kind"] == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as made:
            try:
                made.settimeout(order["timeout_s"])
                made.bind((order["source"], 0))
                made.connect(tuple(order["to"]))
            except OSError as error:
                number = ETIMEDOUT if isinstance(error, TimeoutError) else error.errno
                peer.send(json.dumps({"errno": number}).encode())
            else:
                socket.send_fds(peer, [json.dumps({"errno": 0}).encode()], [made.fileno()])


if __name__ == "__main__":
    main()
