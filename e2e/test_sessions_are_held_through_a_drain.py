"""An operator drains a backend: nobody new comes, and sessions that last for hours go on undisturbed."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

import pytest

from e2e.clients import Client
from e2e.pop import Pop, Proxy
from testkit.postgres import PostgresServer
from testkit.wait import wait_until

_HANDSHAKE = (
    b"GET /session HTTP/1.1\r\nHost: backend\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZWRnZXByb3h5c3Rvcmllcw==\r\n\r\n"
)


class WebSocket:
    """A session of a client, as RFC 6455 has it; texts are shorter than 126 bytes."""

    def __init__(self, sock: socket.socket, received: BinaryIO) -> None:
        self.sock = sock
        self._received = received
        self.sock.sendall(_HANDSHAKE)
        assert b" 101 " in self._received.readline()
        while self._received.readline() != b"\r\n":
            pass

    def echo(self, text: str) -> str:
        """Send a text and return what comes back."""
        data = text.encode()
        # Clients must mask what they send; by zeros it stays as it is.
        self.sock.sendall(bytes([0x81, 0x80 | len(data)]) + bytes(4) + data)
        kind, size = self._received.read(2)
        assert kind == 0x81
        return self._received.read(size).decode()


@contextmanager
def _session(client: Client, proxy: Proxy) -> Iterator[WebSocket]:
    with client.socket(proxy) as sock, sock.makefile("rb") as received:
        yield WebSocket(sock, received)


def _drain(pop: Pop, proxy: Proxy) -> None:
    pop.step("the operator drains the backend")
    pop.sql("UPDATE backends SET healthy = 0 WHERE id = 'sessions'")
    # Until then, what speaks no such HTTP may be asked.
    wait_until(
        lambda: pop.client("DE", 2).ask(proxy) == "mock-eu-2",
        reason="others to go elsewhere",
        swallow=(OSError, HTTPException, AssertionError),
    )


@pytest.mark.planted(idle_timeout_secs="0.2")
def test_a_websocket_goes_on_while_its_backend_is_drained(pop: Pop) -> None:
    pop.add_address("sessions", "eu", "DE", *pop.start_echo("mock-eu-1"))
    pop.add_row(pop.start_backend("mock-eu-2"), "FR")
    proxy = pop.start_proxy()

    with _session(pop.client("DE", 1), proxy) as session:
        assert session.echo("before") == "before"
        _drain(pop, proxy)
        assert [session.echo(f"after {number}") for number in range(20)] == [
            f"after {number}" for number in range(20)
        ]


@pytest.mark.planted(max_age_secs="0.1")
def test_a_session_of_psql_goes_on_while_its_database_is_drained(
    pop: Pop, postgres: PostgresServer, postgres_binaries: Path
) -> None:
    pop.add_address("sessions", "eu", "DE", *pop.reach(postgres.port))
    proxy = pop.start_proxy()

    connect = f"postgresql://postgres@{proxy.host}:{proxy.port}/postgres"
    with subprocess.Popen(
        [postgres_binaries / "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", connect],
        env={**os.environ, "PGPASSWORD": postgres.password},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as psql:
        assert psql.stdin is not None
        assert psql.stdout is not None

        def query(sql: str) -> str:
            assert psql.stdin is not None
            assert psql.stdout is not None
            psql.stdin.write(f"{sql};\n")
            psql.stdin.flush()
            return psql.stdout.readline().strip()

        server_process = query("SELECT pg_backend_pid()")
        # Only now, for psql comes from an address of no country, to which both are equally near.
        pop.add_row(pop.start_backend("mock-eu-2"), "FR")
        query("CREATE TEMP TABLE notes (note text) \\; INSERT INTO notes VALUES ('kept') RETURNING note")
        _drain(pop, proxy)
        # The same server process, with what only this session knows.
        assert query("SELECT pg_backend_pid()") == server_process
        assert query("SELECT note FROM notes") == "kept"
        psql.stdin.close()
        assert psql.wait(timeout=30) == 0
