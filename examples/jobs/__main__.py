"""``python -m examples.jobs work``, ``submit PLAYER POINTS``, ``show``: who was how good at a game.

A game whose worker vanished is done again, and counted again; the best of a player stays what it is.

Configured by the environment: JOBS_VALKEY, the URL of the server with the jobs and what came of them;
JOBS_LOCKS, the URLs of those on which players are locked, with commas between them, JOBS_VALKEY by default.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from examples.jobs.service import JobService
from examples.jobs.state import ValkeyState


class ConfigurationError(Exception):
    """Something is missing, or cannot be so."""


async def keep_the_best(best: ValkeyState, player: str, points: int) -> int:
    """The most that ``player`` ever had. To be called for one game of a player at a time."""
    seen = await best.get(player)
    if seen is not None and seen.value >= points:
        return int(seen.value)
    await best.set(player, points)
    return points


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Do what the command says.

    Raises:
        ConfigurationError: it cannot begin.
        RedisError: a server is away, or has a problem.
    """
    async with AsyncExitStack() as stack:
        client, *lock_clients = [
            await stack.enter_async_context(_client(*each)) for each in _urls(environment)
        ]

        async def task(payload: Any) -> int:
            return await keep_the_best(best, *payload)

        service = JobService(client, lock_clients or [client], task)
        best = service.state.namespace("best")
        match arguments.command:
            case "submit":
                print(await service.submit(arguments.player, [arguments.player, arguments.points]))
            case "work":
                await service.serve(lambda: print("working", flush=True))
            case _:
                await service.state.start()
                for player in sorted(best.keys()):
                    games = service.progress.cached(player)
                    print(f"{player}: {best.cached(player).value}, {games.value if games else 0} games")
                await service.state.stop()


def _urls(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Of the jobs, then those of the locks, each with the name of the setting that it is from."""
    if "JOBS_VALKEY" not in environment:
        raise ConfigurationError("JOBS_VALKEY is not set")
    locks = [url.strip() for url in environment.get("JOBS_LOCKS", "").split(",") if url.strip()]
    return [("JOBS_VALKEY", environment["JOBS_VALKEY"]), *(("JOBS_LOCKS", url) for url in locks)]


def _client(setting: str, url: str) -> Redis:
    try:
        # Once more: the first attempt may find the connection to a server that has been restarted.
        return Redis.from_url(url, retry=Retry(NoBackoff(), 1))
    except ValueError as error:
        raise ConfigurationError(f"{setting}: {url}: {error}") from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.jobs")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("work", help="do jobs until SIGTERM")
    submit = commands.add_parser("submit", help="a player has finished a game")
    submit.add_argument("player")
    submit.add_argument("points", type=int)
    commands.add_parser("show", help="the best of each player")
    try:
        asyncio.run(run(parser.parse_args(), os.environ))
    except ConfigurationError as error:
        print(f"jobs: {error}", file=sys.stderr)
        return 2
    except RedisError as error:
        print(f"jobs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
