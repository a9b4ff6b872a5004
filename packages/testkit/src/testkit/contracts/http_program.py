"""A process that says over HTTP that it is ready, as the contract `bootstrap` wants to see it."""

from __future__ import annotations

import asyncio
import signal
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from http.client import HTTPException

from testkit.process import Process

_TIMEOUT_S = 10.0


class HttpProgram:
    """A program as `testkit.contracts.bootstrap` knows one.

    ``ready_url`` makes the URL of the output so far, ``None`` while that does not tell it; ``serve`` has the
    program do its work once.
    """

    def __init__(
        self,
        process: Process,
        *,
        ready_url: Callable[[str], str | None],
        serve: Callable[[], Awaitable[bool]],
    ) -> None:
        self.process = process
        self._ready_url = ready_url
        self._serve = serve

    async def ready(self) -> bool:
        url = self._ready_url(self.output)
        return url is not None and await answers(url)

    async def serve(self) -> bool:
        return await self._serve()

    def terminate(self) -> None:
        self.process.kill(signal.SIGTERM)

    def interrupt(self) -> None:
        self.process.kill(signal.SIGINT)

    @property
    def exit_code(self) -> int | None:
        return self.process.exit_code

    @property
    def output(self) -> str:
        return self.process.log


async def answers(url: str) -> bool:
    """Whether a GET is answered with a status from 200 to 299."""

    def ask() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S):
                return True
        except (urllib.error.URLError, HTTPException, OSError):
            return False

    return await asyncio.to_thread(ask)
