"""How this worker speaks TLS to backends: whom it trusts, and what it shows them.

Certificates are always verified, and for the name that is expected; nothing turns that off. A context is made
when a worker starts, or when files change, and not while a client waits: one that trusts the system's
authorities takes 20 ms and 0.8 MiB.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from edgeproxy.core.dataplane.backend_rules import BackendTls
from edgeproxy.core.dataplane.identities import BackendCredentials
from edgeproxy.worker.certificates import load_pair
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.tls_side import BioPair

_Key = tuple[BackendTls, str | None]


class BackendContexts:
    """One context for each set of terms and each protocol that a client may have agreed on."""

    def __init__(self, loop: Loop, alpn: Sequence[str], credentials: Sequence[BackendCredentials]) -> None:
        """``alpn``: what clients may have agreed on."""
        self._loop = loop
        self._credentials = {each.terms: each for each in credentials}
        self._contexts: dict[_Key, ssl.SSLContext] = {}
        self._outdated: list[_Key] = []
        for terms in self._credentials:
            for protocol in (None, *alpn):
                self._make((terms, protocol))

    def wrap(self, bios: BioPair, terms: BackendTls, host: str, protocol: str | None) -> ssl.SSLObject:
        """The TLS of a new connection, on the buffers of ``bios``, that has yet to shake hands.

        The backend is asked for ``protocol``, so that both ends of the connection speak the same.

        Raises:
            ValueError: the name that ``terms`` or ``host`` give is none, or their files cannot be used.
        """
        # What a reload of the settings brought is made when it is first needed.
        context = self._contexts.get((terms, protocol)) or self._make((terms, protocol))
        return context.wrap_bio(bios.incoming, bios.outgoing, server_hostname=terms.server_name or host)

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
        return context
