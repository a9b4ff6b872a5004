"""Every error that ends a command, with its exit code.

::

    EdgeproxyError              exit 1   something outside went wrong
    ├── ConfigError             exit 2   what the user wrote is wrong; lists every problem at once
    ├── StoreError              exit 3   the routing database cannot be used
    │   └── DamagedStoreError            its content is no database, or no longer one
    ├── GeoDatabaseError        exit 4   the country database cannot be used
    └── ListenError             exit 5   an address cannot be listened on

Expected outcomes ("no eligible backend") are return values, never errors. Each message names the
thing and the remedy in one line; adapters translate foreign exceptions into these at the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class EdgeproxyError(Exception):
    """Base of all; its text is shown to the user as it is."""

    exit_code: ClassVar[int] = 1


class ConfigError(EdgeproxyError):
    """Wrong settings. ``problems`` holds one line for each, all found in one go."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class StoreError(EdgeproxyError):
    """The routing database is missing, unreadable, locked, corrupt or refuses a write."""

    exit_code = 3


class DamagedStoreError(StoreError):
    """What is stored cannot be read, now or later: it can only be replaced."""


class GeoDatabaseError(EdgeproxyError):
    """The country database is missing, unreadable, corrupt or of another kind."""

    exit_code = 4


class ListenError(EdgeproxyError):
    """The listening address is taken, not ours or not allowed."""

    exit_code = 5


def tls_failure(error: Exception) -> str:
    """Why TLS did not come about, for people, from what the ``ssl`` module or a socket raised."""
    if verdict := getattr(error, "verify_message", None):  # of a certificate
        return f"its certificate is not accepted: {verdict}"
    if reason := getattr(error, "reason", None):  # OpenSSL's own word
        return str(reason).lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)
