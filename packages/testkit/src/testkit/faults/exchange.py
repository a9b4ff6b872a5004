"""One question over a link, and what became of it: the observation that all substrates share."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

QUESTION = b"are you there?" * 4


class Outcome(enum.Enum):
    """What somebody who asks an echo sees."""

    ANSWERED = "answered"
    ALTERED = "an answer came, but another one"
    CUT_SHORT = "the answer was cut short"
    TURNED_AWAY = "turned away: refused, or ended before a byte came"
    SILENT = "no answer"


async def exchange(connect: Connect, *, patience_s: float, question: bytes = QUESTION) -> Outcome:
    """Connect to an echo, ask, end, and read to the end.

    A link in userspace accepts before it knows whether anybody listens behind it, so a refusal and an end
    before the first byte are one outcome.
    """
    answer = b""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await connect()
            writer.write(question)
            await writer.drain()
            writer.write_eof()
            while piece := await reader.read(1 << 16):
                answer += piece
    except TimeoutError:
        return Outcome.SILENT
    except OSError:
        return Outcome.CUT_SHORT if answer else Outcome.TURNED_AWAY
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
    if not answer:
        return Outcome.TURNED_AWAY
    if answer == question:
        return Outcome.ANSWERED
    return Outcome.CUT_SHORT if question.startswith(answer) else Outcome.ALTERED


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one who asks: send back all that comes, and end when he does."""
    with suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def serving(serve: Serve = echo, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serve connections on a port of its own, which is given; at the end all of them are cut off."""
    open_: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_[task] = writer
        try:
            await serve(reader, writer)
        finally:
            writer.transport.abort()
            del open_[task]

    server = await asyncio.start_server(serve_one, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        tasks = list(open_)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Transports close at the next turn of the loop.
        await asyncio.sleep(0)
