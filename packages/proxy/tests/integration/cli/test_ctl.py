"""``edgeproxy ctl`` with a proxy that runs, and without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.core.controlplane.routing_table import RoutingTable
from edgeproxy.core.geography import Geography
from edgeproxy.errors import EdgeproxyError
from edgeproxy.outbound.store_sqlite import SqliteStore
from packages.proxy.tests.integration.cli.commands import Run as Ctl
from packages.proxy.tests.integration.cli.commands import runner
from packages.proxy.tests.integration.proxies import Backend, Proxy, StartProxy, edit, greeting, row
from testkit.wait import wait_until


@pytest.fixture(scope="module")
def backend(start_backend: Callable[[str], Backend]) -> Backend:
    return start_backend("one")


@pytest.fixture(scope="module")
def proxy(start_shared_proxy: StartProxy, backend: Backend) -> Proxy:
    rows = [
        row("one", backend.port, country="DE", hard_limit=10),
        row("down", 9, healthy=0),
        row("bad", 0),
    ]
    return start_shared_proxy(rows)


@pytest.fixture
def ctl(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """Runs a command with the settings of the proxy."""
    run = runner(monkeypatch, capsys)
    monkeypatch.setenv("EDGEPROXY_ADMIN_SOCKET", str(proxy.admin_path))
    monkeypatch.setenv("EDGEPROXY_DB_PATH", str(proxy.db_path))
    return partial(run, "ctl")


@pytest.fixture
def ctl_json(ctl: Ctl) -> Callable[..., Any]:
    def run(*arguments: str) -> Any:
        done = ctl(*arguments, "--json")
        assert (done.code, done.errors) == (0, [])
        return json.loads(done.out)

    return run


def word_rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line]


# ---- show ----------------------------------------------------------------------------------------


@pytest.mark.feature("administration.show")
def test_stats_say_what_runs_and_what_it_did(ctl: Ctl, proxy: Proxy, new_client: Callable[[], str]) -> None:
    assert proxy.backend_of(new_client()) == "one"
    wait_until(lambda: proxy.stats()["closes"].get("complete"), reason="the session to be reported")
    lines = {line.split()[0]: line for line in ctl("show", "stats").out.splitlines() if line.strip()}
    assert f"process {proxy.process.pid}, on {proxy.address}" in lines["proxy"]
    assert "region eu" in lines["POP"]
    assert f"({' '.join(map(str, proxy.stats()['workers']))}), 0 restarts" in lines["workers"]
    assert "1 problems of rows that are skipped" in lines["table"]
    assert "since the start" in lines["connections"]
    assert "to clients" in lines["bytes"]
    assert "complete" in lines["ended"]


def test_stats_as_json_are_those_of_the_proxy(ctl_json: Callable[..., Any], proxy: Proxy) -> None:
    answer = ctl_json("show", "stats")
    assert (answer["pid"], answer["address"]) == (proxy.process.pid, proxy.address)


def test_backends_are_shown_with_their_state_and_traffic(
    ctl: Ctl, proxy: Proxy, backend: Backend, new_client: Callable[[], str]
) -> None:
    with proxy.connect(new_client()) as client:
        greeting(client)
        wait_until(lambda: "1/10" in ctl("show", "backends").out, reason="the connection to be shown")
        header, down, one = word_rows(ctl("show", "backends").out)
    assert header[:6] == ["backend", "state", "app", "region", "country", "address"]
    assert down[:6] == ["down", "down", "test", "eu", "DE", "127.0.0.1:9"]
    assert one[:8] == ["one", "ready", "test", "eu", "DE", f"127.0.0.1:{backend.port}", "1", "1/10"]


def test_backends_as_json_hold_everything(ctl_json: Callable[..., Any]) -> None:
    down, one = ctl_json("show", "backends")
    assert (down["id"], down["state"], one["id"], one["hard_limit"]) == ("down", "down", "one", 10)


def test_open_connections_are_counted_by_country_and_backend(
    ctl: Ctl, ctl_json: Callable[..., Any], proxy: Proxy, new_client: Callable[[], str]
) -> None:
    wait_until(lambda: ctl("show", "connections").out == "No connection is open.\n", reason="others to end")
    with proxy.connect(new_client()) as client:
        greeting(client)
        (found,) = wait_until(lambda: ctl_json("show", "connections")["counts"], reason="it to be reported")
        rows = word_rows(ctl("show", "connections").out)
    assert (found["country"], found["backend"], found["active"]) == ("", "one", 1)
    assert rows[0] == ["country", "backend", "open", "since", "the", "start"]
    assert rows[1][:3] == ["unknown", "one", "1"]


def test_open_connections_are_listed_the_oldest_or_the_busiest_first(
    ctl: Ctl, ctl_json: Callable[..., Any], proxy: Proxy, new_client: Callable[[], str]
) -> None:
    old, busy = new_client(), new_client()

    def listed(*options: str) -> list[Any]:
        found: list[Any] = ctl_json("show", "connections", *options)["connections"]
        return [each for each in found if each["client"] in (old, busy)]

    with proxy.connect(old), ExitStack() as later:
        wait_until(listed, reason="the first to be accepted before the second")
        second = later.enter_context(proxy.connect(busy))
        greeting(second)
        second.sendall(b"x" * 1000)
        wait_until(lambda: listed("--by", "bytes")[0]["bytes_received"] == 1000, reason="the bytes to move")
        assert [each["client"] for each in listed()] == [old, busy]
        assert [each["client"] for each in listed("--by", "bytes")] == [busy, old]
        (one,) = ctl_json("show", "connections", "--count", "1", "--by", "bytes")["connections"]
        assert (one["client"], one["backend"], one["state"], one["app"]) == (busy, "one", "open", "*")
        rows = word_rows(ctl("show", "connections", "--by", "bytes").out)
        assert [old, "unknown", "one", "open"] in [row[:4] for row in rows]
    assert ctl("show", "connections", "--by", "beauty").code == 2


def test_workers_that_did_not_answer_are_told(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [{"country": "DE", "backend": "one", "active": 3, "opened": 7}]
    answer = {"counts": counts, "connections": [], "workers_silent": 2}
    monkeypatch.setattr("edgeproxy.admin_client.AdminClient.ask", lambda *_arguments, **_more: answer)
    said = ctl("show", "connections").out.splitlines()
    assert said[-1] == "2 workers did not answer in time."
    assert ["DE", "one", "3", "7"] in word_rows("\n".join(said))


def test_rows_of_other_pops_that_the_table_refuses_are_told(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {
        "node": "eu-1",
        "cluster": "stories",
        "sealed": True,
        "running": True,
        "pulling": None,
        "store_waiting": 0,
        "members": [],
        "namesake": None,
        "refused_peers": {},
        "refused_datagrams": {},
        "counts": {"written": 0, "applied": 0, "warnings": {}},
        "known": {},
        "lag": {},
        "refused_rows": {"mock-us-1": "the port is taken"},
    }
    monkeypatch.setattr("edgeproxy.admin_client.AdminClient.ask", lambda *_arguments, **_more: answer)
    said = ctl("show", "replication").out.splitlines()
    assert said[-1] == "refused by the table  mock-us-1: the port is taken"
    assert not any("changes known" in line for line in said)


def test_events_are_shown_the_latest_last(ctl: Ctl, ctl_json: Callable[..., Any], proxy: Proxy) -> None:
    lines = ctl("show", "events").out.splitlines()
    told = [line.split("  ")[1:3] for line in lines]
    assert told[:2] == [["registry", "routing table changed"], ["config", "listening"]]
    assert f"address={proxy.address}" in lines[1]
    assert ctl("show", "events", "--topic", "config", "--count", "1").out.splitlines() == lines[1:2]
    answer = ctl_json("show", "events", "--topic", "config")
    assert [event["name"] for event in answer["events"]] == ["listening"]
    assert answer["statistics"]["dropped"] == {}
    refused = ctl("show", "events", "--topic", "weather")
    assert (refused.code, refused.errors) == (
        1,
        ["there is no topic 'weather'; there are: config, registry, health, worker, drain, replication"],
    )


def test_events_that_were_dropped_are_counted(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"events": [], "statistics": {"dropped": {"low": 3, "normal": 4}}}
    monkeypatch.setattr("edgeproxy.admin_client.AdminClient.ask", lambda *_arguments, **_more: answer)
    assert ctl("show", "events").out == (
        "7 events were dropped since the start, because too many came at once.\n"
    )


def test_the_rate_limit_of_a_client_is_shown_and_cleared(
    start_proxy: StartProxy,
    backend: Backend,
    new_client: Callable[[], str],
    ctl: Ctl,
    ctl_json: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = start_proxy(
        [row("one", backend.port)],
        rate_limit_enabled=1,
        rate_limit_burst=3,
        rate_limit_max_requests=1,
        rate_limit_window_secs=3600,
    )
    monkeypatch.setenv("EDGEPROXY_ADMIN_SOCKET", str(limited.admin_path))
    client = new_client()
    assert limited.backend_of(client) == "one"
    shown = f"client {client} may open {{}} connections at this moment\n"
    assert ctl("rate-limit", client).out == shown.format("2.0")
    assert ctl("rate-limit", client, "--clear").out == shown.format("3.0")
    assert limited.backend_of(client) == "one"
    assert ctl("rate-limit", "--clear").out == "1 clients were remembered; all are new now\n"
    assert ctl_json("rate-limit", client) == {"client": client, "connections_allowed": 3}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "write `rate-limit ADDRESS`, `rate-limit ADDRESS --clear` or `rate-limit --clear`"),
        (("192.0.2.1",), "there is no rate limit; set EDGEPROXY_RATE_LIMIT_ENABLED"),
    ],
)
def test_a_rate_limit_that_cannot_be_shown_says_why(ctl: Ctl, arguments: tuple[str, ...], error: str) -> None:
    assert ctl("rate-limit", *arguments).errors == [error]


def test_the_table_is_shown_with_the_rows_that_are_skipped(ctl: Ctl, ctl_json: Callable[..., Any]) -> None:
    lines = ctl("show", "table").out.splitlines()
    assert lines[0].startswith("version ")
    assert lines[-1].startswith("skipped  backend 'bad': port 0 ")
    answer = ctl_json("show", "table")
    assert {each["id"] for each in answer["backends"]} == {"one", "down"}
    assert len(answer["issues"]) == 1


def test_an_empty_table_is_said_to_be_empty(
    ctl: Ctl, start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = start_proxy()
    monkeypatch.setenv("EDGEPROXY_ADMIN_SOCKET", str(empty.admin_path))
    assert ctl("show", "backends").out == "There is no backend in the routing table.\n"
    assert len(ctl("show", "table").out.splitlines()) == 1
    assert "none" in ctl("show", "stats").out


def test_explain_asks_the_running_proxy(ctl: Ctl, ctl_json: Callable[..., Any]) -> None:
    assert "Client   200.160.2.3" in ctl("explain", "--client", "200.160.2.3").out
    assert ctl_json("explain", "--client", "200.160.2.3")["counts_known"] is True


# ---- set -----------------------------------------------------------------------------------------


@pytest.mark.feature("administration.set")
def test_a_drained_backend_gets_no_new_clients_until_it_is_ready(
    ctl: Ctl, proxy: Proxy, new_client: Callable[[], str]
) -> None:
    with proxy.connect(new_client()) as client:
        greeting(client)
        assert ctl("set", "backend", "one", "drain").out == "backend one gets no new clients\n"
        wait_until(lambda: proxy.backend_of(new_client()) == "", reason="clients to be refused")
        client.sendall(b"still here")
        assert client.recv(100) == b"still here"
    assert ctl("set", "backend", "one", "ready").out == "backend one is ready for clients\n"
    wait_until(lambda: proxy.backend_of(new_client()) == "one", reason="clients to be served")


def test_a_weight_is_in_the_table_when_the_command_returns(
    ctl: Ctl, ctl_json: Callable[..., Any], proxy: Proxy
) -> None:
    assert ctl("set", "backend", "one", "weight", "7").out == "backend one has weight 7\n"
    weights = {each["id"]: each["weight"] for each in ctl_json("show", "table")["backends"]}
    assert weights == {"one": 7, "down": 1}
    stored = RoutingTable(Geography.built_in())
    stored.replace(SqliteStore(proxy.db_path).poll() or ())
    assert {placed.backend.id: placed.backend.weight for placed in stored.snapshot()} == weights
    assert ctl_json("set", "backend", "one", "weight", "1") == {"backend": "one", "values": {"weight": 1}}


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("nobody", "drain"), 1, "there is no backend 'nobody'"),
        (("one", "weight", "256"), 1, "weight 256 "),
        (("one", "weight"), 2, "write `set backend ID drain`"),
        (("one", "drain", "5"), 2, "write `set backend ID drain`"),
    ],
)
def test_what_cannot_be_set_is_one_line(
    ctl: Ctl, arguments: tuple[str, ...], code: int, problem: str
) -> None:
    done = ctl("set", "backend", *arguments)
    assert (done.code, done.out, len(done.errors)) == (code, "", 1)
    assert problem in done.errors[0]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"values": {"weight": 1}}, "set_backend needs a backend"),
        ({"backend": "one"}, "set_backend needs a backend"),
        ({"backend": "one", "values": {}}, "set_backend needs a backend"),
        ({"backend": "one", "values": {"port": 1}}, "set_backend changes healthy and weight, not port"),
    ],
)
def test_the_proxy_checks_what_it_is_asked_to_set(
    proxy: Proxy, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(EdgeproxyError, match=problem):
        proxy.ask("set_backend", **arguments)


@pytest.mark.parametrize(
    ("command", "arguments", "problem"),
    [
        ("connections", {"count": -1}, "connections takes a count, a whole number up to "),
        ("connections", {"count": "all"}, "connections takes a count, a whole number up to "),
        ("connections", {"order": "beauty"}, "there is no order 'beauty'; there are: age, bytes"),
        ("replication", {}, "this POP replicates with nobody; set EDGEPROXY_REPLICATION_ENABLED"),
    ],
)
def test_the_proxy_checks_what_it_is_asked_to_show(
    proxy: Proxy, command: str, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(EdgeproxyError, match=problem):
        proxy.ask(command, **arguments)


def test_a_store_that_cannot_be_written_is_told(
    ctl: Ctl, start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    broken = start_proxy([row("one", backend.port)])
    monkeypatch.setenv("EDGEPROXY_ADMIN_SOCKET", str(broken.admin_path))
    edit(broken.db_path, "ALTER TABLE backends RENAME TO others")
    done = ctl("set", "backend", "one", "drain")
    assert (done.code, len(done.errors)) == (1, 1)
    assert str(broken.db_path) in done.errors[0]


# ---- reload --------------------------------------------------------------------------------------


def test_reload_prints_what_changed_and_what_waits(
    ctl: Ctl, start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text("")
    running = start_proxy(config=file)
    monkeypatch.setenv("EDGEPROXY_ADMIN_SOCKET", str(running.admin_path))
    assert ctl("reload").out == "nothing has changed\n"
    file.write_text('access_log = "all"\ndns_domain = "example"\n[countries]\nMX = "sa"')
    assert ctl("reload").out == (
        "access_log: off -> all\n"
        "dns_domain: internal -> example needs a restart\n"
        "geography: needs a restart\n"
    )
    assert json.loads(ctl("reload", "--json").out)["changed"] == {}
    file.write_text("nonsense = 1")
    done = ctl("reload")
    assert (done.code, len(done.errors)) == (1, 1)
    assert "nonsense: unknown setting" in done.errors[0]


# ---- nobody there --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "stats"),
        ("show", "backends"),
        ("show", "connections"),
        ("show", "table"),
        ("set", "backend", "one", "drain"),
        ("reload",),
        ("explain", "--client", "192.0.2.1"),
    ],
)
def test_without_a_running_proxy_there_is_one_error(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("EDGEPROXY_ADMIN_SOCKET", "/nowhere/admin.sock")
    done = ctl(*arguments)
    assert (done.code, done.out) == (1, "")
    (problem,) = done.errors
    assert problem == (
        "no running proxy answers on /nowhere/admin.sock; start one with `edgeproxy run`, or say with "
        "EDGEPROXY_ADMIN_SOCKET where it listens"
    )
