"""Listeners beyond the one of ``listen_addr``: tables of the TOML file, because each has several values.

::

    [[listeners]]
    address = "0.0.0.0:443"
    app = "shop"              # only rows of this app
    app_from_sni = true       # ... unless the server name of the TLS hello says otherwise
    proxy_protocol = true     # peers in proxy_protocol_trusted send a PROXY header first
    tls = "terminate"         # TLS ends here; without this it goes to the backend as it is

    [sni]
    "shop.example.com" = "shop"
    "*.blog.example.com" = "blog"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeproxy.config import kinds
from edgeproxy.config.kinds import Address, InvalidValueError
from edgeproxy.core.dataplane.listening import NO_APP, Listening
from edgeproxy.core.dataplane.selection import ANY_APP

TABLES = frozenset({"listeners", "sni"})

_KEYS = ("address", "app", "app_from_sni", "proxy_protocol", "tls")


@dataclass(frozen=True, slots=True)
class Listener:
    """One address, and how clients that connect there are treated."""

    address: Address
    listening: Listening


def parse_listeners(document: Mapping[str, object]) -> tuple[tuple[Listener, ...], list[str]]:
    """Read ``[[listeners]]``; return what is right and one line for each thing that is wrong."""
    tables = document.get("listeners", [])
    problems: list[str] = []
    listeners: list[Listener] = []
    if not isinstance(tables, list):
        return (), ["listeners: must be tables; write [[listeners]]"]
    for number, table in enumerate(tables, 1):
        where = f"[[listeners]] {number}"
        if not isinstance(table, dict):
            problems.append(f"{where}: must be a table; write [[listeners]]")
            continue
        found = list(_wrong_keys(table))
        values: dict[str, Any] = {}
        for key, kind in (("address", kinds.address), ("app", kinds.name)):
            if key in table:
                try:
                    values[key] = kind.parse(str(table[key]))
                except InvalidValueError as invalid:
                    found.append(f"{key}: {table[key]!r} {invalid}")
        found += [
            f"{key}: {table[key]!r} must be true or false"
            for key in ("app_from_sni", "proxy_protocol")
            if not isinstance(table.get(key, False), bool)
        ]
        if table.get("tls", "terminate") != "terminate":
            found.append(f'tls: {table["tls"]!r} must be "terminate"; leave it out to pass TLS on')
        if found:
            problems += [f"{where}: {each}" for each in found]
            continue
        listeners.append(
            Listener(
                values["address"],
                Listening(
                    app=values.get("app", NO_APP if table.get("app_from_sni") else ANY_APP),
                    app_from_sni=table.get("app_from_sni", False),
                    proxy_protocol=table.get("proxy_protocol", False),
                    terminates_tls="tls" in table,
                ),
            )
        )
    return tuple(listeners), problems


def _wrong_keys(table: Mapping[str, object]) -> Iterator[str]:
    if "address" not in table:
        yield 'address: missing; write address = "0.0.0.0:443"'
    for key in table:
        if key not in _KEYS:
            yield f"{key}: unknown key; there are {', '.join(_KEYS)}"


def parse_server_names(document: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """Read ``[sni]``, server name to app, names in lower case; and one line for each thing that is wrong."""
    table = document.get("sni", {})
    if not isinstance(table, dict):
        return {}, ['sni: must be a table; write [sni] and lines such as "shop.example.com" = "shop"']
    names: dict[str, str] = {}
    problems: list[str] = []
    for name, app in table.items():
        lower = name.lower().rstrip(".")
        try:
            kinds.domain.parse(lower.removeprefix("*."))
            names[lower] = kinds.name.parse(app if isinstance(app, str) else "")
        except InvalidValueError as invalid:
            problems.append(f"[sni] {name!r} = {app!r}: {invalid}")
    return names, problems
