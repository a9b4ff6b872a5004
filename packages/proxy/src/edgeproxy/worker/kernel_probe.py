"""Whether the kernel of this machine relays as it should; found out by doing it, on connections of our own.

Kernels differ in what their sockmaps do with early bytes, with ends and with bytes left to the process, and
version numbers do not tell: distributors carry corrections back. What is tried is the program, the maps and
the kernel, without the relay around them, after the capabilities are gone, so that nothing works by their
grace.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack

from edgeproxy import capabilities
from edgeproxy.core.dataplane.promotion import Credit, Run
from edgeproxy.worker.kernel_maps import KernelMaps
from edgeproxy.worker.kernel_program import Word

_TIMEOUT_S = 1.0


class KernelRefusedError(Exception):
    """The kernel cannot relay, or this process may not have it do so; the message says why."""


def take_up() -> KernelMaps:
    """Load the program, give up the capabilities that this took, and try it.

    Raises:
        KernelRefusedError: connections have to be relayed without it.
    """
    try:
        try:
            maps = KernelMaps()
        finally:
            capabilities.drop()
    except OSError as error:
        raise KernelRefusedError(f"the program cannot be loaded: {error}") from error
    try:
        probe(maps)
    except BaseException:
        maps.close()
        raise
    return maps


def probe(maps: KernelMaps) -> None:
    """Relay on loopback connections in the ways in which kernels were seen to fail.

    Raises:
        KernelRefusedError: one of them failed.
    """
    pair = maps.take_pair()
    if pair is None:
        raise KernelRefusedError("the self-test found no place")
    step = "connecting"
    with ExitStack() as at_end:
        try:
            client, downstream = _connection(at_end)
            upstream, backend = _connection(at_end)
            step = "early bytes"
            client.send(b"early")
            cookies = [maps.insert(pair, downstream), maps.insert(pair + 1, upstream)]
            to_backend = at_end.enter_context(maps.words(pair))
            to_client = at_end.enter_context(maps.words(pair + 1))
            _expect(downstream, b"early")
            to_backend[Word.CONSUMED] = 5
            step = "handing on"
            for words in (to_backend, to_client):
                words[Word.LIMIT] = 1 << 20
            run = Run(maps.written_bytes(upstream), 0, 0)  # exact, for nothing was sent to it yet
            for sender, receiver in ((client, backend), (backend, client)):
                sender.send(b"straight on")
                _expect(receiver, b"straight on")
            step = "the end of credit"
            charged = to_backend[Word.CHARGED]
            to_backend[Word.LIMIT], to_backend[Word.NOTICE_AT] = Credit(charged + 600, charged)
            client.send(b"within")
            client.send(b"beyond")
            _expect(backend, b"within")
            to_backend[Word.LIMIT] = 1 << 20
            client.send(b" and behind")  # must not overtake
            _expect(downstream, b"beyond and behind")
            to_backend[Word.CONSUMED] += 17
            if list(maps.notices()) != [pair]:
                raise KernelRefusedError("no notice came of used up credit")
            step = "an end of one direction"
            client.send(b"last words")
            client.shutdown(socket.SHUT_WR)
            _expect(backend, b"last words")
            _expect(downstream, b"")
            backend.send(b"still here")
            _expect(client, b"still here")
            maps.settle(downstream)
            if not run.is_delivered(maps.written_bytes(upstream), to_backend[Word.REDIRECTED]):
                raise KernelRefusedError("the counts of sockets and program differ")
            upstream.shutdown(socket.SHUT_WR)
            _expect(backend, b"")
        except OSError as error:
            raise KernelRefusedError(f"the self-test failed at {step}: {error}") from error
    for cookie in cookies:
        maps.remove(cookie)
    maps.give_back(pair)


def _connection(at_end: ExitStack) -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        one = at_end.enter_context(socket.create_connection(listener.getsockname(), _TIMEOUT_S))
        other = at_end.enter_context(listener.accept()[0])
    for sock in (one, other):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(_TIMEOUT_S)
    return one, other


def _expect(sock: socket.socket, data: bytes) -> None:
    """Raises OSError when something else comes, or nothing."""
    received = sock.recv(len(data) + 1)
    while received and len(received) < len(data):
        received += sock.recv(len(data) + 1 - len(received))
    if received != data:
        raise OSError(f"{received!r} came in place of {data!r}")
