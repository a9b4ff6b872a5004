"""Asking a proxy that runs, one that does not, and something else."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgeproxy import admin_client
from edgeproxy.admin_client import AdminClient
from edgeproxy.errors import EdgeproxyError

Serve = Callable[[bytes], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


@pytest.fixture
def serve(path: Path) -> Iterator[Serve]:
    """Answer one client's first line with the given bytes, then close."""
    with ExitStack() as stack:

        def start(answer: bytes) -> None:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()

            def answer_once() -> None:
                client, _ = listener.accept()
                with client, client.makefile("rb") as lines:
                    asked.append(lines.readline())
                    client.sendall(answer)

            asked: list[bytes] = []
            thread = threading.Thread(target=answer_once, daemon=True)
            thread.start()
            stack.callback(thread.join, 10)

        yield start


def connected(path: Path) -> AdminClient:
    client = AdminClient.connect(path)
    assert client is not None
    return client


def test_gives_the_result(serve: Serve, path: Path) -> None:
    serve(b'{"ok": true, "result": {"pid": 7}}\n')
    with connected(path) as client:
        assert client.ask("stats") == {"pid": 7}


def test_sends_the_command_with_its_arguments_on_one_line(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with connected(path) as client:
            proxy, _ = listener.accept()
            with proxy:
                proxy.sendall(b'{"ok": true}\n')
                assert client.ask("explain", client="192.0.2.1", app=None) is None
                line = proxy.recv(4096)
    assert line.endswith(b"\n")
    assert json.loads(line) == {"command": "explain", "client": "192.0.2.1", "app": None}


def test_a_refusal_is_an_error_in_the_proxys_words(serve: Serve, path: Path) -> None:
    serve(b'{"ok": false, "error": "unknown command"}\n')
    with connected(path) as client, pytest.raises(EdgeproxyError, match=r"^unknown command$"):
        client.ask("nonsense")


@pytest.mark.parametrize("answer", [b"220 mail.example.org ESMTP\r\n", b"[1]\n", b'{"result": 1}\n'])
def test_what_is_no_proxy_is_an_error(serve: Serve, path: Path, answer: bytes) -> None:
    serve(answer)
    with (
        connected(path) as client,
        pytest.raises(EdgeproxyError, match="what answers on the admin socket is no edgeproxy"),
    ):
        client.ask("stats")


def test_a_proxy_that_goes_is_an_error(serve: Serve, path: Path) -> None:
    serve(b"")
    with connected(path) as client, pytest.raises(EdgeproxyError, match="closed the admin connection"):
        client.ask("stats")


def test_a_proxy_that_does_not_answer_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_client, "_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with (
            connected(path) as client,
            pytest.raises(EdgeproxyError, match="the running proxy does not answer: timed out"),
        ):
            client.ask("stats")


def test_no_proxy_is_none(path: Path) -> None:
    assert AdminClient.connect(path) is None


def test_a_proxy_that_was_killed_is_none(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert AdminClient.connect(path) is None


def test_a_path_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgeproxyError, match=r"admin\.sock cannot be used: Not a directory"):
        AdminClient.connect(tmp_path / "file" / "admin.sock")


def test_a_socket_of_another_user_is_an_error(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(EdgeproxyError) as refusal:
                AdminClient.connect(path)
        finally:
            os.seteuid(0)
    assert str(refusal.value) == (
        f"no permission to use the admin socket {path}; run as the user that runs the proxy"
    )
