"""All TLS of one worker: with clients, where it ends here, and with backends, where it begins again."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Protocol

from edgeproxy.core.dataplane.backend_rules import BackendTls
from edgeproxy.core.wire.frames import TlsSettings
from edgeproxy.errors import tls_failure
from edgeproxy.worker import relay_copy
from edgeproxy.worker.backend_contexts import BackendContexts, BackendSide
from edgeproxy.worker.certificates import Certificates
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.relay_copy import CopyRelay
from edgeproxy.worker.tls_farewell import Farewells
from edgeproxy.worker.tls_handshakes import Handshakes
from edgeproxy.worker.tls_side import BioPair, ClientSide, TlsSide


class Owner(relay_copy.Owner, Protocol):
    """Whose handshakes they are. Of each one outcome is told, unless it is discarded."""

    def secured(self, side: TlsSide) -> None:
        """TLS with the client stands; bytes may stand behind the handshake."""
        ...

    def handshake_failed(self, is_certificate: bool) -> None:
        """The client left, or speaks no TLS that we take, or its certificate is missing or not accepted."""
        ...

    def handshake_timed_out(self) -> None: ...

    def backend_secured(self, side: TlsSide) -> None:
        """TLS with the backend stands; bytes may stand behind the handshake."""
        ...

    def backend_not_secured(self, why: str) -> None:
        """It has not come about."""
        ...


class WorkerTls:
    """Who shows what to whom, and all handshakes under way."""

    def __init__(
        self,
        loop: Loop,
        relay: CopyRelay,
        settings: TlsSettings,
        on_defect: Callable[[object, Exception], None],
        on_farewell: Callable[[], None],
    ) -> None:
        """``on_defect`` as the loop's; ``on_farewell`` is called when a connection's last words are over."""
        self._relay = relay
        self.farewells = Farewells(loop, on_farewell)
        self._bios = BioPair(self.farewells)
        self.certificates = Certificates(
            loop, settings.alpn, settings.identities, settings.client_certificates
        )
        self.backends = BackendContexts(loop, settings.alpn, settings.backends)
        self._with_clients: Handshakes[Owner] = Handshakes(
            loop,
            secured=lambda owner, side: owner.secured(side),
            failed=lambda owner, error: owner.handshake_failed(_is_about_certificate(error)),
            timed_out=lambda owner: owner.handshake_timed_out(),
            timeout_s=settings.handshake_timeout_s,
            limit=settings.max_handshakes,
            on_defect=on_defect,
        )
        # No limit: there is at most one for each client that was let in.
        self._with_backends: Handshakes[Owner] = Handshakes(
            loop,
            secured=lambda owner, side: owner.backend_secured(side),
            failed=lambda owner, error: owner.backend_not_secured(tls_failure(error)),
            timed_out=lambda owner: owner.backend_not_secured("no handshake in time"),
            timeout_s=settings.handshake_timeout_s,
            limit=None,
            on_defect=on_defect,
        )

    def change(self, settings: TlsSettings) -> None:
        """Go by these from now on; handshakes under way go on as they began."""
        self._with_clients.change_limits(settings.handshake_timeout_s, settings.max_handshakes)
        self._with_backends.change_limits(settings.handshake_timeout_s, None)
        self.certificates.offer(settings.alpn)
        self.certificates.change(settings.identities, settings.client_certificates)
        self.backends.change(settings.backends)

    def accept(self, owner: Owner, sock: socket.socket) -> bool:
        """Shake hands with the client on ``sock``, which is registered; False when too many are at it."""
        return self._with_clients.begin(owner, sock, partial(self._client_side, owner, sock))

    def initiate(
        self, owner: Owner, sock: socket.socket, terms: BackendTls, host: str, protocol: str | None
    ) -> None:
        """Shake hands with the backend on ``sock``, which is registered and connected.

        ``host`` is its name when ``terms`` give none; ``protocol`` is what the client agreed on.
        """
        make_side = partial(self._backend_side, owner, sock, terms, host, protocol)
        self._with_backends.begin(owner, sock, make_side, speaks_first=True)  # feature: tls.backends

    def discard(self, owner: Owner) -> None:
        """Forget the owner's handshake, if one is under way."""
        self._with_clients.discard(owner)
        self._with_backends.discard(owner)

    def _client_side(self, owner: Owner, sock: socket.socket) -> TlsSide:
        return ClientSide(sock, owner, self._relay, self._bios, self.certificates.wrap(self._bios))

    def _backend_side(
        self, owner: Owner, sock: socket.socket, terms: BackendTls, host: str, protocol: str | None
    ) -> TlsSide:
        tls = self.backends.wrap(self._bios, terms, host, protocol)
        return BackendSide(sock, owner, self._relay, self._bios, tls, self.backends)


def _is_about_certificate(error: Exception) -> bool:
    is_refused = isinstance(error, ssl.SSLCertVerificationError)
    return is_refused or getattr(error, "reason", None) == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
