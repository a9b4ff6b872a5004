"""What is different about some backends: tables of the TOML file, the first that applies counts.

::

    [[backend_rules]]
    match = "mock-eu-*"       # pattern of the id, and ...
    app = "shop"              # ... the app; one of them is needed
    proxy_protocol = "v2"     # they are sent a PROXY header first
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgeproxy.config import kinds
from edgeproxy.config.kinds import InvalidValueError
from edgeproxy.core.dataplane.backend_rules import BackendRule, ProxyVersion
from edgeproxy.core.dataplane.selection import ANY_APP

TABLES = frozenset({"backend_rules"})

_KEYS = ("match", "app", "proxy_protocol")
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
                ProxyVersion(table["proxy_protocol"]), table.get("match", "*"), table.get("app", ANY_APP)
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
    if version is None:
        yield 'proxy_protocol: missing; write proxy_protocol = "v2"'
    elif version not in _VERSIONS:
        yield f"proxy_protocol: {version!r} is not a choice; write {' or '.join(_VERSIONS)}"
