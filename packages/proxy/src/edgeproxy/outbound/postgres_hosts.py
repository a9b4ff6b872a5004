"""The servers that a URL of PostgreSQL names, tried one after the other, each with its own time limit.

``postgresql://user:password@db-1,db-2:5433/edge`` names two. Unless the URL says otherwise
(``target_session_attrs``), the one that takes writes is looked for, so that after a failover the promoted
replica is found. The driver would do that, too, but with one time limit for all: a first host that swallows
packets would keep it from ever reaching the second.
"""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from edgeproxy.errors import ConfigError, StoreError

APPLICATION_NAME = "edgeproxy"


class PostgresSettings(NamedTuple):
    """How to reach the database, and for how long to wait for what."""

    url: str
    """Holds the password: never to be shown."""
    min_connections: int
    max_connections: int
    connect_timeout_s: float
    query_timeout_s: float
    reload_s: float


class PostgresHosts:
    """Where the database is; as text, without user and password."""

    def __init__(self, settings: PostgresSettings) -> None:
        """
        Raises:
            ConfigError: the URL has a shape that no host can be read from.
        """
        self._settings = settings
        parts = urlsplit(settings.url)
        user, at, hosts = parts.netloc.rpartition("@")
        self._urls = {host: urlunsplit(parts._replace(netloc=user + at + host)) for host in hosts.split(",")}
        self._wants_writable = "target_session_attrs" not in parse_qs(parts.query)
        self._text = f"postgresql://{hosts}{parts.path}"

    def __str__(self) -> str:
        return self._text

    async def connect(self) -> asyncpg.Connection:
        """Connect to the first host that answers and is of the wanted kind.

        Raises:
            RefusedError: trying again would not help.
            StoreError: no host can be used now.
        """
        reasons: list[str] = []
        for host, url in self._urls.items():
            try:
                return await self._connect(url)
            except (*DRIVER_ERRORS, ValueError) as error:
                # An error of a certificate is a ValueError as well, but comes from the network.
                if isinstance(error, ValueError) and not isinstance(error, OSError):
                    # What the driver says of a URL may quote it.
                    raise ConfigError([_UNUSABLE_URL]) from None
                if isinstance(error, _FINAL):
                    raise RefusedError(f"{self}: {explained(error)}") from error
                reasons.append(f"{host or 'its host'}: {explained(error)}")
        raise StoreError(f"{self} cannot be reached: {'; '.join(reasons)}")

    async def _connect(self, url: str) -> asyncpg.Connection:
        settings = self._settings
        return await asyncpg.connect(
            url,
            timeout=settings.connect_timeout_s,
            # The server ends what takes too long and says so; this is for a server that is silent.
            command_timeout=settings.query_timeout_s + 1,
            # A cached statement would fail after ALTER TABLE, and with a pooler in between.
            statement_cache_size=0,
            target_session_attrs=SessionAttribute.read_write if self._wants_writable else None,
            server_settings={
                "application_name": APPLICATION_NAME,
                "statement_timeout": str(max(1, round(settings.query_timeout_s * 1000))),
            },
        )


class RefusedError(StoreError):
    """The server is there and refuses us, as it will refuse us again."""


DRIVER_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_FINAL = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)

_UNUSABLE_URL = (
    "EDGEPROXY_POSTGRES_URL: the value (not shown) is no usable URL; write "
    "postgresql://user:password@host:port/database, with characters such as / ? # @ in the password "
    "percent-encoded"
)


def explained(error: BaseException) -> str:
    """What an error of the driver means, in one line that holds no secret."""
    match error:
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"{_first_line(error)}; check the user and the password in EDGEPROXY_POSTGRES_URL"
        case asyncpg.InvalidCatalogNameError():
            return f"{_first_line(error)}; make it with createdb, or name another in EDGEPROXY_POSTGRES_URL"
        case asyncpg.TargetServerAttributeNotMatched():
            return "takes no writes (a standby?)"
        case asyncpg.QueryCanceledError():
            return "a query took longer than EDGEPROXY_POSTGRES_QUERY_TIMEOUT_SECS"
        case TimeoutError():
            return "no answer in time"
        case OSError(errno=int(code)) if code > 0:
            return os.strerror(code)
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
