"""A mock backend for synchronous code: `MockBackend` on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from threading import Thread
from types import TracebackType
from typing import Self, Unpack

from mock_backend.driver import Driver
from mock_backend.server import MockBackend
from mock_backend.settings import Options


class ThreadedMockBackend:
    """A mock backend that runs from construction until `stop`, usable as a context manager.

    Takes what `MockBackend` takes and has the same properties; its admin API is open on any free port unless
    ``admin_port`` says otherwise.

    Raises:
        ListenError: the address is taken, not allowed or not ours.
        ValueError: a setting is wrong.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        options.setdefault("admin_port", 0)
        self._options = options
        self._backend = MockBackend(**options)
        self._stopping = asyncio.Event()
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = Thread(
            target=lambda: asyncio.run(self._serve(started)), name="mock-backend", daemon=True
        )
        self._thread.start()
        self._loop = started.result()

    def stop(self) -> None:
        """Stop as `MockBackend.stop` does and wait for the thread; may be called again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def id(self) -> str:
        return self._backend.id

    @property
    def region(self) -> str:
        return self._backend.region

    @property
    def address(self) -> str:
        return self._backend.address

    @property
    def port(self) -> int:
        return self._backend.port

    @property
    def ports(self) -> dict[str, int]:
        return self._backend.ports

    @property
    def request_count(self) -> int:
        return self._backend.request_count

    @property
    def driver(self) -> Driver:
        """What changes and asks it while it runs."""
        options = self._options
        return Driver(options.get("admin_host", "127.0.0.1"), self.ports["admin"], options.get("admin_token"))

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            await self._backend.start()
        except BaseException as error:  # noqa: BLE001  whatever it is belongs to the thread that waits
            started.set_exception(error)
            return
        started.set_result(asyncio.get_running_loop())
        await self._stopping.wait()
        await self._backend.stop()
