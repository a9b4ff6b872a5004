"""What is different about some backends: tables of the TOML file, the first that applies counts.

::

    [[backend_rules]]
    match = "mock-eu-*"       # pattern of the id, and ...
    app = "shop"              # ... the app; one of them is needed
    proxy_protocol = "v2"     # they are sent a PROXY header first
    tls = true                # they are spoken to in TLS, and their certificate is verified ...
    tls_server_name = "shop.internal"  # ... for this name; without it, for the host of the row
    tls_ca = "ca.pem"         # who may have issued it; without it, whom the system trusts
    tls_cert = "client.pem"   # what is shown to them if they ask, with its key
    tls_key = "client.key"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgeproxy.config import kinds
from edgeproxy.config.kinds import InvalidValueError
from edgeproxy.core.dataplane.backend_rules import BackendRule, BackendTls, ProxyVersion
from edgeproxy.core.dataplane.selection import ANY_APP

TABLES = frozenset({"backend_rules"})

_TLS_KEYS = ("tls_server_name", "tls_ca", "tls_cert", "tls_key")
_KEYS = ("match", "app", "proxy_protocol", "tls", *_TLS_KEYS)
_VERSIONS = tuple(version.value for version in ProxyVersion)


def parse_backend_rules(document: Mapping[str, object]) -> tuple[tuple[BackendRule, ...], list[str]]:
    """Read ``[[backend_rules]]``; return what is right and one line for each thing that is wrong."""
    tables = document.get("backend_rules", [])
    if not isinstance(tables, list):
        return (), ["backend_rules: must be tables; write [[backend_rules]]"]
    problems: list[str] = []
    rules: list[BackendRule] = []
    for number, table in enumerate(tables, 1):
        where = f"[[backend_rules]] {number}"
        if not isinstance(table, dict):
            problems.append(f"{where}: must be a table; write [[backend_rules]]")
            continue
        if found := list(_problems(table)):
            problems += [f"{where}: {each}" for each in found]
            continue
        rules.append(
            BackendRule(
                ProxyVersion(table["proxy_protocol"]) if "proxy_protocol" in table else None,
                table.get("match", "*"),
                table.get("app", ANY_APP),
                BackendTls(*(table.get(key, "") for key in _TLS_KEYS)) if table.get("tls") else None,
            )
        )
    return tuple(rules), problems


def _problems(table: Mapping[str, object]) -> Iterator[str]:
    for key in table:
        if key not in _KEYS:
            yield f"{key}: unknown key; there are {', '.join(_KEYS)}"
    if "match" not in table and "app" not in table:
        yield 'match: missing, and so is app; write one of them, such as match = "eu-*"'
    for key in ("match", "app"):
        if key in table:
            value = table[key]
            try:
                kinds.name.parse(value if isinstance(value, str) else "")
            except InvalidValueError as invalid:
                yield f"{key}: {value!r} {invalid}"
    version = table.get("proxy_protocol")
    if version is None and not table.get("tls"):
        yield 'proxy_protocol: missing, and so is tls; write proxy_protocol = "v2", or tls = true'
    elif version is not None and version not in _VERSIONS:
        yield f"proxy_protocol: {version!r} is not a choice; write {' or '.join(_VERSIONS)}"
    yield from _tls_problems(table)


def _tls_problems(table: Mapping[str, object]) -> Iterator[str]:
    if not isinstance(table.get("tls", False), bool):
        yield f"tls: {table['tls']!r} must be true or false"
    elif any(key in table for key in _TLS_KEYS) and not table.get("tls"):
        yield "tls: missing; write tls = true"
    for key in _TLS_KEYS:
        if key in table:
            kind = kinds.domain if key == "tls_server_name" else kinds.path
            value = table[key]
            try:
                kind.parse(value if isinstance(value, str) else "")
            except InvalidValueError as invalid:
                yield f"{key}: {value!r} {invalid}"
    if ("tls_cert" in table) != ("tls_key" in table):
        yield "tls_cert and tls_key: need each other; write both or neither"
