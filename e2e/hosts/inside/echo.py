"""A backend that keeps sessions: what comes over its WebSocket goes back. ``echo.py ADDRESS PORT``."""

from __future__ import annotations

import sys

from aiohttp import WSMsgType, web


async def echo(request: web.Request) -> web.WebSocketResponse:
    session = web.WebSocketResponse()
    await session.prepare(request)
    async for message in session:
        if message.type is WSMsgType.TEXT:
            await session.send_str(message.data)
    return session


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/session", echo)
    web.run_app(app, host=sys.argv[1], port=int(sys.argv[2]), print=lambda _: print("ready", flush=True))
