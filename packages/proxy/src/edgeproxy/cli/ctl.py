"""``edgeproxy ctl``: looking at the proxy that runs, and steering it, over its admin socket."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from edgeproxy.admin_client import AdminClient
from edgeproxy.cli import explain as explain_command
from edgeproxy.cli.options import ConfigFile, load_config
from edgeproxy.errors import ConfigError, EdgeproxyError
from edgeproxy.ports import UPGRADE_TIMEOUT_S

group = typer.Typer(help="Look at the running proxy, and steer it.", no_args_is_help=True)
show = typer.Typer(help="Show what the running proxy does.", no_args_is_help=True)
set_ = typer.Typer(help="Change the routing table as the running proxy sees it.", no_args_is_help=True)
group.add_typer(show, name="show")
group.add_typer(set_, name="set")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


_GRACE_S = 5.0
"""How long the proxy may take to tell that a successor has not come up in time."""


class Action(StrEnum):
    DRAIN = "drain"
    READY = "ready"
    WEIGHT = "weight"


class Order(StrEnum):
    AGE = "age"
    BYTES = "bytes"


@show.command()
def stats(json: Json = False, config_file: ConfigFile = None) -> None:
    """Print what the proxy has done since its start."""
    answer, overview = _ask(config_file, "stats"), _ask(config_file, "overview")
    if json:
        _screen().print_json(answer)
        return
    screen = _screen()
    backends = overview["backends"]
    active = sum(each["active"] for each in backends)
    sent = screen.size_text(sum(each["bytes_sent"] for each in backends))
    received = screen.size_text(sum(each["bytes_received"] for each in backends))
    closes = [f"{reason} {count}" for reason, count in sorted(overview["closes"].items())]
    rows = [
        ("proxy", f"{overview['version']}, process {answer['pid']}, on {answer['address']}"),
        ("POP", f"{overview['node']}, region {overview['region']}"),
        ("up for", screen.duration_text(overview["uptime_s"])),
        (
            "workers",
            f"{overview['workers']} ({_words(answer['workers'])}), {overview['worker_restarts']} restarts",
        ),
        ("table", _table_line(overview["table_version"], overview["table_age_s"], overview["bad_rows"])),
        ("connections", f"{active} open, {overview['clients']} since the start{_cap(overview)}"),
        *_queue_row(overview),
        ("bytes", f"{sent} to clients, {received} from clients"),
        ("ended", ", ".join(closes) or "none"),
    ]
    screen.console().print(screen.table(("", ""), rows))


@show.command()
def backends(json: Json = False, config_file: ConfigFile = None) -> None:
    """Print every backend with its state and its traffic."""
    views = _ask(config_file, "overview")["backends"]
    if json:
        _screen().print_json(views)
        return
    screen = _screen()
    if not views:
        print("There is no backend in the routing table.")
        return
    rows = [
        (
            *(view["id"], view["state"], view["app"], view["region"], view["country"], view["address"]),
            *(view["weight"], f"{view['connections']}/{view['hard_limit'] or '∞'}", view["warm"]),
            view["opened"],
            *(view["errors"], screen.size_text(view["bytes_sent"]), _connect_time(view["connects"])),
        )
        for view in views
    ]
    columns = ("backend", "state", "app", "region", "country", "address")
    numbers = (">weight", ">open/limit", ">warm", ">connections", ">errors", ">sent", ">connect")
    faint = [view["state"] != "ready" for view in views]
    screen.console().print(screen.table((*columns, *numbers), rows, dim=faint))


@show.command()
def connections(
    count: Annotated[int, typer.Option("--count", min=0, max=1000, help="List at most so many.")] = 20,
    order: Annotated[
        Order, typer.Option("--by", help="List the oldest, or those that moved most.")
    ] = Order.AGE,
    json: Json = False,
    config_file: ConfigFile = None,
) -> None:
    """Print how many connections are open between which countries and backends, and the first of them."""
    answer = _ask(config_file, "connections", count=count, order=order)
    open_rows = sorted(answer["counts"], key=lambda row: (-row["active"], row["country"], row["backend"]))
    screen = _screen()
    if json:
        screen.print_json({**answer, "counts": open_rows})
        return
    console = screen.console()
    if not open_rows and not answer["connections"]:
        print("No connection is open.")
        return
    rows = [(row["country"] or "unknown", row["backend"], row["active"], row["opened"]) for row in open_rows]
    console.print(screen.table(("country", "backend", ">open", ">since the start"), rows))
    if answer["connections"]:
        listed = [
            (
                *(each["client"], each["country"] or "unknown", each["backend"], each["state"]),
                screen.duration_text(each["age_s"]),
                *(screen.size_text(each[name]) for name in ("bytes_received", "bytes_sent")),
            )
            for each in answer["connections"]
        ]
        console.print()
        columns = ("client", "country", "backend", "state", ">age", ">received", ">sent")
        console.print(screen.table(columns, listed))
    if answer["workers_silent"]:
        print(f"{answer['workers_silent']} workers did not answer in time.")


@show.command()
def table(json: Json = False, config_file: ConfigFile = None) -> None:
    """Print the routing table that is in force, and every row that is skipped with the reason."""
    answer = _ask(config_file, "table")
    if json:
        _screen().print_json(answer)
        return
    screen = _screen()
    console = screen.console()
    console.print(_table_line(answer["version"], answer["age_s"], len(answer["issues"])))
    columns = ("id", "app", "region", "country", "host")
    numbers = ("port", "weight", "soft_limit", "hard_limit")
    rows = [
        (*(row[name] for name in (*columns, *numbers)), "yes" if row["healthy"] else "no")
        for row in answer["backends"]
    ]
    if rows:
        console.print()
        console.print(screen.table((*columns, *(f">{name}" for name in numbers), "healthy"), rows))
    for issue in answer["issues"]:
        console.print(f"skipped  {issue}")


@show.command()
def events(
    topic: Annotated[
        str | None, typer.Option("--topic", help="Only those of one topic, such as health or replication.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="At most so many, the latest.")] = 20,
    json: Json = False,
    config_file: ConfigFile = None,
) -> None:
    """Print what has happened, the latest last."""
    answer = _ask(config_file, "events", topic=topic, count=count)
    screen = _screen()
    if json:
        screen.print_json(answer)
        return
    console = screen.console()
    for event in answer["events"]:
        console.print(screen.event_line(event))
    dropped = sum(answer["statistics"]["dropped"].values())
    if dropped:
        console.print(f"{dropped} events were dropped since the start, because too many came at once.")


@show.command()
def members(json: Json = False, config_file: ConfigFile = None) -> None:
    """Print the POPs of the cluster: which are there, and how they are connected with this one."""
    found = _ask(config_file, "replication")["members"]
    screen = _screen()
    if json:
        screen.print_json(found)
        return
    if not found:
        screen.console().print("This POP does not replicate yet; its log says what it waits for.")
        return
    rows = [
        (
            *(each["node"], each["state"], screen.duration_text(each["since_s"])),
            *(each["gossip"], each["transport"], _connection(each)),
            _ago(each["heard_s_ago"]),
            "" if each["drift_ms"] is None else f"{each['drift_ms']:+d} ms",
            screen.size_text(each["waiting_bytes"]) if each["connected"] else "",
            each["dropped"] if each["connected"] else "",
        )
        for each in found
    ]
    columns = ("pop", "state", ">for", "gossip", "transport", "connection", ">heard", ">clock", ">waits")
    faint = [each["state"] not in ("self", "alive") for each in found]
    screen.console().print(screen.table((*columns, ">dropped"), rows, dim=faint))


@show.command()
def replication(json: Json = False, config_file: ConfigFile = None) -> None:
    """Print how far this POP has come with the changes of each, and what was refused."""
    answer = _ask(config_file, "replication")
    screen = _screen()
    if json:
        screen.print_json(answer)
        return
    console = screen.console()
    counts, states = answer["counts"], Counter(each["state"] for each in answer["members"])
    refused = {**answer["refused_peers"]}
    for reason, count in answer["refused_datagrams"].items():
        refused[reason] = refused.get(reason, 0) + count
    rows = [
        ("POP", f"{answer['node']} of cluster {answer['cluster']}, {_protection(answer)}"),
        ("members", ", ".join(f"{count} {state}" for state, count in states.items())),
        ("changes", f"{counts['written']} made here, {counts['applied']} came from others"),
        ("fetching", f"from {answer['pulling']}" if answer["pulling"] else "nothing"),
        ("waiting", f"{answer['store_waiting']} steps for the routing database"),
        ("refused", ", ".join(f"{reason} {n}" for reason, n in sorted(refused.items()) if n) or "nothing"),
        ("warnings", ", ".join(f"{cause} {n}" for cause, n in counts["warnings"].items()) or "none"),
    ]
    if answer["namesake"]:
        rows.append(("same name", f"{answer['namesake']}: another POP goes by it; change one of the two"))
    console.print(screen.table(("", ""), rows))
    if answer["known"]:
        lacking = [(origin, known, answer["lag"].get(origin, 0)) for origin, known in answer["known"].items()]
        console.print()
        console.print(screen.table(("origin", ">changes known", ">lacking"), lacking))
    for row, why in answer["refused_rows"].items():
        console.print(f"refused by the table  {row}: {why}")


@group.command("rate-limit")
def rate_limit(
    client: Annotated[
        str | None, typer.Argument(metavar="[ADDRESS]", help="The client's IP address.")
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Make it a new client; without an address, all clients.")
    ] = False,
    json: Json = False,
    config_file: ConfigFile = None,
) -> None:
    """Show how many connections the rate limit lets a client open at this moment, or forget what it did."""
    if client is None and not clear:
        raise ConfigError(
            ["write `rate-limit ADDRESS`, `rate-limit ADDRESS --clear` or `rate-limit --clear`"]
        )
    answer = _ask(config_file, "rate_limit", client=client, clear=clear)
    if json:
        _screen().print_json(answer)
    elif client is None:
        print(f"{answer['cleared']} clients were remembered; all are new now")
    else:
        print(f"client {client} may open {answer['connections_allowed']:.1f} connections at this moment")


@set_.command("backend")
def set_backend(
    backend: Annotated[str, typer.Argument(metavar="ID", help="The backend's id.")],
    action: Annotated[Action, typer.Argument(help="What to do with it.")],
    weight: Annotated[int | None, typer.Argument(metavar="[N]", help="The weight, 0 to 255.")] = None,
    json: Json = False,
    config_file: ConfigFile = None,
) -> None:
    """Drain a backend (no new clients), make it ready again, or give it another weight.

    Returns when the routing table shows it. As with `edgeproxy backends set`, it is written to the database
    and outlasts a restart.
    """
    if (action is Action.WEIGHT) != (weight is not None):
        raise ConfigError(
            ["write `set backend ID drain`, `set backend ID ready` or `set backend ID weight N`"]
        )
    values = {"weight": weight} if weight is not None else {"healthy": int(action is Action.READY)}
    answer = _ask(config_file, "set_backend", backend=backend, values=values)
    if json:
        _screen().print_json(answer)
    else:
        done = {Action.DRAIN: "gets no new clients", Action.READY: "is ready for clients"}
        print(f"backend {backend} {done.get(action, f'has weight {weight}')}")


def upgrade(json: Json = False, config_file: ConfigFile = None) -> None:
    """Have the running proxy replaced by a new one, with the code and settings of now, without downtime.

    Returns when the new one serves. When that cannot start, the old one goes on, and this says why.
    """
    with _connected(config_file) as proxy:
        proxy.wait_up_to(UPGRADE_TIMEOUT_S + _GRACE_S)
        answer = proxy.ask("upgrade")
    if json:
        _screen().print_json(answer)
    else:
        print(
            f"process {answer['pid']}, version {answer['version']}, serves; "
            f"process {answer['predecessor']} drains"
        )


@group.command("reload")
def reload(json: Json = False, config_file: ConfigFile = None) -> None:
    """Have the proxy read its TOML file again, and print what changed and what needs a restart."""
    answer = _ask(config_file, "reload")
    if json:
        _screen().print_json(answer)
        return
    for name, texts in answer["changed"].items():
        print(f"{name}: {' -> '.join(texts)}")
    for name, texts in answer["needs_restart"].items():
        print(f"{name}: {' -> '.join(texts)} needs a restart" if texts else f"{name}: needs a restart")
    if not any(answer.values()):
        print("nothing has changed")


@group.command("explain")
def explain(
    client: Annotated[str, typer.Option("--client", metavar="ADDRESS", help="The client's IP address.")],
    app: Annotated[str | None, typer.Option("--app", help="The app asked for; that of the listener.")] = None,
    json: Json = False,
    config_file: ConfigFile = None,
) -> None:
    """Show which backend a client gets, as `edgeproxy explain`, but only from the running proxy."""
    with _connected(config_file):
        explain_command.explain(client, app, json, config_file)


def _ask(config_file: Path | None, command: str, **arguments: object) -> Any:
    with _connected(config_file) as proxy:
        return proxy.ask(command, **arguments)


def _connected(config_file: Path | None) -> AdminClient:
    """The running proxy.

    Raises:
        EdgeproxyError: there is none.
    """
    path = load_config(config_file).admin_socket
    proxy = AdminClient.connect(path)
    if proxy is None:
        raise EdgeproxyError(
            f"no running proxy answers on {path}; start one with `edgeproxy run`, or say with "
            "EDGEPROXY_ADMIN_SOCKET where it listens"
        )
    return proxy


def _screen() -> ModuleType:
    from edgeproxy.cli import screen  # rich takes a twentieth of a second to import

    return screen


def _table_line(version: int, age_s: float, bad_rows: int) -> str:
    bad = f", {bad_rows} problems of rows that are skipped" if bad_rows else ""
    return f"version {version}, read {_screen().duration_text(age_s)} ago{bad}"


def _queue_row(overview: dict[str, Any]) -> list[tuple[str, str]]:
    """None without a queue."""
    if not overview["queue_limit"] + overview["waiting"]:
        return []
    served, waits = sum(overview["waits"]["counts"]), overview["waits"]["seconds_sum"]
    mean = f", {served} were served after {1000 * waits / served:.0f} ms on average" if served else ""
    return [("queue", f"{overview['waiting']} of {overview['queue_limit']} wait{mean}")]


def _cap(overview: dict[str, Any]) -> str:
    most, most_each = overview["max_connections"], overview["max_connections_per_client"]
    all_ = f", {overview['capped_connections']} of {most} may be open" if most else ""
    return all_ + (f", {most_each} of one client" if most_each else "")


def _connect_time(connects: dict[str, Any]) -> str:
    count = sum(connects["counts"])
    return f"{1000 * connects['seconds_sum'] / count:.1f} ms" if count else ""


def _connection(member: dict[str, Any]) -> str:
    if not member["connected"]:
        return "" if member["state"] == "self" else "none"
    return f"{'dialled' if member['dialled'] else 'accepted'}, version {member['version']}"


def _ago(seconds: float | None) -> str:
    return "" if seconds is None else f"{_screen().duration_text(seconds)} ago"


def _protection(answer: dict[str, Any]) -> str:
    sealed = "sealed" if answer["sealed"] else "without keys, on this machine only"
    return sealed if answer["running"] else f"{sealed}; waiting for another process that is this POP to end"


def _words(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))
