"""What this proxy can prove to be, and which of it a client that asks for a name is shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import msgspec

from edgeproxy.core.dataplane.backend_rules import BackendTls

T = TypeVar("T")


class KeyPair(msgspec.Struct, frozen=True, array_like=True):
    """A certificate chain and its private key, both PEM. Its text never shows the key."""

    kind: str
    """Of the key: ``ec``, ``rsa`` …; a context holds one certificate of each kind."""
    chain: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"KeyPair(kind={self.kind!r})"


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Certificates for the same names, one of each kind of key."""

    names: tuple[str, ...]
    """In lower case and sorted, perhaps with ``*`` for the first label; none for a bare certificate."""
    pairs: tuple[KeyPair, ...]

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(pair.kind for pair in self.pairs)


class ClientCertificates(msgspec.Struct, frozen=True, array_like=True):
    """Which certificates of clients are accepted."""

    authorities: bytes
    """PEM of whom they may be issued by."""
    required: bool
    """Whether a client without one is refused."""


class BackendCredentials(msgspec.Struct, frozen=True, array_like=True):
    """What the files say that :class:`~edgeproxy.core.dataplane.backend_rules.BackendTls` names."""

    terms: BackendTls
    authorities: bytes | None
    """PEM of whom certificates may be issued by; ``None`` for whom the system trusts."""
    pair: KeyPair | None
    """What is shown to backends that ask."""


class NameTable(Generic[T]):
    """Values by server name: the name itself first, then ``*.`` and the rest behind its first dot."""

    def __init__(self) -> None:
        self._by_name: dict[str, T] = {}

    def add(self, names: Iterable[str], value: T) -> None:
        """``value`` is for these names, unless an earlier one is."""
        for name in names:
            self._by_name.setdefault(name, value)

    def get(self, server_name: str) -> T | None:
        """What is for ``server_name``, in lower case; ``None`` when nothing is."""
        value = self._by_name.get(server_name)
        if value is None:
            value = self._by_name.get(f"*.{server_name.partition('.')[2]}")
        return value
