"""``edgeproxy explain``: which backend a client gets, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgeproxy.cli.options import ConfigFile, load_config
from edgeproxy.errors import ConfigError

_PIPED_WIDTH = 160
"""Columns of the table where no terminal says how many there are."""


def explain(
    client: Annotated[str, typer.Option("--client", metavar="ADDRESS", help="The client's IP address.")],
    app: Annotated[str | None, typer.Option("--app", help="The app asked for; that of the listener.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Show which backend a client gets: every candidate with its score, or why it is left out.

    Asks the running proxy over its admin socket. Without one it assumes that no connections are open,
    and says so.
    """
    import msgspec

    from edgeproxy.admin_client import AdminClient
    from edgeproxy.core.controlplane.explain import Explanation
    from edgeproxy.core.dataplane.client import normalise

    config = load_config(config_file)
    try:
        address = normalise(client)
    except ValueError as error:
        raise ConfigError([f"--client: {error}"]) from error
    proxy = AdminClient.connect(config.admin_socket)
    if proxy is not None:
        with proxy:
            explanation = msgspec.convert(proxy.ask("explain", client=address, app=app), Explanation)
    else:
        from edgeproxy.app.view import explain_offline

        explanation = explain_offline(config, address, app)
    if json:
        print(msgspec.json.format(msgspec.json.encode(explanation), indent=2).decode())
    else:
        _print(explanation)


def _print(explanation: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    client = explanation.client
    place = f"{client.country} (region {client.region})" if client.country else "unknown country"
    # Brackets and colons in addresses and ids are not markup.
    console = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    console.print(f"Client   {client.address}, {place}")
    console.print(f"POP      region {explanation.pop_region}, app {explanation.app}")
    console.print(f"Backend  {explanation.decision}", style="bold")
    if not explanation.counts_known:
        console.print(
            "No running proxy was found: connections are taken for 0, affinity for empty.", style="yellow"
        )
    if explanation.connections_allowed is not None:
        allowed = f"{explanation.connections_allowed:.1f} connections at this moment"
        console.print(f"Limit    {allowed}", highlight=False)
    for use, whose in (
        (explanation.client_connections, "of this client"),
        (explanation.all_connections, "of all clients"),
    ):
        if use is not None:
            console.print(f"Cap      {use.open} of {use.most} connections {whose}")
    if explanation.queue is not None:
        console.print(f"Queue    {explanation.queue.open} of {explanation.queue.most} clients wait")
    if explanation.is_panicking:
        console.print(
            "Panic: too few backends are good, so this POP's own verdicts are ignored.", style="yellow"
        )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "backend"):
        table.add_column(name, no_wrap=True)
    for name in ("score", "conns"):
        table.add_column(name, no_wrap=True, justify="right")
    for name in ("place", "region", "country", "address"):
        table.add_column(name, no_wrap=True)
    table.add_column("left out")
    # What is left out for its verdict shows it there.
    verdicts = [each.verdict if each.verdict != each.left_out else "" for each in explanation.candidates]
    table.add_column("verdict" if any(verdicts) else "")
    for candidate, verdict in zip(explanation.candidates, verdicts, strict=True):
        table.add_row(
            "*" if candidate.is_best else "",
            candidate.backend,
            "" if candidate.left_out else f"{candidate.score:.4f}",
            str(candidate.connections),
            candidate.place,
            candidate.region,
            candidate.country,
            candidate.address,
            candidate.left_out or "",
            verdict,
            style="dim" if candidate.left_out else None,
        )
    console.print()
    console.print(table if explanation.candidates else "The routing table has no usable row.")
