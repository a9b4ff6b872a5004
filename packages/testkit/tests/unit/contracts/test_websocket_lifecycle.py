"""The contract of WebSocket services, held by the reference; the chat among the examples is one."""

from __future__ import annotations

import pytest

from testkit.contracts.references.websocket_lifecycle import MemoryChat
from testkit.contracts.websocket_lifecycle import WebSocketContract


class TestReference(WebSocketContract):
    @pytest.fixture
    def harness(self) -> MemoryChat:
        return MemoryChat()
