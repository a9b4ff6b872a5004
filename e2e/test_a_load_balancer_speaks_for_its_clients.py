"""Behind a load balancer that sends PROXY headers, clients are routed by their own addresses."""

from __future__ import annotations

import socket

import pytest

from e2e.clients import Client, Connection
from e2e.pop import Pop, Proxy

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def _header(version: int, client: Client) -> bytes:
    """The header of a TCP connection of a client to some address of the balancer."""
    if version == 1:
        return f"PROXY TCP4 {client.address} 192.0.2.1 40000 443\r\n".encode()
    addresses = socket.inet_aton(client.address) + socket.inet_aton("192.0.2.1")
    body = addresses + (40000).to_bytes(2, "big") + (443).to_bytes(2, "big")
    return _SIGNATURE + b"\x21\x11" + len(body).to_bytes(2, "big") + body


def _ask_through(balancer: Client, proxy: Proxy, port: int, header: bytes) -> str:
    sock = balancer.socket(proxy, port)
    sock.sendall(header)
    with Connection.over(sock) as connection:
        return connection.ask()


@pytest.mark.feature("proxy_protocol.in", "listeners.further")
@pytest.mark.planted(proxy_protocol_trusted="0.0.0.0/0")
def test_the_address_in_the_header_counts_for_whom_is_trusted_and_for_nobody_else(pop: Pop) -> None:
    address, port = pop.listen()
    balancer, stranger = pop.client("DE", 1), pop.client("DE", 2)
    settings = pop.write(
        "edgeproxy.toml",
        f'proxy_protocol_trusted = "{balancer.address}/32"\n'
        f'[[listeners]]\naddress = "{address}"\nproxy_protocol = true\n',
    )
    pop.configure(config=settings)
    pop.start_backends({"mock-sa-1": "BR", "mock-eu-1": "DE", "mock-us-1": "US"})
    proxy = pop.start_proxy()

    for version in (1, 2):
        pop.step(f"the balancer speaks version {version}")
        asked = {
            country: _ask_through(balancer, proxy, port, _header(version, pop.client(country)))
            for country in ("BR", "DE", "US")
        }
        assert asked == {"BR": "mock-sa-1", "DE": "mock-eu-1", "US": "mock-us-1"}

    pop.step("somebody else claims to be in Brazil")
    with stranger.socket(proxy, port) as sock:
        sock.sendall(_header(1, pop.client("BR")) + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        # The claim goes to the backend of where they are, which takes it for a bad request.
        answer = sock.recv(65536)
        assert b" 400 " in answer.splitlines()[0], "a header of a stranger was believed"
        assert b"X-Backend-ID: mock-eu-1" in answer
    assert stranger.ask(proxy, port) == "mock-eu-1"
