"""TLS of the running proxy: its own certificate, those of files, and their renewal."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from edgeproxy.config import load
from edgeproxy.errors import ConfigError
from packages.proxy.tests.integration.proxies import Backend, Proxy, StartProxy, greeting, row
from testkit.pki import Pki
from testkit.process import ProcessFactory
from testkit.wait import wait_until

NAME = "shop.example.com"


def tls_port(proxy: Proxy) -> int:
    (listening,) = proxy.wait_log("listening")
    return int(str(listening["further"][-1]).rpartition(":")[2])


def handshake(proxy: Proxy, context: ssl.SSLContext, name: str = NAME) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", tls_port(proxy)), 10)
    return context.wrap_socket(sock, server_hostname=name)


def test_without_a_certificate_a_self_signed_one_is_shown(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend]
) -> None:
    backend = start_backend("web")
    proxy = start_proxy([row("web", backend.port)], tls_enabled=True, tls_listen_addr="127.0.0.1:0")
    der = ssl.get_server_certificate(("127.0.0.1", tls_port(proxy)))
    trusting = ssl.create_default_context(cadata=der)
    for name in ("edgeproxy.internal", "localhost", "127.0.0.1"):
        with handshake(proxy, trusting, name) as client:
            assert greeting(client) == "web"
    proxy.wait_log("a certificate should be replaced")
    assert "PRIVATE" not in proxy.process.log


def test_certificates_are_loaded_again_when_their_files_change(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend], tmp_path: Path
) -> None:
    old, new, backend = Pki(), Pki(), start_backend("web")
    folder = tmp_path / "certificates"
    folder.mkdir()
    old.issue(folder / "a.crt", folder / "a.key", NAME)
    proxy = start_proxy(
        [row("web", backend.port)],
        tls_enabled=True,
        tls_listen_addr="127.0.0.1:0",
        tls_cert_dir=folder,
        tls_alpn="h2",
    )
    with handshake(proxy, old.client()) as client:
        assert greeting(client) == "web"
    (folder / "a.key").write_text("nonsense")
    proxy.wait_log("a certificate cannot be used")
    with handshake(proxy, old.client()) as client:
        assert greeting(client) == "web"
    new.issue(folder / "a.crt", folder / "a.key", NAME)

    def is_new() -> bool:
        try:
            with handshake(proxy, new.client()) as client:
                return greeting(client) == "web"
        except ssl.SSLCertVerificationError:
            return False

    wait_until(is_new, reason="the new certificate", timeout_s=10)
    (pid,) = proxy.stats()["workers"]
    os.kill(pid, signal.SIGKILL)
    proxy.wait_log("a worker died, starting another")
    wait_until(is_new, reason="the next worker to show it too", timeout_s=10, swallow=(OSError,))


def test_a_listener_of_the_file_may_terminate_tls(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend], tmp_path: Path
) -> None:
    backend, pki = start_backend("shop-1"), Pki()
    pki.issue(tmp_path / "a.crt", tmp_path / "a.key", NAME)
    (tmp_path / "edge.toml").write_text(
        '[[listeners]]\naddress = "127.0.0.1:0"\ntls = "terminate"\napp_from_sni = true\n'
        f'[sni]\n"{NAME}" = "shop"\n'
    )
    proxy = start_proxy(
        [row("shop-1", backend.port, app="shop")],
        tls_cert=tmp_path / "a.crt",
        tls_key=tmp_path / "a.key",
        config=tmp_path / "edge.toml",
    )
    with handshake(proxy, pki.client()) as client:
        assert greeting(client) == "shop-1"


def test_certificates_of_which_none_can_be_used_end_the_start(
    process_factory: ProcessFactory, tmp_path: Path
) -> None:
    (tmp_path / "a.crt").write_text("nonsense")
    (tmp_path / "a.key").write_text("nonsense")
    process = process_factory(
        [sys.executable, "-m", "edgeproxy", "run"],
        env={
            "EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0",
            "EDGEPROXY_TLS_LISTEN_ADDR": "127.0.0.1:0",
            "EDGEPROXY_TLS_ENABLED": "1",
            "EDGEPROXY_TLS_CERT": str(tmp_path / "a.crt"),
            "EDGEPROXY_TLS_KEY": str(tmp_path / "a.key"),
        },
        cwd=tmp_path,
        name="edgeproxy",
    )
    assert process.wait_exit() == 2
    assert "a.crt" in process.log


@pytest.mark.parametrize("value", ['"passthrough"', "true"])
def test_another_way_of_tls_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(f'[[listeners]]\naddress = "127.0.0.1:0"\ntls = {value}\n')
    with pytest.raises(ConfigError, match='must be "terminate"'):
        load({}, {}, path)


# ---- certificates of clients ---------------------------------------------------------------------


@pytest.mark.feature("tls.client_certificates")
def test_clients_show_certificates_of_an_authority_that_may_change(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend], tmp_path: Path
) -> None:
    ours, old, new, backend = Pki(), Pki(), Pki(), start_backend("web")
    ours.issue(tmp_path / "a.crt", tmp_path / "a.key", NAME)
    (tmp_path / "clients.pem").write_bytes(old.authority)
    proxy = start_proxy(
        [row("web", backend.port)],
        tls_enabled=True,
        tls_listen_addr="127.0.0.1:0",
        tls_cert=tmp_path / "a.crt",
        tls_key=tmp_path / "a.key",
        tls_client_auth="required",
        tls_client_ca=tmp_path / "clients.pem",
        access_log="all",
    )

    def is_let_in(authority: Pki) -> bool:
        context = authority.client(certificate_for="alice")
        context.load_verify_locations(cadata=ours.authority.decode())
        try:
            with handshake(proxy, context) as client:
                return greeting(client) == "web"
        except ssl.SSLError:
            return False

    assert is_let_in(old)
    assert [line.get("certificate") for line in proxy.wait_log("session")] == ["alice"]
    assert not is_let_in(new)
    wait_until(lambda: proxy.stats()["closes"].get("tls_certificate") == 1, reason="the count")
    (tmp_path / "clients.pem").write_bytes(new.authority)
    wait_until(lambda: is_let_in(new), reason="the new authority", timeout_s=10)
    assert not is_let_in(old)


def test_authorities_that_cannot_be_read_end_the_start(
    process_factory: ProcessFactory, tmp_path: Path
) -> None:
    process = process_factory(
        [sys.executable, "-m", "edgeproxy", "run"],
        env={
            "EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0",
            "EDGEPROXY_TLS_LISTEN_ADDR": "127.0.0.1:0",
            "EDGEPROXY_TLS_ENABLED": "1",
            "EDGEPROXY_TLS_CLIENT_AUTH": "optional",
            "EDGEPROXY_TLS_CLIENT_CA": str(tmp_path / "missing.pem"),
        },
        cwd=tmp_path,
        name="edgeproxy",
    )
    assert process.wait_exit() == 2
    assert "missing.pem" in process.log


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"EDGEPROXY_TLS_CLIENT_AUTH": "required"}, "needs EDGEPROXY_TLS_CLIENT_CA"),
        ({"EDGEPROXY_TLS_CLIENT_CA": "ca.pem"}, "set EDGEPROXY_TLS_CLIENT_AUTH"),
    ],
)
def test_who_may_come_is_said_whole_or_not_at_all(variables: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(variables, {}, None)


# ---- TLS to backends -----------------------------------------------------------------------------


@contextmanager
def tls_backend(context: ssl.SSLContext, header: bytes = b"") -> Iterator[int]:
    """A backend that wants a PROXY line which begins with ``header``, then TLS, then greets; its port."""

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), sock:
                sock.settimeout(10)
                line = b""
                while header and not line.endswith(b"\n"):
                    line += sock.recv(1)
                assert line.startswith(header)
                with context.wrap_socket(sock, server_side=True) as stream:
                    stream.sendall(b"secure\n")
                    stream.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.feature("tls.backends")
def test_backends_are_spoken_to_and_checked_in_tls(start_proxy: StartProxy, tmp_path: Path) -> None:
    old, new = Pki(), Pki()
    path = tmp_path / "ca.pem"
    path.write_bytes(new.authority)
    (tmp_path / "edge.toml").write_text(
        '[[backend_rules]]\nmatch = "*"\nproxy_protocol = "v1"\ntls = true\n'
        f'tls_server_name = "shop.internal"\ntls_ca = "{path}"\n'
    )
    with tls_backend(old.server("shop.internal"), b"PROXY ") as port:
        proxy = start_proxy(
            [row("web", port)],
            config=tmp_path / "edge.toml",
            health_check_enabled=True,
            health_check_interval_secs=0.1,
            health_check_fast_interval_secs=0.1,
            health_unhealthy_threshold=1,
            health_healthy_threshold=1,
        )
        (line,) = proxy.wait_log("a backend fails its checks")
        assert "its certificate is not accepted" in line["why"]
        path.write_bytes(old.authority)
        proxy.wait_log("certificates replaced")
        wait_until(lambda: proxy.backend_of("127.0.0.1") == "secure", reason="TLS", timeout_s=10)


def test_a_reload_brings_tls_to_backends(start_proxy: StartProxy, tmp_path: Path) -> None:
    pki, path, toml = Pki(), tmp_path / "ca.pem", tmp_path / "edge.toml"
    toml.write_text("")
    rule = f'[[backend_rules]]\nmatch = "*"\ntls = true\ntls_ca = "{path}"\n'
    with tls_backend(pki.server("127.0.0.1")) as port:
        proxy = start_proxy([row("web", port)], config=toml)
        toml.write_text(rule)
        os.kill(proxy.process.pid, signal.SIGHUP)
        (line,) = proxy.wait_log("keeping the settings in force")
        assert str(path) in str(line)
        path.write_bytes(pki.authority)
        os.kill(proxy.process.pid, signal.SIGHUP)
        proxy.wait_log("settings changed")
        wait_until(lambda: proxy.backend_of("127.0.0.1") == "secure", reason="TLS", timeout_s=10)


def test_a_rule_whose_files_are_missing_ends_the_start(
    process_factory: ProcessFactory, tmp_path: Path
) -> None:
    (tmp_path / "edge.toml").write_text(
        '[[backend_rules]]\nmatch = "*"\ntls = true\ntls_ca = "missing.pem"\n'
    )
    process = process_factory(
        [sys.executable, "-m", "edgeproxy", "run", "--config", "edge.toml"],
        env={"EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0"},
        cwd=tmp_path,
        name="edgeproxy",
    )
    assert process.wait_exit() == 2
    assert "missing.pem" in process.log
