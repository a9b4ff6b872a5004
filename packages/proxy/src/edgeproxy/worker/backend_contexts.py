"""How this worker speaks TLS to backends: whom it trusts, what it shows them, and what they agreed on before.

Certificates are always verified, and for the name that is expected; nothing turns that off. A context is made
when a worker starts, or when files change, and not while a client waits: one that trusts the system's
authorities takes 20 ms and 0.8 MiB.

The session of a connection that has ended is offered to the same backend again, which spares both the costly
part of the handshake. In that part certificates are verified, so a session is offered for an hour after that,
however often it was renewed in between, and never in a context other than that which it was begun in.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

from edgeproxy.core.dataplane.backend_rules import BackendTls
from edgeproxy.core.dataplane.identities import BackendCredentials
from edgeproxy.worker.certificates import load_pair
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.relay_copy import CopyRelay, Owner
from edgeproxy.worker.tls_side import BioPair, TlsSide

_Key = tuple[BackendTls, str | None]

SESSION_S = 3_600.0
"""How long after a certificate was verified a session may be begun without."""
_SESSIONS_KEPT = 256
"""By one worker. Each has the chain of certificates in it: some KiB."""


class ToBackend(ssl.SSLObject):
    """The TLS of one connection with a backend; contexts make it (``SSLContext.sslobject_class``)."""

    agreement: tuple[_Key, str]
    """With whom, and on which terms."""
    verified_s: float
    """When the certificate was, of the session that is offered, or else of this one."""


class BackendContexts:
    """One context for each set of terms and each protocol that a client may have agreed on."""

    def __init__(self, loop: Loop, alpn: Sequence[str], credentials: Sequence[BackendCredentials]) -> None:
        """``alpn``: what clients may have agreed on."""
        self._loop = loop
        self._credentials = {each.terms: each for each in credentials}
        self._contexts: dict[_Key, ssl.SSLContext] = {}
        self._sessions: dict[tuple[_Key, str], tuple[ssl.SSLSession, float]] = {}
        """With when the certificate was verified; who was kept last comes last."""
        self._outdated: list[_Key] = []
        for terms in self._credentials:
            for protocol in (None, *alpn):
                self._make((terms, protocol))

    def wrap(self, bios: BioPair, terms: BackendTls, host: str, protocol: str | None) -> ToBackend:
        """The TLS of a new connection, on the buffers of ``bios``, that has yet to shake hands.

        The backend is asked for ``protocol``, so that both ends of the connection speak the same.

        Raises:
            ValueError: the name that ``terms`` or ``host`` give is none, or their files cannot be used.
        """
        # What a reload of the settings brought is made when it is first needed.
        key = terms, protocol
        context = self._contexts.get(key) or self._make(key)
        now_s = self._loop.now_s
        session, verified_s = self._sessions.get((key, host), (None, now_s))
        if now_s - verified_s > SESSION_S:
            session, verified_s = None, now_s
        tls = context.wrap_bio(
            bios.incoming, bios.outgoing, server_hostname=terms.server_name or host, session=session
        )
        assert isinstance(tls, ToBackend)
        tls.agreement, tls.verified_s = (key, host), verified_s
        return tls

    def keep(self, tls: ToBackend) -> None:
        """Offer the session of ``tls``, whose handshake was complete, the next time; if that makes sense."""
        key, _ = tls.agreement
        session = tls.session
        if session is None or not session.has_ticket or self._contexts.get(key) is not tls.context:
            return
        self._sessions.pop(tls.agreement, None)
        self._sessions[tls.agreement] = session, tls.verified_s
        if len(self._sessions) > _SESSIONS_KEPT:
            del self._sessions[next(iter(self._sessions))]

    def change(self, credentials: Sequence[BackendCredentials]) -> None:
        """Use these from now on. Of contexts that were in use, one is made anew in each turn of the loop."""
        before, self._credentials = self._credentials, {each.terms: each for each in credentials}
        self._contexts = {key: each for key, each in self._contexts.items() if key[0] in self._credentials}
        self._outdated = [key for key in self._contexts if before[key[0]] != self._credentials[key[0]]]
        self._loop.again(self)

    def resume(self) -> None:
        """Make one more (:class:`~edgeproxy.worker.loop.Resumable`)."""
        if self._outdated:
            self._make(self._outdated.pop())
            self._loop.again(self)

    def _make(self, key: _Key) -> ssl.SSLContext:
        terms, protocol = key
        credentials = self._credentials.get(terms)
        if credentials is None:
            raise ValueError("the files that its rule names cannot be used")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.sslobject_class = ToBackend
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if credentials.authorities is None:
            context.set_default_verify_paths()
        else:
            context.load_verify_locations(cadata=credentials.authorities.decode("ascii"))
        if credentials.pair is not None:
            load_pair(context, credentials.pair)
        if protocol is not None:
            context.set_alpn_protocols([protocol])
        self._contexts[key] = context
        self._sessions = {each: kept for each, kept in self._sessions.items() if each[0] != key}
        return context


class BackendSide(TlsSide):
    """A backend's side of a connection whose TLS begins here."""

    __slots__ = ("_contexts", "_is_secured", "_to_backend")

    def __init__(
        self,
        sock: socket.socket,
        owner: Owner,
        relay: CopyRelay,
        bios: BioPair,
        tls: ToBackend,
        contexts: BackendContexts,
    ) -> None:
        super().__init__(sock, owner, relay, bios, tls)
        self._contexts = contexts
        self._to_backend = tls
        self._is_secured = False

    def shake_hands(self) -> bool:
        self._is_secured = super().shake_hands()
        return self._is_secured

    def detach(self) -> None:
        # Not before: tickets of TLS 1.3 come when the backend likes, behind the handshake.
        if self._is_secured:
            self._contexts.keep(self._to_backend)
        super().detach()
