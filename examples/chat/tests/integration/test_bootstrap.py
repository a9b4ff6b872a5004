"""The program as a supervisor sees it, held to testkit's contract; and a whole conversation over it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from testkit.contracts.bootstrap import BootstrapContract, Configuration
from testkit.contracts.http_program import HttpProgram
from testkit.issuer import TokenIssuer
from testkit.process import Process, ProcessFactory
from testkit.websocket import WebSocketClient, assert_answers_ping, assert_refused

LISTENING = r"listening on http://(\S+)"
COMMAND = [sys.executable, "-m", "examples.chat"]


class ChatPrograms:
    deadline_s = 30.0

    def __init__(self, processes: ProcessFactory, issuer: TokenIssuer, folder: Path) -> None:
        self._processes = processes
        self._issuer = issuer
        self._environments: Mapping[Configuration, Mapping[str, str | None]] = {
            Configuration.GOOD: {},
            Configuration.MISSING: {"CHAT_ISSUER": None},
            Configuration.MALFORMED: {"CHAT_PORT": "many"},
            Configuration.CONFLICTING: {"CHAT_DATABASE": str(folder)},
        }
        self._usual = {"CHAT_ISSUER": issuer.url, "CHAT_DATABASE": str(folder / "users.db")}

    def start(self, configuration: Configuration) -> HttpProgram:
        process = self._processes(COMMAND, env={**self._usual, **self._environments[configuration]})

        async def serve() -> bool:
            found = re.search(LISTENING, process.log)
            headers = {"Authorization": f"Bearer {self._issuer.token()}"}
            try:
                async with await WebSocketClient.connect(
                    f"ws://{found[1] if found else ''}/ws", headers=headers
                ) as client:
                    await client.send_json({"type": "ping"})
                    return bool((await client.receive_json())["type"] == "pong")
            except OSError:
                return False

        return HttpProgram(process, ready_url=_ready_url, serve=serve)

    def names(self, configuration: Configuration) -> str:
        return {
            Configuration.MISSING: "CHAT_ISSUER",
            Configuration.MALFORMED: "CHAT_PORT",
            Configuration.CONFLICTING: "CHAT_DATABASE",
        }[configuration]


def _ready_url(output: str) -> str | None:
    found = re.search(LISTENING, output)
    return found and f"http://{found[1]}/ready"


class TestChatProgram(BootstrapContract):
    @pytest.fixture
    def harness(self, process_factory: ProcessFactory, issuer: TokenIssuer, tmp_path: Path) -> ChatPrograms:
        return ChatPrograms(process_factory, issuer, tmp_path)


async def test_who_has_a_good_token_talks(
    process_factory: ProcessFactory, issuer: TokenIssuer, tmp_path: Path
) -> None:
    chat: Process = process_factory(
        COMMAND, env={"CHAT_ISSUER": issuer.url, "CHAT_DATABASE": str(tmp_path / "users.db")}
    )
    url = f"ws://{chat.wait_output(LISTENING)[1]}/ws"
    for token, status in (
        (issuer.expired_token(), 401),
        (issuer.token_of_unknown_key(), 401),
        (issuer.token(without=("email",)), 400),
    ):
        await assert_refused(url, status, headers={"Authorization": f"Bearer {token}"})
    good = {"Authorization": f"Bearer {issuer.token()}"}
    async with await WebSocketClient.connect(url, headers=good) as client:
        await assert_answers_ping(client)
        chat.kill()
        assert await client.ended() is None
