"""The certificate of the API, renewed without a restart: when its files change, or name others."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any, Final, Protocol

from edgeproxy.errors import ConfigError

INTERVAL_S: Final = 1.0
"""How often it is looked whether the files changed."""


class Log(Protocol):
    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class ApiTls:
    """A server's TLS whose certificate can be replaced. Handshakes that have begun end with the old one."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Load the certificate.

        Raises:
            ConfigError: certificate or key cannot be used.
        """
        self.context = check_certificate(certificate, key)
        self._files = certificate, key
        self._seen = self._stamps()

    def change_files(self, certificate: Path, key: Path) -> None:
        """Show the certificate in these files from now on; they were checked.

        Raises:
            ConfigError: they cannot be used any more.
        """
        self._files = certificate, key
        self._seen = self._stamps()
        _load(self.context, certificate, key)

    async def watch(self, log: Log) -> None:
        """Follow the files until cancelled. While they hold nothing usable, the old certificate stays."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            if (seen := self._stamps()) == self._seen:
                continue
            self._seen = seen
            try:
                # Tried apart: a key that does not fit would break the context that is in use.
                check_certificate(*self._files)
                _load(self.context, *self._files)
            except ConfigError as error:
                log.warning("keeping the certificate of the API", why=str(error))
            else:
                log.info("certificate of the API replaced", file=str(self._files[0]))

    def _stamps(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in self._files)


def check_certificate(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context of a server that shows this certificate.

    Raises:
        ConfigError: certificate or key cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)  # feature: api.tls
    _load(context, certificate, key)
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        # The pass phrase keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:  # SSLError is one
        why = getattr(error, "reason", None) or error.strerror
        problem = (
            f"EDGEPROXY_API_TLS_CERT {certificate} and EDGEPROXY_API_TLS_KEY {key} cannot be used "
            f"({why}); both are PEM files, the key without a pass phrase"
        )
        raise ConfigError([problem]) from error


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
