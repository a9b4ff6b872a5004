"""Peers that misbehave before a byte was sent: one refuses, one never answers, one says nothing.

On the loopback interface of Linux, for what connects from this machine.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_BACKLOG = 128


@contextmanager
def refusing_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A TCP port that refuses connections.

    It is bound, so it is given to nobody else meanwhile; who asks for it by number may listen there, with
    ``SO_REUSEADDR``, and then it refuses no more.
    """
    with socket.socket(_family(host)) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, 0))
        yield port_of(holder)


@contextmanager
def unanswering_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A TCP port to which connecting never comes to an end, as when packets are lost on the way.

    The queue of a listener is full, and Linux then lets the first packet of who connects fall.
    """
    with ExitStack() as at_end:
        listener = at_end.enter_context(socket.create_server((host, 0), family=_family(host), backlog=0))
        at_end.callback(plug(listener).close)
        yield port_of(listener)


@contextmanager
def silent_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A TCP port on which connecting works, and then nobody reads or says anything."""
    with socket.create_server((host, 0), family=_family(host), backlog=_BACKLOG) as listener:
        yield port_of(listener)


def plug(listener: socket.socket) -> socket.socket:
    """Fill the queue of a listener, so that it answers nobody; return the socket that takes the place.

    Who waits in the queue already stays there. Closing the returned socket frees nothing by itself: the place
    is free when somebody accepts it.
    """
    listener.listen(0)
    filler = socket.socket(listener.family)
    filler.setblocking(False)
    # One place is left even in a queue of none. Over the loopback interface it is taken when this returns.
    filler.connect_ex(listener.getsockname()[:2])
    return filler


def reset_on_close(sock: socket.socket) -> None:
    """Have the kernel send RST, and throw away what is unsent, when the socket is closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
