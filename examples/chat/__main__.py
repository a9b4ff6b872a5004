"""``python -m examples.chat``, configured by the environment: CHAT_ISSUER, CHAT_DATABASE, CHAT_PORT."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from examples.chat.server import Chat
from examples.chat.tokens import TokenVerifier
from examples.chat.users import Users


class ConfigurationError(Exception):
    """Something is missing, or cannot be so."""


async def serve(environment: Mapping[str, str]) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: it cannot begin.
    """
    try:
        issuer, database = environment["CHAT_ISSUER"], environment["CHAT_DATABASE"]
        port = int(environment.get("CHAT_PORT", "0"))
    except KeyError as error:
        raise ConfigurationError(f"{error.args[0]} is not set") from error
    except ValueError as error:
        raise ConfigurationError(f"CHAT_PORT: {error}") from error
    try:
        users = Users(Path(database))
    except sqlite3.Error as error:
        raise ConfigurationError(f"CHAT_DATABASE={database}: {error}") from error
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    chat = Chat(TokenVerifier(issuer, environment.get("CHAT_AUDIENCE", "api.example")), users)
    runner = web.AppRunner(chat.app(), shutdown_timeout=5)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError as error:
            raise ConfigurationError(f"CHAT_PORT={port}: {error}") from error
        print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> int:
    try:
        asyncio.run(serve(os.environ))
    except ConfigurationError as error:
        print(f"chat: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
