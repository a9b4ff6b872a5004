"""Lists of who may connect, in a running proxy."""

from __future__ import annotations

import pytest

from packages.proxy.tests.integration.proxies import Backend, StartProxy, row


@pytest.mark.feature("admission.lists")
def test_who_is_denied_is_reset(start_proxy: StartProxy) -> None:
    backend = Backend("web")
    proxy = start_proxy([row("web", backend.port)], allow="127.0.0.0/8", deny="127.0.0.2")
    assert proxy.backend_of("127.0.0.1") == "web"
    assert proxy.backend_of("127.0.0.2") == ""
    backend.stop()
