"""The contract of byte streams, held by what is no relay, by one of ours, and by relays of others."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from testkit.contracts.byte_stream import ByteStreamContract
from testkit.contracts.socket_ends import SocketStreams, connected, listening
from testkit.faults.link import FaultLink
from testkit.ports import reserved_port
from testkit.process import ProcessFactory

HAPROXY = """
defaults
    mode tcp
    timeout connect 20s
    timeout client 60s
    timeout server 60s
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    server s 127.0.0.1:{backend}
"""

NGINX = """
{modules}
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
stream {{
    server {{
        listen 127.0.0.1:{port};
        proxy_pass 127.0.0.1:{backend};
        proxy_half_close on;
    }}
}}
"""

NO_RESETS = {"resets": "HAProxy and nginx end one side in order when the other is reset"}


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with listening() as sock:
        yield sock


@pytest.fixture(scope="module")
def start_relay(
    tmp_path_factory: pytest.TempPathFactory, listener: socket.socket
) -> Iterator[Callable[[str], tuple[str, int]]]:
    """Start a relay of that program, once, which takes connections to ``listener``; gives its address."""
    folder = tmp_path_factory.mktemp("relays")
    processes, addresses = ProcessFactory(folder), dict[str, tuple[str, int]]()
    with ExitStack() as reserved:

        def start(name: str) -> tuple[str, int]:
            if name not in addresses:
                program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
                if program is None:
                    pytest.skip(f"there is no {name}")
                port = reserved.enter_context(reserved_port())
                _run(processes, name, program, folder, port, listener.getsockname()[1])
                _drop_one(listener)
                addresses[name] = "127.0.0.1", port
            return addresses[name]

        yield start
        processes.stop_all()


def _run(processes: ProcessFactory, name: str, program: str, folder: Path, port: int, backend: int) -> None:
    file = folder / f"{name}.cfg"
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    modules = f"load_module {module};" if module.exists() else ""
    text = HAPROXY if name == "haproxy" else NGINX
    file.write_text(text.format(port=port, backend=backend, folder=folder, modules=modules))
    argv: list[str | Path] = (
        [program, "-db", "-f", file] if name == "haproxy" else [program, "-p", folder, "-c", file]
    )
    if name == "nginx":
        tried = subprocess.run([*argv, "-t"], capture_output=True, text=True, check=False)
        if 'unknown directive "stream"' in tried.stderr:
            pytest.skip("this nginx has no module for streams")
    process = processes(argv, ready=lambda: _connects(port), name=name)
    process.wait_ready()


def _connects(port: int) -> bool:
    try:
        connected(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _drop_one(listener: socket.socket) -> None:
    """The connection that showed that the relay is there."""
    listener.accept()[0].close()


class TestLoopback(ByteStreamContract):
    """The kernel's own: what the contract asks of others is what TCP gives."""

    @pytest.fixture
    def harness(self, listener: socket.socket) -> Iterator[SocketStreams]:
        address = listener.getsockname()
        with SocketStreams(lambda small: connected(address, small=small), listener) as harness:
            yield harness


class TestFaultLink(ByteStreamContract):
    """A link without a fault does nothing to a connection."""

    @pytest.fixture
    async def harness(self, listener: socket.socket) -> AsyncIterator[SocketStreams]:
        async with FaultLink(*listener.getsockname()) as link:
            with SocketStreams(
                lambda small: connected((link.host, link.port), small=small), listener, held_bytes=1 << 20
            ) as harness:
                yield harness


class TestHaproxy(ByteStreamContract, lacks=NO_RESETS):
    @pytest.fixture
    def harness(
        self, listener: socket.socket, start_relay: Callable[[str], tuple[str, int]]
    ) -> Iterator[SocketStreams]:
        address = start_relay("haproxy")
        with SocketStreams(
            lambda small: connected(address, small=small), listener, held_bytes=1 << 20
        ) as harness:
            yield harness


class TestNginx(ByteStreamContract, lacks=NO_RESETS):
    @pytest.fixture
    def harness(
        self, listener: socket.socket, start_relay: Callable[[str], tuple[str, int]]
    ) -> Iterator[SocketStreams]:
        address = start_relay("nginx")
        with SocketStreams(
            lambda small: connected(address, small=small), listener, held_bytes=1 << 20
        ) as harness:
            yield harness
