"""``edgeproxy register``: keep a backend registered that cannot do so itself."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeproxy.errors import ConfigError

if TYPE_CHECKING:
    from edgeproxy.client import Registration


def register(
    url: Annotated[str, typer.Argument(metavar="URL", help="The proxy's API: http://127.0.0.1:8081.")],
    backend_id: Annotated[str, typer.Option("--id", help="The backend's name, the same each time.")],
    app: Annotated[str, typer.Option("--app", help="The app it serves.")],
    region: Annotated[str, typer.Option("--region", help="Where it stands.")],
    ip: Annotated[str, typer.Option("--ip", help="Its IP address or host name.")],
    port: Annotated[int, typer.Option("--port", help="Its TCP port.")],
    country: Annotated[str | None, typer.Option("--country", help="Two letters of ISO 3166-1.")] = None,
    weight: Annotated[int | None, typer.Option("--weight", help="More draws more clients.")] = None,
    soft_limit: Annotated[int | None, typer.Option("--soft-limit", help="What it carries with ease.")] = None,
    hard_limit: Annotated[int | None, typer.Option("--hard-limit", help="What it never exceeds.")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="File with the bearer token.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", metavar="FILE", help="What to trust at an https URL, PEM.")
    ] = None,
) -> None:
    """Register a backend and keep it registered until SIGTERM or Ctrl-C, which deregister it.

    For programs that do not call the API themselves: run this beside them, as a sidecar.
    """
    import ssl

    from edgeproxy.client import Registration

    try:
        token = token_file.read_text(encoding="ascii").strip() if token_file is not None else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"--token-file {token_file}: cannot be read: {error}"]) from error
    try:
        tls = ssl.create_default_context(cafile=ca_file) if ca_file is not None else None
    except OSError as error:
        raise ConfigError([f"--ca-file {ca_file}: holds no certificate that can be used: {error}"]) from error
    registration = Registration(
        url,
        token,
        id=backend_id,
        app=app,
        region=region,
        ip=ip,
        port=port,
        country=country,
        weight=weight,
        soft_limit=soft_limit,
        hard_limit=hard_limit,
        tls=tls,
        on_event=lambda event: print(f"{backend_id}: {event}", file=sys.stderr, flush=True),
    )
    asyncio.run(_until_told(registration))


async def _until_told(registration: Registration) -> None:
    main = asyncio.current_task()
    assert main is not None
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, main.cancel)
    with suppress(asyncio.CancelledError):
        async with registration:
            await asyncio.Event().wait()
