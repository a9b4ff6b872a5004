"""A side of the relay whose socket carries TLS.

To the relay it looks like a socket: it is read and sent plaintext. All connections of a worker share one
pair of memory buffers between OpenSSL and the sockets, since a pair of its own would keep for each connection
as much memory as its largest read took. The pair is empty between any two calls: what a call leaves in it is
taken back before the call returns, however it returns, or else it would go to another client.

What the socket does not take stays with the connection, and the relay is told that so many bytes of its
plaintext are not sent yet; it keeps them and comes again, which is how back-pressure passes through.

An end of the stream is a ``close_notify``. A socket that ends without one was cut off, by whomever, and that
counts as a reset; only who was told the end first may leave without a word, as most do.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable
from sys import intern
from typing import cast

from edgeproxy.core.dataplane.client_tls import ClientTls, subject_of
from edgeproxy.worker.relay_copy import UNKNOWN, CopyRelay, Owner, Side
from edgeproxy.worker.tls_farewell import Farewells

_CIPHERTEXT_BYTES = 256 << 10
_HANDSHAKE_READ_BYTES = 16 << 10
_NO_WAIT = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_BEHIND = select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLHUP
_INPUT = select.EPOLLIN | _BEHIND


class ServerTls(ssl.SSLObject):
    """The TLS of one client; contexts make it (``SSLContext.sslobject_class``)."""

    asked_name: str | None = None
    """The server name that the client asks for, in lower case, from its hello on."""


class BioPair:
    """What all TLS connections of a worker share."""

    def __init__(self, farewells: Farewells) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.ciphertext = memoryview(bytearray(_CIPHERTEXT_BYTES))
        """Where sockets are read into; empty between two calls."""
        self.farewells = farewells


class TlsSide(Side):
    """A side that speaks TLS: a client's that ends here, or a backend's that begins here."""

    __slots__ = (
        "_bios", "_early", "_has_more", "_is_dry", "_is_hasty", "_left", "_promised", "_read", "_said_end",
        "_saw_end", "_tls", "_unsent",
    )  # fmt: skip

    def __init__(
        self, sock: socket.socket, owner: Owner, relay: CopyRelay, bios: BioPair, tls: ssl.SSLObject
    ) -> None:
        """``tls`` reads and writes the buffers of ``bios``."""
        super().__init__(sock, owner, relay)
        self.stream = self
        self._bios = bios
        self._tls = tls
        # Given a buffer it returns a count, which its type does not say.
        self._read = cast("Callable[[int, memoryview], int]", tls.read)
        self._left: bytes | None = None
        """Ciphertext that was read and not decrypted."""
        self._has_more = False
        """There may be plaintext without another read of the socket."""
        self._early = b""
        """Plaintext that had to be decrypted before it was asked for."""
        self._unsent: bytes | None = None
        """Ciphertext that the socket has not taken."""
        self._promised = 0
        """Plaintext in ``_unsent`` that the relay holds for unsent, and will offer again."""
        self._is_hasty = False
        """A read that does not fill the buffer is taken to have emptied the socket."""
        self._is_dry = False
        """The socket was emptied, and no event has come since."""
        self._said_end = False
        self._saw_end = False

    # ---- handshake ---------------------------------------------------------------------------

    def say_hello(self) -> None:
        """Begin the handshake, on the side that does."""
        try:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
        finally:
            self._take_back()

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as the peer's bytes reach; True when it is complete.

        Raises:
            OSError: the socket ended or was reset, or what came is no acceptable TLS, which the peer has
                been told as well as that goes.
        """
        bios, tls = self._bios, self._tls
        self._flush()
        try:
            while True:
                try:
                    received = self.sock.recv_into(bios.ciphertext, _HANDSHAKE_READ_BYTES, _NO_WAIT)
                except BlockingIOError:
                    return False
                if not received:
                    raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "it left during the handshake")
                bios.incoming.write(bios.ciphertext[:received])
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                    return True
                self._take_back()
        finally:
            # The peer waits for what stands there now, unless these are tickets of TLS 1.3.
            self._take_back()

    # ---- what the loop and the relay call ----------------------------------------------------

    def ready(self, events: int) -> None:
        self._is_dry = False
        if events & select.EPOLLERR:
            self._is_hasty = False
            super().ready(events)
            return
        self._is_hasty = not events & _BEHIND
        if events & select.EPOLLOUT:
            if self.kept is not None:
                self.relay.flush(self)
            elif self._unsent is not None:
                with contextlib.suppress(OSError):  # the loop tells of a reset by itself
                    self._flush()
        # How much plaintext there is says nothing of the socket: the relay reads until that is emptied.
        if events & _INPUT and self.peer is not None and not self.ended:
            self.relay.pump(self, UNKNOWN)

    def resume(self) -> None:
        self._is_dry = self._is_hasty = False
        super().resume()

    def end(self) -> None:
        """Tell the peer that no more will come; it may go on sending."""
        self._said_end = True
        tls, pending = self._tls, self._tls.pending()
        if pending:
            # OpenSSL looks for the peer's own end now, and takes bytes before that for a violation.
            self._early += tls.read(pending)
        try:
            with contextlib.suppress(ssl.SSLError):
                tls.unwrap()
        finally:
            self._take_back()
        if self._unsent is None:
            super().end()

    def must_linger(self) -> bool:
        if not self._said_end:
            self.end()
        if self._unsent is None:
            return False
        self._bios.farewells.begin(self.sock, self._unsent)
        return True

    # ---- reading -----------------------------------------------------------------------------

    def recv_into(self, buffer: memoryview, size: int, flags: int) -> int:
        """As ``socket.recv_into``; returns 0 at the peer's ``close_notify``.

        Raises:
            BlockingIOError: nothing more for now.
            OSError: the peer was reset, cut off, or broke the protocol.
        """
        if self._early:
            return self._read_early(buffer, size)
        bios, read = self._bios, self._read
        incoming = bios.incoming
        received = 0
        try:
            if self._left is not None:
                incoming.write(self._left)
                self._left = None
            while not self._saw_end:
                if self._has_more:
                    self._has_more = False
                elif self._is_dry:
                    raise BlockingIOError
                else:
                    self._receive(size, flags)
                try:
                    while received < size:
                        count = read(size - received, buffer[received:])
                        if not count:
                            self._saw_end = True
                            break
                        received += count
                        if not incoming.pending:
                            break
                    else:
                        self._has_more = True
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLZeroReturnError:
                    self._saw_end = True
                if received:
                    break
            self.is_emptied = self._is_dry and not self._saw_end
            return received
        finally:
            self._take_back()

    def _receive(self, size: int, flags: int) -> None:
        """Move what the socket has, at most ``size`` bytes, to where it is decrypted."""
        bios = self._bios
        received = self.sock.recv_into(bios.ciphertext, size, flags)
        if received:
            bios.incoming.write(bios.ciphertext[:received])
            self._is_dry = self._is_hasty and received < size
        elif self._said_end:
            self._saw_end = True
        else:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the stream was cut off")

    def _read_early(self, buffer: memoryview, size: int) -> int:
        self.is_emptied = False
        part, self._early = self._early[:size], self._early[size:]
        buffer[: len(part)] = part
        return len(part)

    def _take_back(self) -> None:
        """Leave nothing of this connection in the buffers that others use."""
        bios = self._bios
        if bios.incoming.pending:
            self._left = bios.incoming.read()
            self._has_more = True
        if bios.outgoing.pending:
            answer = bios.outgoing.read()
            if self._unsent is not None:
                self._unsent += answer
                return
            self._unsent = answer
            with contextlib.suppress(OSError):  # the loop tells of a reset by itself
                self._flush()

    # ---- sending -----------------------------------------------------------------------------

    def send(self, data: memoryview, flags: int) -> int:
        """As ``socket.send``: returns how much of ``data`` is on its way, the rest is to be offered again.

        Raises:
            BlockingIOError: nothing of it, for now.
            OSError: the peer was reset.
        """
        if self._unsent is not None:
            if not self._flush():
                return self._progress()
            if self._promised:
                taken, self._promised = self._promised, 0
                return taken
        outgoing = self._bios.outgoing
        try:
            self._tls.write(data)
        finally:
            ciphertext = outgoing.read()
        try:
            sent = self.sock.send(ciphertext, flags)
        except BlockingIOError:
            sent = 0
        if sent == len(ciphertext):
            return len(data)
        self._unsent = ciphertext[sent:]
        self._promised = len(data)
        return self._progress()

    def _progress(self) -> int:
        """How much more of what was promised has gone. Ciphertext is the longer of the two, so while some of
        it waits, at most as much plaintext does."""
        assert self._unsent is not None
        waiting = min(self._promised, len(self._unsent))
        taken, self._promised = self._promised - waiting, waiting
        if not taken:
            raise BlockingIOError
        return taken

    def _flush(self) -> bool:
        """Send ciphertext that waits; whether none is left.

        Raises:
            OSError: the peer was reset.
        """
        unsent = self._unsent
        if unsent is None:
            return True
        try:
            sent = self.sock.send(unsent, _NO_WAIT)
        except BlockingIOError:
            return False
        if sent < len(unsent):
            self._unsent = unsent[sent:]
            return False
        self._unsent = None
        if self._said_end:
            super().end()
        return True


class ClientSide(TlsSide):
    """The client's side of a connection whose TLS ends here."""

    __slots__ = ("_client_tls",)

    def __init__(
        self, sock: socket.socket, owner: Owner, relay: CopyRelay, bios: BioPair, tls: ServerTls
    ) -> None:
        super().__init__(sock, owner, relay, bios, tls)
        self._client_tls: ClientTls | None = None

    def shake_hands(self) -> bool:
        is_complete = super().shake_hands()
        if is_complete:
            # Not later: OpenSSL forgets it when the peer breaks the protocol.
            self._client_tls = _client_tls(self._tls)
        return is_complete

    def client_tls(self) -> ClientTls | None:
        """What is known of the client by its TLS, once the handshake is complete."""
        return self._client_tls


def _client_tls(tls: ssl.SSLObject) -> ClientTls:
    version, cipher, certificate = tls.version(), tls.cipher(), tls.getpeercert()
    assert isinstance(tls, ServerTls)
    assert version is not None
    assert cipher is not None
    return ClientTls(
        version=intern(version),
        cipher=intern(cipher[0]),
        server_name=tls.asked_name,
        protocol=tls.selected_alpn_protocol(),
        subject=subject_of(certificate) if certificate else None,
        is_resumed=bool(tls.session_reused),
    )
