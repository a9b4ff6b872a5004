"""What the rules for backends name for TLS: authorities, and certificates to show; read and tried out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.core.dataplane.backend_rules import BackendRule, BackendTls
from edgeproxy.core.dataplane.identities import BackendCredentials

if TYPE_CHECKING:
    import ssl


class LoadedCredentials(msgspec.Struct, frozen=True):
    """What the files hold."""

    credentials: tuple[BackendCredentials, ...]
    problems: tuple[str, ...]
    """One line for each file or pair that cannot be used."""
    warnings: tuple[str, ...]
    is_usable: bool
    """Whether there is something for each of the rules."""


class BackendCredentialFiles:
    """The files of all rules with TLS."""

    def __init__(self, rules: Iterable[BackendRule]) -> None:
        self._terms = tuple(dict.fromkeys(rule.tls for rule in rules if rule.tls is not None))
        self._last_good: dict[BackendTls, BackendCredentials] = {}
        self.contexts: dict[BackendTls, ssl.SSLContext] = {}
        """How this process itself speaks to such backends; follows the files at each load."""

    def signature(self) -> object:
        """Changes whenever a file does."""
        if not self._terms:
            return []
        from edgeproxy.outbound.certificates_files import file_state

        paths = [Path(name) for each in self._terms for name in (each.ca, each.certificate, each.key) if name]
        return [(path, file_state(path)) for path in paths]

    def load(self) -> LoadedCredentials:
        """Read all files. In place of what cannot be used any more its last usable state goes on."""
        if not self._terms:
            return LoadedCredentials((), (), (), is_usable=True)
        # Imports that take a tenth of a second, which only those pay who have such rules.
        from edgeproxy.outbound.certificates_files import UnusableError, read_authorities, read_pair

        problems: list[str] = []
        warnings: list[str] = []
        for terms in self._terms:
            try:
                authorities = read_authorities(Path(terms.ca)) if terms.ca else None
                pair = warning = None
                if terms.certificate:
                    _, pair, warning = read_pair(Path(terms.certificate), Path(terms.key))
                context = _context(terms, authorities)
            except UnusableError as error:
                problems.append(str(error))
            else:
                self.contexts[terms] = context
                self._last_good[terms] = BackendCredentials(terms, authorities, pair)
                warnings += [warning] if warning else []
        return LoadedCredentials(
            tuple(self._last_good[terms] for terms in self._terms if terms in self._last_good),
            tuple(problems),
            tuple(warnings),
            is_usable=self._last_good.keys() >= set(self._terms),
        )


def _context(terms: BackendTls, authorities: bytes | None) -> ssl.SSLContext:
    import ssl  # only who has such rules needs it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities is None:
        context.set_default_verify_paths()
    else:
        context.load_verify_locations(cadata=authorities.decode("ascii"))
    if terms.certificate:
        context.load_cert_chain(terms.certificate, terms.key, password="")
    return context
