"""Settings of every part that change while it serves: what clients, backends and scrapers see of it."""

from __future__ import annotations

import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import dns.message
import dns.query
import pytest

from edgeproxy.core.wire.proxy_protocol import encode_v1
from edgeproxy.errors import EdgeproxyError
from packages.proxy.tests.integration.proxies import Api, Backend, Proxy, StartProxy, greeting, row
from testkit.pki import Pki
from testkit.wait import wait_until

NAME = "shop.example.com"
LISTENERS = """
[[listeners]]
address = "127.0.0.1:0"
proxy_protocol = true

[[listeners]]
address = "127.0.0.1:0"
app_from_sni = true
"""


class Pop(NamedTuple):
    """A proxy with all its parts, and the file that it reads."""

    proxy: Proxy
    file: Path
    tls_port: int
    proxied_port: int
    sni_port: int

    def reload(self, text: str = "", tables: str = "") -> Any:
        """Settings and tables besides those of the start; all others are as at the start."""
        self.file.write_text(f"{text}\n{tables}\n{LISTENERS}")
        return self.proxy.ask("reload")

    def listening(self, part: str) -> str:
        (line,) = self.proxy.log("listening")
        return str(line[part])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Path:
    folder = tmp_path_factory.mktemp("files")
    pki.issue(folder / "first.crt", folder / "first.key", NAME, "127.0.0.1")
    pki.issue(folder / "second.crt", folder / "second.key", NAME, "127.0.0.1")
    (folder / "edgeproxy.toml").write_text(LISTENERS)
    return folder


@pytest.fixture(scope="module")
def pop(start_shared_proxy: StartProxy, start_backend: Callable[[str], Backend], files: Path) -> Pop:
    proxy = start_shared_proxy(
        [
            row("one", start_backend("one").port),
            row("shop", start_backend("shop").port, app="shop", region="us"),
        ],
        config=files / "edgeproxy.toml",
        tls_enabled=True,
        tls_listen_addr="127.0.0.1:0",
        api_enabled=True,
        api_listen_addr="127.0.0.1:0",
        dns_enabled=True,
        dns_listen_addr="127.0.0.1:0",
        metrics_enabled=True,
        metrics_listen_addr="127.0.0.1:0",
    )
    (line,) = proxy.wait_log("listening")
    ports = [int(each.rpartition(":")[2]) for each in line["further"]]
    return Pop(proxy, files / "edgeproxy.toml", ports[2], ports[0], ports[1])


def is_turned_away(pop: Pop, client: str) -> bool:
    return pop.proxy.backend_of(client) == ""


def is_served(pop: Pop, client: str) -> bool:
    return pop.proxy.backend_of(client) == "one"


def shortly(is_so: Callable[[], bool], reason: str) -> None:
    """Workers hear of new settings a moment after the answer."""
    wait_until(is_so, reason=reason, timeout_s=10)


# ---- clients -----------------------------------------------------------------------------------------


def test_access_lists(pop: Pop, new_client: Callable[[], str]) -> None:
    client = new_client()
    assert is_served(pop, client)
    assert pop.reload(f'deny = ["{client}"]')["changed"]["deny"] == ["", f"{client}/32"]
    shortly(lambda: is_turned_away(pop, client), "the client to be denied")
    assert is_served(pop, new_client())
    pop.reload('allow_countries = ["BR"]')
    shortly(lambda: is_turned_away(pop, new_client()), "everybody else to be denied")
    pop.reload()
    shortly(lambda: is_served(pop, client), "the client to be let in again")


@pytest.mark.parametrize("name", ["idle_timeout_secs", "max_age_secs"])
def test_lifetimes_also_of_connections_that_are_open(
    pop: Pop, new_client: Callable[[], str], name: str
) -> None:
    pop.reload()
    with pop.proxy.connect(new_client()) as client:
        assert greeting(client) == "one"
        pop.reload(f"{name} = 0.05")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_trusted_peers_and_the_time_to_say_who_comes(pop: Pop) -> None:
    pop.reload('proxy_protocol_trusted = ["127.0.0.1"]\nopening_timeout_secs = 0.05')

    def says(header: bytes) -> str:
        with socket.create_connection(("127.0.0.1", pop.proxied_port), 10) as client:
            client.sendall(header)
            return greeting(client)

    shortly(lambda: says(b"") == "", "silence to be cut short")
    assert says(encode_v1("192.0.2.7", 1, "192.0.2.1", 80)) == "one"
    pop.reload()
    shortly(lambda: says(b"") == "one", "the peer to be nobody special")


def test_affinity(pop: Pop, new_client: Callable[[], str]) -> None:
    client = new_client()
    pop.reload()
    assert is_served(pop, client)

    def is_bound() -> bool:
        return str(pop.proxy.ask("explain", client=client)["bound_to"]) == "one"

    assert is_bound()
    pop.reload("binding_ttl_secs = 0.01\nbinding_gc_interval_secs = 0.05")
    shortly(lambda: not is_bound(), "the binding to have expired")


def test_what_backends_are_told_of_clients(pop: Pop, new_client: Callable[[], str]) -> None:
    client = new_client()

    def echo() -> str:
        with pop.proxy.connect(client) as connection:
            connection.sendall(b"hello")
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode().removeprefix("one\n")

    pop.reload()
    shortly(lambda: echo() == "hello", "the client's bytes alone")
    answer = pop.reload(tables='[[backend_rules]]\nmatch = "one"\nproxy_protocol = "v1"')
    assert answer["changed"] == {"backend_rules": []}
    shortly(lambda: echo().startswith(f"PROXY TCP4 {client} "), "a header ahead of them")
    pop.reload()


def test_names_that_clients_ask_for(pop: Pop) -> None:
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=NAME).do_handshake()
    hello = outgoing.read()

    def greeted_by() -> str:
        with socket.create_connection(("127.0.0.1", pop.sni_port), 10) as client:
            client.sendall(hello)
            # The hello comes back behind the name, as the backend echoes it.
            with suppress(ConnectionResetError):
                return client.recv(len("shop")).decode()
            return ""

    pop.reload()
    shortly(lambda: greeted_by() == "", "the name to be unknown")
    assert pop.reload(tables=f'[sni]\n"{NAME}" = "shop"')["changed"] == {"app_by_server_name": []}
    shortly(lambda: greeted_by() == "shop", "the name to mean an app")
    pop.reload()


# ---- TLS ---------------------------------------------------------------------------------------------


def handshake(pop: Pop, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(
        socket.create_connection(("127.0.0.1", pop.tls_port), 10), server_hostname=NAME
    )


def serial(pop: Pop) -> int:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with handshake(pop, context) as client:
        der = client.getpeercert(binary_form=True)
    assert der is not None
    return hash(der)


def test_certificates_by_other_paths_and_the_protocols_that_are_offered(
    pop: Pop, files: Path, pki: Pki
) -> None:
    pop.reload()
    shortly(lambda: serial(pop) == serial(pop), "TLS")
    seen = {serial(pop)}
    for name in ("first", "second"):
        pop.reload(f'tls_cert = "{files}/{name}.crt"\ntls_key = "{files}/{name}.key"\ntls_alpn = ["{name}"]')
        shortly(lambda: serial(pop) not in seen, "another certificate")
        seen.add(serial(pop))
        context = pki.client()
        context.set_alpn_protocols(["second", "first"])
        with handshake(pop, context) as client:
            assert (client.selected_alpn_protocol(), greeting(client)) == (name, "one")
    pop.reload("tls_handshake_timeout_secs = 0.05")

    def is_cut_short() -> bool:
        began_s = time.monotonic()
        with socket.create_connection(("127.0.0.1", pop.tls_port), 60) as client:
            assert greeting(client) == ""
        return time.monotonic() - began_s < 8

    shortly(is_cut_short, "silence to be cut short")


def test_certificates_of_clients(pop: Pop, files: Path, pki: Pki) -> None:
    (files / "clients.pem").write_bytes(pki.authority)
    serving = f'tls_cert = "{files}/first.crt"\ntls_key = "{files}/first.key"'

    def is_let_in(context: ssl.SSLContext) -> bool:
        try:
            with handshake(pop, context) as client:
                return greeting(client) == "one"
        except (ssl.SSLError, ConnectionResetError):
            return False

    stranger, known = pki.client(), pki.client(certificate_for="alice")
    pop.reload(serving)
    shortly(lambda: is_let_in(stranger), "everybody to be let in")
    pop.reload(f'{serving}\ntls_client_auth = "required"\ntls_client_ca = "{files}/clients.pem"')
    shortly(lambda: not is_let_in(stranger), "strangers to be refused")
    assert is_let_in(known)
    pop.reload(f'{serving}\ntls_client_auth = "optional"\ntls_client_ca = "{files}/clients.pem"')
    shortly(lambda: is_let_in(stranger), "strangers to be let in again")


def test_certificate_that_cannot_be_used_changes_nothing_at_all(
    pop: Pop, files: Path, new_client: Callable[[], str]
) -> None:
    pop.reload()
    before = serial(pop)
    with pytest.raises(EdgeproxyError, match=r"nowhere\.crt"):
        pop.reload(f'tls_cert = "{files}/nowhere.crt"\ntls_key = "{files}/first.key"\ndeny = ["127.0.0.0/8"]')
    assert serial(pop) == before
    assert is_served(pop, new_client())
    assert pop.reload() == {"changed": {}, "needs_restart": {}}


# ---- the control process -----------------------------------------------------------------------------


def test_limits_of_the_api(pop: Pop) -> None:
    api = Api(pop.proxy)
    body = {
        "id": "b",
        "app": "web",
        "region": "eu",
        "ip": "127.0.0.1",
        "port": 1,
        "unknown": " " * 2000,
    }
    pop.reload()
    assert api.ask("POST", "/api/v1/register", body)[0] == 422, "a field that nobody knows"
    pop.reload("api_max_body_bytes = 1024\nheartbeat_ttl_secs = 17")
    assert api.ask("POST", "/api/v1/register", body)[0] == 413
    del body["unknown"]
    request = urllib.request.Request(
        f"{api.url}/api/v1/register", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Heartbeat-TTL-Secs"] == "17"
    assert api.ask("DELETE", "/api/v1/backends/b")[0] == 200
    pop.reload("api_rate_limit_per_sec = 1\napi_rate_limit_burst = 1")
    answers = [api.ask("GET", "/health")[0] for _ in range(4)]
    assert 429 in answers
    pop.reload()
    assert api.ask("GET", "/health")[0] == 200


def test_registrations_run_out_by_another_ttl(pop: Pop, start_backend: Callable[[str], Backend]) -> None:
    pop.reload()
    api = Api(pop.proxy)
    api.register(start_backend("fleeting"), app="fleeting")
    assert api.ask("GET", "/api/v1/backends/fleeting")[0] == 200
    pop.reload("heartbeat_ttl_secs = 0.05")
    shortly(lambda: api.ask("GET", "/api/v1/backends/fleeting")[0] == 404, "the registration to end")


def test_answers_of_dns(pop: Pop) -> None:
    host, _, port = pop.listening("dns").rpartition(":")

    def ask(name: str) -> dns.message.Message:
        return dns.query.udp(dns.message.make_query(name, "A"), host, port=int(port), timeout=10)

    pop.reload()
    assert ask("test.internal").answer[0].ttl == 30
    assert ask("eu.pops.internal").answer == []
    pop.reload('dns_ttl_secs = 7\ndns_pops = ["eu=192.0.2.9"]')
    assert ask("test.internal").answer[0].ttl == 7
    assert [str(each) for each in ask("eu.pops.internal").answer[0]] == ["192.0.2.9"]
    pop.reload("dns_rate_limit = 1")
    query = dns.message.make_query("test.internal", "A").to_wire()
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect((host, int(port)))
        # One or none is within the limit; of the others every second one is left without a reply.
        for _ in range(8):
            client.send(query)
        replies = (dns.message.from_wire(client.recv(65_535)) for _ in range(4))
        assert any(dns.flags.TC & reply.flags for reply in replies)
    pop.reload()
    # What was used up of the limit is used up of the next one, too, until time has passed.
    shortly(lambda: bool(ask("test.internal").answer), "the limit to be gone")


def test_path_of_the_metrics(pop: Pop) -> None:
    url = f"http://{pop.listening('metrics')}"

    def status(path: str) -> int:
        try:
            with urllib.request.urlopen(f"{url}{path}", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    pop.reload()
    assert (status("/metrics"), status("/other")) == (200, 404)
    pop.reload('metrics_path = "/other"')
    assert (status("/metrics"), status("/other"), status("/")) == (404, 200, 200)


def test_what_is_bound_to_sockets_and_memory_needs_a_restart(pop: Pop) -> None:
    pop.reload()
    answer = pop.reload("relay = 'copy'\naffinity_capacity = 2048\ndns_domain = 'elsewhere'")
    assert answer["changed"] == {}
    assert answer["needs_restart"] == {
        "relay": ["auto", "copy"],
        "affinity_capacity": ["262144", "2048"],
        "dns_domain": ["internal", "elsewhere"],
    }
    pop.reload()
