"""Who may call the API: holders of tokens, each within its scope, and without tokens this machine."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.core.controlplane.tokens import Scope
from edgeproxy.inbound import api_access
from edgeproxy.outbound.tokens_files import TokenFiles
from packages.proxy.tests.integration.inbound.api_pop import BACKEND, Pop, served

CALLS: Mapping[str, tuple[str, str, object]] = {
    "register": ("POST", "/api/v1/register", dict(BACKEND)),
    "heartbeat": ("POST", "/api/v1/heartbeat/b1", None),
    "deregister": ("DELETE", "/api/v1/backends/b1", None),
    "list": ("GET", "/api/v1/backends", None),
    "get": ("GET", "/api/v1/backends/b1", None),
    "explain": ("GET", "/api/v1/explain?client=192.0.2.1", None),
    "adjust": ("PATCH", "/api/v1/backends/b1", {"weight": 5}),
}
PERMITTED = {
    "read": {"list", "get", "explain"},
    "register web": {"register", "heartbeat", "deregister"},
    "register shop": set[str](),
    "admin": set(CALLS),
}


@pytest.fixture
async def pop(tmp_path: Path) -> AsyncIterator[Pop]:
    async with served(tmp_path) as pop:
        yield pop


# ---- tokens ----------------------------------------------------------------------------------


@pytest.mark.feature("api.tokens")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("holder", PERMITTED)
async def test_each_scope_permits_its_calls_and_no_others(pop: Pop, holder: str, call: str) -> None:
    await pop.register()
    scope, _, app = holder.partition(" ")
    token = pop.make_token(Scope(scope), app or None)
    method, path, body = CALLS[call]
    answer = await pop.ask(method, path, body, token=token)
    if call in PERMITTED[holder]:
        assert answer.status in (200, 201)
    else:
        assert (answer.status, answer.body["code"]) == (403, "forbidden")


async def test_token_of_an_app_cannot_take_over_the_backend_of_another(pop: Pop) -> None:
    await pop.register(app="shop")
    pop.token = pop.make_token(Scope.REGISTER, "web")
    answer = await pop.register(app="web")
    assert (answer.status, answer.body["code"]) == (403, "forbidden")
    assert answer.body["error"] == "this token is for backends of app web only"


@pytest.mark.parametrize("path", ["/health", "/ready", "/openapi.json"])
async def test_probes_and_the_document_need_no_token(pop: Pop, path: str) -> None:
    pop.make_token(Scope.ADMIN)
    assert (await pop.ask("GET", path)).status == 200


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer x", "Basic YTpi", "edgeproxy_x_y"])
async def test_call_without_a_token_is_refused_once_there_is_one(pop: Pop, header: str | None) -> None:
    assert (await pop.ask("GET", "/api/v1/backends")).status == 200
    pop.make_token(Scope.ADMIN)
    headers = {} if header is None else {"Authorization": header}
    answer = await pop.ask("GET", "/api/v1/backends", headers=headers)
    assert (answer.status, answer.body["code"]) == (401, "missing_token")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_token_with_a_wrong_secret_or_id_is_refused(pop: Pop) -> None:
    token = pop.make_token(Scope.ADMIN)
    prefix, token_id, secret = token.split("_", 2)
    for wrong in (f"{prefix}_{token_id}_{secret[::-1]}", f"{prefix}_{'0' * 12}_{secret}"):
        answer = await pop.ask("GET", "/api/v1/backends", token=wrong)
        assert (answer.status, answer.body["code"]) == (401, "bad_token")
    assert (await pop.ask("GET", "/api/v1/backends", token=token)).status == 200


async def test_scheme_may_be_written_in_any_case(pop: Pop) -> None:
    token = pop.make_token(Scope.ADMIN)
    answer = await pop.ask("GET", "/api/v1/backends", headers={"Authorization": f"bEARER {token}"})
    assert answer.status == 200


async def test_revoked_token_is_refused_at_once(pop: Pop) -> None:
    kept, revoked = pop.make_token(Scope.ADMIN), pop.make_token(Scope.ADMIN)
    assert (await pop.ask("GET", "/api/v1/backends", token=revoked)).status == 200
    pop.tokens.revoke(revoked.split("_")[1])
    assert (await pop.ask("GET", "/api/v1/backends", token=revoked)).status == 401
    assert (await pop.ask("GET", "/api/v1/backends", token=kept)).status == 200


async def test_tokens_that_cannot_be_read_shut_everybody_out(pop: Pop) -> None:
    token = pop.make_token(Scope.ADMIN)
    (file,) = pop.config.api_tokens_dir.iterdir()
    file.write_text("spoiled")
    answer = await pop.ask("GET", "/api/v1/backends", token=token)
    assert (answer.status, answer.body["code"]) == (503, "tokens_unavailable")
    assert str(file) not in answer.body["error"]
    assert any("is no token file" in str(fields) for _, fields in pop.log.lines)


async def test_no_token_reaches_the_log(pop: Pop) -> None:
    pop.token = pop.make_token(Scope.ADMIN)
    wrong = pop.token[:-4] + "abcd"
    await pop.register()
    await pop.ask("GET", "/api/v1/backends", token=wrong)
    await pop.ask("DELETE", "/api/v1/backends/b1")
    assert pop.log.lines
    for token in (pop.token, wrong):
        assert token.rpartition("_")[2] not in str(pop.log.lines)


# ---- this machine ----------------------------------------------------------------------------


def address_of_this_machine() -> str:
    """An address of ours that is no loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address: str = probe.getsockname()[0]
        return address


async def test_without_a_token_only_this_machine_may_call(tmp_path: Path) -> None:
    tokens = TokenFiles(tmp_path / "tokens")
    made, _ = tokens.create(Scope.ADMIN, None, "", 1.0)
    async with served(tmp_path, api_listen_addr="0.0.0.0:0", api_tokens_dir=tmp_path / "tokens") as pop:
        port = pop.port.address.rpartition(":")[2]
        tokens.revoke(made.id)
        elsewhere = f"http://{address_of_this_machine()}:{port}"
        pop.port.address = elsewhere.removeprefix("http://")
        answer = await pop.ask("GET", "/api/v1/backends")
        assert (answer.status, answer.body["code"]) == (403, "loopback_only")
        assert "edgeproxy token create" in answer.body["error"]
        assert (await pop.ask("GET", "/health")).status == 200
        pop.port.address = f"127.0.0.1:{port}"
        assert (await pop.ask("GET", "/api/v1/backends")).status == 200


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        (("::1", 1, 0, 0), 200),
        (("::ffff:127.0.0.1", 1, 0, 0), 200),
        (("127.8.8.8", 1), 200),
        (("::ffff:10.0.0.1", 1, 0, 0), 403),
        (("fe80::1%eth0", 1, 0, 2), 403),
        (("10.0.0.1", 1), 403),
        (None, 403),
    ],
)
async def test_loopback_is_told_from_other_addresses(
    pop: Pop, monkeypatch: pytest.MonkeyPatch, peer: tuple[object, ...] | None, status: int
) -> None:
    class Transport:
        def get_extra_info(self, name: str) -> object:
            return peer

    class Request:
        transport = Transport() if peer is not None else None

    real: Callable[[Any], str] = api_access.peer_address
    monkeypatch.setattr(api_access, "peer_address", lambda _request: real(Request()))
    assert (await pop.ask("GET", "/api/v1/backends")).status == status
