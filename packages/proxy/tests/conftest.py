"""What every test of the proxy shares: settings of the developer's own shell do not reach it."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_settings_in_the_environment() -> None:
    for name in list(os.environ):
        if name.startswith("EDGEPROXY_") or name == "DEBUG":
            del os.environ[name]
