"""Where clients of all projects knock: it wakes the one that they want, and lets them through to it.

A machine that is suspended cannot greet, so the door does it in its place. Machines behind it begin with
what was said so far: the greeting, and the client's login.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from examples.log.compute import Compute
from examples.log.mysql import SALT_BYTES, greeting, read_login, read_packet, refusal

LOGIN_TIMEOUT_S = 10.0
_PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Project:
    """A database of somebody's own, and who may use it."""

    compute: Compute
    users: frozenset[str]


class Door:
    """``projects``: by the name of the database; ``draw``: so many random bytes, ``os.urandom``."""

    def __init__(self, projects: Mapping[str, Project], draw: Callable[[int], bytes]) -> None:
        self._projects = projects
        self._draw = draw

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, as `asyncio.start_server` calls it."""
        try:
            hello = greeting(self._draw(SALT_BYTES))
            writer.write(hello)
            async with asyncio.timeout(LOGIN_TIMEOUT_S):
                sent = await read_packet(reader)
            login = read_login(sent)
            project = self._projects.get(login.database)
            if project is None:
                writer.write(refusal(1049, "42000", f"Unknown database '{login.database}'"))
            elif login.user not in project.users:
                writer.write(refusal(1044, "42000", f"Access denied for user '{login.user}'"))
            else:
                await self._let_through(project.compute, hello + sent, reader, writer)
        except (OSError, EOFError, ValueError):
            # Whoever hangs up, says nothing or something else is not waited for.
            return
        finally:
            writer.close()

    async def _let_through(
        self, compute: Compute, said: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with AsyncExitStack() as stack:
            try:
                address = await stack.enter_async_context(compute.use())
                there, to_there = await asyncio.open_connection(*address)
            except OSError:
                writer.write(refusal(1053, "08S01", f"{compute.project} cannot be reached"))
                return
            stack.callback(to_there.close)
            to_there.write(said)
            await asyncio.gather(_carry(reader, to_there), _carry(there, writer))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All that is said one way, and its end."""
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
