"""The certificates of one worker, chosen by the server name that a client asks for.

Each identity has a context. A renewed certificate is loaded into the context that is in use, which keeps
the keys of session tickets, so that clients can resume; only a context that would keep a certificate of a
kind that is gone is made anew. The control process has tried every certificate and key before they come
here: one that does not fit would break its context for all.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from typing import cast

from edgeproxy.core.dataplane.identities import ClientCertificates, Identity, KeyPair, NameTable
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.tls_side import BioPair, ServerTls


class Certificates:
    """Makes the TLS of clients; changes under way never concern one that has begun."""

    def __init__(
        self,
        loop: Loop,
        alpn: Sequence[str],
        identities: Sequence[Identity],
        client_certificates: ClientCertificates | None = None,
    ) -> None:
        """``identities``: the first is for clients that ask for no name, or an unknown one; none when no
        client comes."""
        self._loop = loop
        self._alpn = list(alpn)
        self._client_certificates = client_certificates
        self._wanted: list[Identity] = []
        self._target = identities
        self._held: dict[tuple[str, ...], tuple[Identity, ssl.SSLContext]] = {}
        self._names = NameTable[ssl.SSLContext]()
        for identity in identities:
            self._hold(identity)
        if identities:
            self._serve(identities)

    def wrap(self, bios: BioPair) -> ServerTls:
        """The TLS of a new client, on the buffers of ``bios``."""
        return cast(ServerTls, self._default.wrap_bio(bios.incoming, bios.outgoing, server_side=True))

    def offer(self, alpn: Sequence[str]) -> None:
        """Offer these application protocols from now on, the favourite first."""
        self._alpn = list(alpn)
        for _, context in self._held.values():
            context.set_alpn_protocols(self._alpn)

    def change(
        self, identities: Sequence[Identity], client_certificates: ClientCertificates | None = None
    ) -> None:
        """Serve by these from now on. One is loaded in each turn of the loop, which takes a millisecond.

        Other authorities for clients make all contexts anew, so that no session is resumed that was begun
        with a certificate of one that is gone.
        """
        if client_certificates != self._client_certificates:
            self._client_certificates = client_certificates
            self._held = {}  # what clients are served by goes on until all others are made
        self._target = identities  # feature: tls.certificates
        self._wanted = [each for each in identities if not self._holds(each)]
        self._loop.again(self)

    def resume(self) -> None:
        """Load one more (:class:`~edgeproxy.worker.loop.Resumable`)."""
        if self._wanted:
            self._hold(self._wanted.pop())
            self._loop.again(self)
        elif self._target:
            self._serve(self._target)

    def _holds(self, identity: Identity) -> bool:
        held = self._held.get(identity.names)
        return held is not None and held[0] == identity

    def _hold(self, identity: Identity) -> None:
        held = self._held.get(identity.names)
        is_kept = held is not None and held[0].kinds <= identity.kinds
        context = held[1] if held is not None and is_kept else self._new_context()
        for pair in identity.pairs:
            load_pair(context, pair)
        self._held[identity.names] = identity, context

    def _serve(self, identities: Sequence[Identity]) -> None:
        self._held = {each.names: self._held[each.names] for each in identities}
        self._default = self._held[identities[0].names][1]
        names: NameTable[ssl.SSLContext] = NameTable()
        for each in identities:
            names.add(each.names, self._held[each.names][1])
        self._names = names

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.num_tickets = 1
        context.sslobject_class = ServerTls
        context.sni_callback = self._choose  # type: ignore[assignment]
        if (accepted := self._client_certificates) is not None:
            context.verify_mode = ssl.CERT_REQUIRED if accepted.required else ssl.CERT_OPTIONAL
            authorities = accepted.authorities.decode("ascii")
            context.load_verify_locations(cadata=authorities)  # feature: tls.client_certificates
        if self._alpn:
            context.set_alpn_protocols(self._alpn)
        return context

    def _choose(self, tls: ServerTls, name: str | None, _context: ssl.SSLContext) -> None:
        """The client's hello is read. Whatever is raised here is lost, so nothing may be."""
        if name is None:
            return
        tls.asked_name = name = name.lower().rstrip(".")
        context = self._names.get(name)
        if context is not None:
            tls.context = context


def load_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Load chain and key, which OpenSSL takes from files only: from one in memory."""
    pem = pair.chain + b"\n" + pair.key
    fd = os.memfd_create("edgeproxy-key", os.MFD_CLOEXEC)
    try:
        view = memoryview(pem)
        while view:
            view = view[os.write(fd, view) :]
        context.load_cert_chain(f"/proc/self/fd/{fd}", password="")
    finally:
        os.close(fd)
