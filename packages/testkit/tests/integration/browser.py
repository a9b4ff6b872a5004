"""A real browser, driven over its DevTools protocol: Chromium, a page, and what can be asked of it."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from testkit.wait import wait_until_async

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
PATIENCE_S = 30.0


def require_chromium() -> str:
    program = next((found for name in NAMES if (found := shutil.which(name)) is not None), None)
    if program is None:
        pytest.skip("no Chromium is installed (Debian: chromium)")
    return program


class Page:
    """One tab."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection = connection
        self._last_id = 0
        self.complaints: list[str] = []
        """Errors that the page threw or logged, such as what its policy forbade."""

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._last_id += 1
        await self._connection.send_json({"id": self._last_id, "method": method, "params": parameters})
        while True:
            message = await asyncio.wait_for(self._connection.receive_json(), PATIENCE_S)
            if message.get("id") == self._last_id:
                assert "error" not in message, message["error"]
                return dict(message["result"])
            if message.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(str(message["params"]["exceptionDetails"]))
            elif message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.complaints.append(message["params"]["entry"]["text"])

    async def open(self, url: str, *, width: int, height: int, dark: bool = False) -> None:
        """Load ``url`` on a screen of that many CSS pixels; below 600 wide it is a phone's."""
        await self.call("Runtime.enable")
        await self.call("Log.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    async def wait(self, expression: str) -> Any:
        """Wait until an expression is truthy; return its value."""
        return await wait_until_async(
            lambda: self.value(expression), reason=expression, timeout_s=PATIENCE_S, interval_s=0.05
        )

    async def screenshot(self) -> bytes:
        """The whole page as PNG."""
        result = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(result["data"])


@asynccontextmanager
async def open_browser(folder: Path) -> AsyncIterator[Page]:
    """Start Chromium with a profile of its own in ``folder``; end it afterwards."""
    process = await asyncio.create_subprocess_exec(
        require_chromium(),
        *FLAGS,
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port_file = folder / "DevToolsActivePort"
        lines = await wait_until_async(
            lambda: port_file.read_text().splitlines(),
            reason="the browser to say where it listens",
            timeout_s=PATIENCE_S,
            swallow=(FileNotFoundError,),
        )
        port = int(lines[0])
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                tabs = await answer.json()
            (address,) = [tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"]
            async with session.ws_connect(address, max_msg_size=0) as connection:
                yield Page(connection)
    finally:
        process.kill()
        await process.wait()
