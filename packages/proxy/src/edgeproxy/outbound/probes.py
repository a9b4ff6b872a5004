"""Which backend is asked how: all by the settings, and each as its rule has clients' connections begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgeproxy.core.dataplane.backend_rules import BackendRule, BackendRules, BackendTls
from edgeproxy.core.model import Backend
from edgeproxy.core.wire.proxy_protocol import LOCAL_V1, LOCAL_V2
from edgeproxy.outbound.probe_http import HttpProbe
from edgeproxy.outbound.probe_tcp import PLAIN, Approach, TcpProbe
from edgeproxy.ports import Probe

if TYPE_CHECKING:
    import ssl

_OWN_CONNECTION = {None: b"", "v1": LOCAL_V1, "v2": LOCAL_V2}


class Probes:
    """The probes of one POP."""

    def __init__(
        self,
        http_path: str | None,
        rules: tuple[BackendRule, ...],
        contexts: Mapping[BackendTls, ssl.SSLContext],
    ) -> None:
        """Ask for ``http_path``, ``None`` for a connection alone; ``contexts`` may change under way."""
        self._http_path = http_path
        self._rules = BackendRules(rules)
        self._contexts = contexts

    def of(self, backend: Backend) -> Probe:
        """What tells whether ``backend`` is well."""
        approach = self._approach(self._rules.of(backend))
        return TcpProbe(approach) if self._http_path is None else HttpProbe(self._http_path, approach)

    def _approach(self, rule: BackendRule | None) -> Approach:
        if rule is None:
            return PLAIN
        header = _OWN_CONNECTION[rule.proxy_protocol]
        if rule.tls is None:
            return Approach(header)
        return Approach(header, self._contexts[rule.tls], rule.tls.server_name)
