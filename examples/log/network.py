"""The log between machines: one request and one answer on each connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import cycle

from examples.log.wire import Answer, Refused, Request, Unknown, frame, read_answer, read_request

Address = tuple[str, int]
_PAUSE_S = 0.05


async def ask(address: Address, request: Request) -> Answer:
    """Raises ``OSError``, ``EOFError`` or ``ValueError`` when no answer comes."""
    return await exchange(*await asyncio.open_connection(*address), request)


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> Answer:
    """Ask on a new connection, and close it."""
    try:
        writer.write(frame(request))
        await writer.drain()
        return await read_answer(reader)
    finally:
        writer.close()


async def answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    handle: Callable[[Request], Awaitable[Answer]],
) -> None:
    """Answer one request, and close the connection. Whoever hangs up, or makes no sense, gets nothing."""
    try:
        writer.write(frame(await handle(await read_request(reader))))
        await writer.drain()
    except (OSError, EOFError, ValueError):
        return
    finally:
        writer.close()


async def ask_leader(nodes: Mapping[str, Address], request: Request) -> Answer:
    """What whoever leads says, or `Unknown` if it fell silent; asks one node after the other who it is.

    Goes on until there is one: give it a time.
    """
    names = cycle(nodes)
    name = next(names)
    while True:
        leader = None
        try:
            said = await ask(nodes[name], request)
        except ConnectionRefusedError:
            pass  # so it has not heard the request either
        except (OSError, EOFError, ValueError):
            return Unknown()
        else:
            if not isinstance(said, Refused):
                return said
            leader = said.leader
        name = leader or next(names)
        await asyncio.sleep(_PAUSE_S)
