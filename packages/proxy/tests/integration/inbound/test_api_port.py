"""Where the API listens: never where others reach it unprotected."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgeproxy.config import Address
from edgeproxy.core.controlplane.tokens import Scope
from edgeproxy.errors import ConfigError, EdgeproxyError, ListenError
from edgeproxy.inbound import api_port
from edgeproxy.inbound.api_port import ApiPort
from edgeproxy.inbound.bound_socket import bind_socket
from edgeproxy.outbound.tokens_files import TokenFiles
from packages.proxy.tests.integration.inbound.api_pop import Pop, served
from testkit.wait import wait_until_async


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.2"])
def test_chosen_address_that_others_reach_needs_a_token(tmp_path: Path, host: str) -> None:
    tokens = TokenFiles(tmp_path / "tokens")
    with pytest.raises(ConfigError, match=r"EDGEPROXY_API_LISTEN_ADDR: .* `edgeproxy token create`"):
        ApiPort(Address(host, 0), tokens, chosen_by="EDGEPROXY_API_LISTEN_ADDR")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_chosen_address_is_taken_once_there_is_a_token(tmp_path: Path, host: str) -> None:
    tokens = TokenFiles(tmp_path / "tokens")
    tokens.create(Scope.READ, None, "", 1.0)
    port = ApiPort(Address(host, 0), tokens, chosen_by="a flag")
    assert port.socket.getsockname()[0] == host
    assert port.place_to_move_to() is None
    port.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1"])
def test_chosen_loopback_address_needs_no_token(tmp_path: Path, host: str) -> None:
    port = ApiPort(Address(host, 0), TokenFiles(tmp_path / "tokens"), chosen_by="a flag")
    assert port.socket.getsockname()[0] == host
    port.close()


async def test_default_address_opens_with_the_first_token_and_closes_after_the_last(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pop, "url", f"http://127.0.0.1:{port}")
    async with served(tmp_path, api_listen_addr=f"127.0.0.1:{port}") as pop:
        let_it_move(pop, "0.0.0.0")
        token = pop.make_token(Scope.ADMIN)
        await wait_until_async(lambda: pop.port.address.startswith("0.0.0.0:"), reason="the port to open")
        assert pop.port.socket.getsockname()[0] == "0.0.0.0"
        await wait_until_async(
            lambda: answers(pop, token), reason="the API to answer there", swallow=(OSError,)
        )
        pop.tokens.revoke(token.split("_")[1])
        await wait_until_async(lambda: pop.port.address.startswith("127.0.0.1:"), reason="the port to close")
        await wait_until_async(
            lambda: answers(pop, None), reason="the API to answer there", swallow=(OSError,)
        )
        moved = [fields["api"] for event, fields in pop.log.lines if event.startswith("the API moved")]
        assert [address.partition(":")[0] for address in moved] == ["0.0.0.0", "127.0.0.1"]


def let_it_move(pop: Pop, host: str) -> None:
    """Treat the address as the default one, with ``host`` as where it is once there is a token."""
    pop.port._is_default, pop.port._address = True, Address(host, 0)
    assert pop.port.place_to_move_to() is None


async def answers(pop: Pop, token: str | None) -> bool:
    return (await pop.ask("GET", "/api/v1/backends", token=token)).status == 200


async def test_port_that_cannot_move_stays_and_tells_it_once(tmp_path: Path, port: int) -> None:
    async with served(tmp_path, api_listen_addr=f"127.0.0.1:{port}") as pop:
        let_it_move(pop, "198.51.100.1")
        token = pop.make_token(Scope.ADMIN)
        told = "the API cannot move, though tokens came or went"
        await wait_until_async(lambda: told in pop.log.events(), reason="the log to tell")
        await wait_until_async(lambda: answers(pop, token), reason="the API to answer", swallow=(OSError,))
        assert pop.port.place_to_move_to() is None
        assert pop.log.events().count(told) == 1


async def test_port_that_another_program_took_meanwhile_is_tried_again(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_bind, refusals = bind_socket, iter(range(2))

    def refuse_at_first(address: Address, **words: str) -> socket.socket:
        if next(refusals, None) is not None:
            raise ListenError(f"{address} is taken")
        return real_bind(address, **words)  # type: ignore[arg-type]

    async with served(tmp_path, api_listen_addr=f"127.0.0.1:{port}") as pop:
        let_it_move(pop, "127.0.0.1")
        monkeypatch.setattr(api_port, "bind_socket", refuse_at_first)
        pop.port._placed_for = "elsewhere"
        moved = "the API moved, since tokens came or went"
        await wait_until_async(lambda: moved in pop.log.events(), reason="the API to be back")
        await wait_until_async(lambda: answers(pop, None), reason="the API to answer", swallow=(OSError,))


def test_tokens_that_cannot_be_read_move_nothing(tmp_path: Path) -> None:
    class Unreadable:
        def get(self, token_id: str) -> None:
            raise EdgeproxyError(token_id)

        def is_empty(self) -> bool:
            raise EdgeproxyError("unreadable")

    port = ApiPort(Address("127.0.0.1", 0), TokenFiles(tmp_path / "tokens"), chosen_by=None)
    port.tokens = Unreadable()
    assert port.place_to_move_to() is None
    port.close()


def test_taken_port_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(
            ListenError, match=r"another process has the port .*; set EDGEPROXY_API_LISTEN_ADDR"
        ):
            ApiPort(address, TokenFiles(tmp_path / "tokens"), chosen_by=None)


def test_address_of_another_machine_is_an_error(tmp_path: Path) -> None:
    tokens = TokenFiles(tmp_path / "tokens")
    tokens.create(Scope.READ, None, "", 1.0)
    with pytest.raises(ListenError, match="no interface of this machine has that address"):
        ApiPort(Address("198.51.100.1", 0), tokens, chosen_by="a flag")
