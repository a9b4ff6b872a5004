"""TLS ends that can do all that a socket can: half-close, reset, stop reading, send until stuck."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeproxy.core.dataplane.backend_rules import BackendRule, BackendTls
from edgeproxy.core.dataplane.identities import BackendCredentials, ClientCertificates, Identity, KeyPair
from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.wire.frames import Start, TlsSettings
from packages.proxy.tests.integration.worker.workers import TIMEOUT_S, connected, start_frame
from testkit.pki import Pki

NAME = "shop.example.com"
_PIECE_BYTES = 1 << 10


class TlsClient(socket.socket):
    """A connected client. One thread may send while another receives."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str | None = NAME) -> None:
        """Shake hands over ``sock``, which becomes this object."""
        super().__init__(fileno=sock.detach())
        self.settimeout(TIMEOUT_S)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self._wrap(context, server_name)
        self._lock = threading.Lock()
        self._backlog = b""
        self._early = b""
        self._said_end = False
        self._is_closing = False
        try:
            self._shake_hands()
        except BaseException:
            super().close()
            raise

    def _wrap(self, context: ssl.SSLContext, server_name: str | None) -> ssl.SSLObject:
        return context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    def _shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                super().sendall(self._outgoing.read())
                data = super().recv(1 << 16)
                if not data:
                    raise ConnectionResetError("the server ended the handshake") from None
                self._incoming.write(data)
            else:
                super().sendall(self._outgoing.read())
                return

    def recv(self, size: int, _flags: int = 0) -> bytes:
        while True:
            with self._lock:
                if self._early:
                    early, self._early = self._early[:size], self._early[size:]
                    return early
                try:
                    return self.tls.read(size)
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLZeroReturnError:
                    return b""
            data = super().recv(1 << 16)
            assert data, "the stream was cut off: it ended without close_notify"
            with self._lock:
                self._incoming.write(data)

    def send(self, data: Any, flags: int = 0) -> int:
        """As far as the socket takes it; ciphertext that it does not take goes ahead of the next bytes."""
        if flags & socket.MSG_OOB:
            pytest.skip("there are no urgent bytes in TLS")
        sent = 0
        while sent < len(data) and not self._backlog:
            piece = data[sent : sent + _PIECE_BYTES]
            self._backlog = self._encrypt(piece)
            sent += len(piece)
            self._try_backlog()
        if not sent:
            self._try_backlog()
            raise BlockingIOError
        return sent

    def sendall(self, data: Any, _flags: int = 0) -> None:
        backlog, self._backlog = self._backlog, b""
        super().sendall(backlog + self._encrypt(data))

    def send_last(self, data: bytes) -> None:
        """Send ``data`` and the end of the stream at once, and leave the socket open both ways."""
        self._backlog += self._encrypt(data)
        self._say_end()
        self.sendall(b"")

    def shutdown(self, _how: int) -> None:
        """Send the end; what the socket has not taken goes first, in a thread of its own if need be."""
        self._say_end()
        if not self._try_backlog():
            threading.Thread(target=self._finish, daemon=True).start()
        else:
            super().shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End in order, unless the socket was made to be reset at its close; what the socket has not taken
        goes first, in a thread of its own if need be."""
        if self.fileno() >= 0 and not self._is_closing:
            if struct.unpack("ii", self.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (0, 0):
                with suppress(OSError):
                    self._say_end()
                    if not self._try_backlog():
                        self._is_closing = True
                        threading.Thread(target=self._finish_and_close, daemon=True).start()
                        return
                    # A ticket that nobody has read would turn the end into a reset.
                    if self._is_ready(select.POLLIN):
                        super().recv(1 << 16)
            super().close()

    def _finish(self) -> None:
        with suppress(OSError):
            super().sendall(self._backlog)
            super().shutdown(socket.SHUT_WR)

    def _finish_and_close(self) -> None:
        self.settimeout(TIMEOUT_S)
        self._finish()
        super().close()

    def _say_end(self) -> None:
        if self._said_end:
            return
        self._said_end = True
        with self._lock:
            # With bytes still to be decrypted, OpenSSL would look among them for the other side's end.
            with suppress(ssl.SSLError):
                while data := self.tls.read(1 << 16):
                    self._early += data
            with suppress(ssl.SSLError):
                self.tls.unwrap()
            self._backlog += self._outgoing.read()

    def _encrypt(self, data: Any) -> bytes:
        with self._lock:
            if data:
                assert self.tls.write(data) == len(data)
            return self._outgoing.read()

    def _try_backlog(self) -> bool:
        # A socket of Python's that has a timeout waits even when the call says not to.
        if self._backlog and self._is_ready(select.POLLOUT):
            self._backlog = self._backlog[super().send(self._backlog) :]
        return not self._backlog

    def _is_ready(self, event: int) -> bool:
        poll = select.poll()
        poll.register(self, event)
        return bool(poll.poll(0))


class TlsServer(TlsClient):
    """What a backend has of a connection in TLS."""

    def _wrap(self, context: ssl.SSLContext, _server_name: str | None) -> ssl.SSLObject:
        return context.wrap_bio(self._incoming, self._outgoing, server_side=True)


@contextmanager
def tls_client(
    address: tuple[str, int], context: ssl.SSLContext, server_name: str | None = NAME
) -> Iterator[TlsClient]:
    client = TlsClient(connected(address), context, server_name)
    try:
        yield client
    finally:
        client.close()


def key_pair(pki: Pki, folder: Path, *names: str) -> KeyPair:
    """What ``pki`` issued, as the control process hands it to workers."""
    return identity(pki, folder, *names).pairs[0]


def backend_tls(start: Start, pki: Pki, pair: KeyPair | None = None, **terms: str) -> Start:
    """``start`` with all backends spoken to in TLS, on these ``terms``; ``pki`` issues their certificates."""
    named = BackendTls(**terms)
    credentials = BackendCredentials(named, pki.authority, pair)
    tls = msgspec.structs.replace(start.tls or TlsSettings(), backends=(credentials,))
    rules = tuple(msgspec.structs.replace(each, tls=named) for each in start.backend_rules)
    return msgspec.structs.replace(start, backend_rules=rules or (BackendRule(tls=named),), tls=tls)


def identity(pki: Pki, folder: Path, *names: str, rsa: bool = False) -> Identity:
    """A certificate of ``pki`` as the control process hands it to workers."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    pki.issue(certificate, key, *names, rsa=rsa)
    pair = KeyPair("rsa" if rsa else "ec", certificate.read_bytes(), key.read_bytes())
    return Identity(tuple(sorted(names)), (pair,))


def tls_frame(
    *identities: Identity,
    listening: Listening | None = None,
    alpn: tuple[str, ...] = (),
    handshake_timeout_s: float = 10.0,
    max_handshakes: int = 1024,
    client_certificates: ClientCertificates | None = None,
    **others: Any,
) -> Start:
    """Settings of a plane that terminates TLS."""
    tls = TlsSettings(
        identities=identities,
        alpn=alpn,
        handshake_timeout_s=handshake_timeout_s,
        max_handshakes=max_handshakes,
        client_certificates=client_certificates,
    )
    settings = start_frame(listening=listening or Listening(terminates_tls=True), **others)
    return msgspec.structs.replace(settings, tls=tls)
