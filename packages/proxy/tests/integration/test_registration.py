"""Backends that register themselves with a running proxy, and clients that reach them, all over sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.core.controlplane.tokens import Scope
from edgeproxy.outbound.tokens_files import TokenFiles
from packages.proxy.tests.integration.proxies import (
    API,
    EDGEPROXY,
    PROMISE_S,
    Api,
    Backend,
    Proxy,
    StartProxy,
    edit,
    environment,
    write_rows,
)
from testkit.process import ProcessFactory
from testkit.wait import wait_until

StartBackend = Callable[[str], Backend]


def reaches(proxy: Proxy, client: str, name: str) -> None:
    wait_until(
        lambda: proxy.backend_of(client) == name,
        reason=f"{client} to reach {name or 'nobody'}",
        timeout_s=10 * PROMISE_S,
    )


def test_registered_backend_gets_clients_until_it_deregisters(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: Callable[[], str]
) -> None:
    proxy = start_proxy(**API)
    api = Api(proxy)
    client = new_client()
    assert proxy.backend_of(client) == ""
    api.register(start_backend("self-made"))
    reaches(proxy, client, "self-made")
    with proxy.connect(client) as still_open:
        assert still_open.recv(10) == b"self-made\n"
        assert api.ask("DELETE", "/api/v1/backends/self-made")[0] == 200
        reaches(proxy, client, "")
        still_open.sendall(b"still here")
        assert still_open.recv(10) == b"still here"


def test_silent_backend_gets_no_clients_and_is_back_with_its_next_heartbeat(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: Callable[[], str]
) -> None:
    proxy = start_proxy(**API, heartbeat_ttl_secs=2)
    api = Api(proxy)
    client = new_client()
    api.register(start_backend("silent"))
    reaches(proxy, client, "silent")
    reaches(proxy, client, "")
    assert api.ask("GET", "/api/v1/backends/silent")[1]["healthy"] is False
    assert api.ask("POST", "/api/v1/heartbeat/silent")[0] == 200
    reaches(proxy, client, "silent")


def test_adjusting_changes_where_connections_go(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: Callable[[], str]
) -> None:
    proxy = start_proxy(**API)
    api = Api(proxy)
    api.register(start_backend("one"))
    api.register(start_backend("two"), region="us")
    reaches(proxy, new_client(), "one")
    assert api.ask("PATCH", "/api/v1/backends/one", {"drain": True})[1]["healthy"] is False
    reaches(proxy, new_client(), "two")
    assert api.ask("PATCH", "/api/v1/backends/one", {"healthy": True, "hard_limit": 1})[0] == 200
    reaches(proxy, first := new_client(), "one")
    wait_until(lambda: proxy.stats()["backends"]["one"] == 0, reason="the connection to end")
    with proxy.connect(first) as holder:
        assert holder.recv(4) == b"one\n"
        assert proxy.backend_of(new_client()) == "two"


def test_weight_shifts_new_clients(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: Callable[[], str]
) -> None:
    proxy = start_proxy(**API)
    api = Api(proxy)
    for name in ("light", "heavy"):
        api.register(start_backend(name), soft_limit=10)
    assert api.ask("PATCH", "/api/v1/backends/heavy", {"weight": 200})[0] == 200
    wait_until(lambda: len(proxy.ask("explain", client="127.0.0.1")["candidates"]) == 2, reason="both rows")
    clients = [proxy.connect(new_client()) for _ in range(20)]
    names = [client.recv(10) for client in clients]
    for client in clients:
        client.close()
    assert names.count(b"heavy\n") > 15


def test_api_and_command_line_explain_alike(
    start_proxy: StartProxy, start_backend: StartBackend, tmp_path: Path
) -> None:
    proxy = start_proxy(**API)
    api = Api(proxy)
    api.register(start_backend("one"))
    api.register(start_backend("two"), region="us", weight=9)
    api.ask("PATCH", "/api/v1/backends/two", {"drain": True})
    settings = environment({"db_path": proxy.db_path, "admin_socket": proxy.admin_path, "region": "eu"})
    command = [*EDGEPROXY, "explain", "--client", "200.160.2.3", "--app", "test", "--json"]
    printed = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, check=True, cwd=tmp_path
    )
    assert api.ask("GET", "/api/v1/explain?client=200.160.2.3&app=test") == (200, json.loads(printed.stdout))


def test_restart_keeps_registrations(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: Callable[[], str]
) -> None:
    first = start_proxy(**API)
    Api(first).register(start_backend("lasting"))
    first.process.kill(signal.SIGKILL)
    first.process.wait_exit()
    edit(first.db_path, "UPDATE edgeproxy_leases SET registered_at = registered_at - 500")
    second = start_proxy(**API, db_path=first.db_path)
    api = Api(second)
    assert api.ask("GET", "/api/v1/backends/lasting")[1]["registered_secs"] >= 500
    reaches(second, new_client(), "lasting")
    assert api.ask("POST", "/api/v1/heartbeat/lasting")[0] == 200


def test_proxy_that_drains_is_not_ready_and_takes_no_registrations(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: Callable[[], str]
) -> None:
    proxy = start_proxy(**API)
    api = Api(proxy)
    api.register(start_backend("busy"))
    client = new_client()
    reaches(proxy, client, "busy")
    assert api.ask("GET", "/ready") == (200, {"status": "ready"})
    with proxy.connect(client) as holder:
        assert holder.recv(5) == b"busy\n"
        proxy.process.kill(signal.SIGTERM)
        wait_until(lambda: api.ask("GET", "/ready")[0] == 503, reason="the proxy to drain")
        assert api.ask("DELETE", "/api/v1/backends/busy")[1]["code"] == "draining"
        assert api.ask("GET", "/health")[0] == 200
    assert proxy.process.wait_exit() == 0


def test_token_made_while_the_proxy_runs_is_asked_for_and_taken(start_proxy: StartProxy) -> None:
    proxy = start_proxy(**API)
    api = Api(proxy)
    assert api.ask("GET", "/api/v1/backends")[0] == 200
    create = [*EDGEPROXY, "token", "create", "--scope", "read"]
    settings = {**os.environ, **environment({"db_path": proxy.db_path})}
    token = subprocess.run(create, env=settings, capture_output=True, text=True, check=True).stdout.strip()
    assert api.ask("GET", "/api/v1/backends")[0] == 401
    assert api.ask("GET", "/api/v1/backends", token=token)[0] == 200
    assert token not in proxy.process.log


def test_proxy_without_the_api_does_not_load_it() -> None:
    check = "import edgeproxy.app, sys; sys.exit('aiohttp' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


# ---- starts that cannot succeed --------------------------------------------------------------


@pytest.fixture
def fails(process_factory: ProcessFactory, tmp_path: Path) -> Callable[..., str]:
    """Start a proxy that must end with the given exit code and one line, which is returned."""
    write_rows(tmp_path / "routing.db", [])

    def start(exit_code: int, **settings: object) -> str:
        chosen = {"listen_addr": "127.0.0.1:0", "workers": 1, **API, **settings}
        process = process_factory([*EDGEPROXY, "run"], env=environment(chosen), cwd=tmp_path)
        assert process.wait_exit() == exit_code, process.log
        assert process.group() == []
        (line,) = process.log.splitlines()
        return line.removeprefix("edgeproxy: error: ")

    return start


def test_open_address_without_a_token_exits_2_and_names_the_command(fails: Callable[..., str]) -> None:
    line = fails(2, api_listen_addr="0.0.0.0:0")
    assert line.startswith("EDGEPROXY_API_LISTEN_ADDR: 0.0.0.0:0 can be reached from other machines")
    assert "`edgeproxy token create`" in line


def test_taken_address_exits_5_and_names_the_setting(fails: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = fails(5, api_listen_addr=f"127.0.0.1:{taken.getsockname()[1]}")
    assert line.endswith("set EDGEPROXY_API_LISTEN_ADDR")


def test_certificate_that_is_missing_exits_2_and_names_it(fails: Callable[..., str]) -> None:
    line = fails(2, api_tls_cert="missing.pem", api_tls_key="missing.key")
    assert line.startswith("EDGEPROXY_API_TLS_CERT missing.pem and EDGEPROXY_API_TLS_KEY missing.key cannot")


def test_tokens_that_cannot_be_read_exit_1_and_name_the_setting(
    fails: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    line = fails(1, api_listen_addr="0.0.0.0:0", api_tokens_dir="file")
    assert line == "the folder of tokens file cannot be read: Not a directory; set EDGEPROXY_API_TOKENS_DIR"


# ---- edgeproxy register ----------------------------------------------------------------------


def register_command(url: str, backend: Backend, *options: str) -> list[str]:
    return [
        *(*EDGEPROXY, "register", url, "--id", backend.name, "--app", "test", "--region", "eu"),
        *("--ip", "127.0.0.1", "--port", str(backend.port), *options),
    ]


@pytest.mark.feature("api.sidecar")
def test_sidecar_keeps_a_backend_registered_until_it_is_told_to_end(
    start_proxy: StartProxy,
    start_backend: StartBackend,
    new_client: Callable[[], str],
    process_factory: ProcessFactory,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "tokens"
    _, token = TokenFiles(folder).create(Scope.REGISTER, "test", "", 1.0)
    (tmp_path / "token").write_text(f"{token}\n")
    proxy = start_proxy(**API, api_tokens_dir=folder)
    command = register_command(
        Api(proxy).url, start_backend("guarded"), "--token-file", str(tmp_path / "token")
    )
    sidecar = process_factory(command, ready="guarded: registered")
    sidecar.wait_ready()
    client = new_client()
    reaches(proxy, client, "guarded")
    sidecar.terminate(expect_exit=0)
    assert sidecar.log.splitlines()[-1] == "guarded: deregistered"
    reaches(proxy, client, "")
    assert token not in sidecar.log


def test_sidecar_that_is_refused_exits_1_and_says_why(
    start_proxy: StartProxy, start_backend: StartBackend, process_factory: ProcessFactory
) -> None:
    proxy = start_proxy(**API)
    command = register_command(Api(proxy).url, start_backend("wrong"), "--weight", "256")
    sidecar = process_factory(command)
    assert sidecar.wait_exit() == 1
    assert "422" in sidecar.log
    assert '"field":"weight"' in sidecar.log


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--token-file", "--token-file missing: cannot be read"),
        ("--ca-file", "--ca-file missing: holds no certificate"),
    ],
)
def test_sidecar_without_its_files_exits_2(
    start_backend: StartBackend, process_factory: ProcessFactory, option: str, problem: str, tmp_path: Path
) -> None:
    command = register_command("https://127.0.0.1:1", start_backend("lost"), option, "missing")
    sidecar = process_factory(command, cwd=tmp_path)
    assert sidecar.wait_exit() == 2
    assert problem in sidecar.log


def test_sidecar_that_waits_for_a_proxy_ends_when_told(
    start_backend: StartBackend, process_factory: ProcessFactory, port: int
) -> None:
    command = register_command(f"http://127.0.0.1:{port}", start_backend("waiting"))
    sidecar = process_factory(command, ready="waiting: not registered yet")
    sidecar.wait_ready()
    sidecar.terminate(expect_exit=0)
