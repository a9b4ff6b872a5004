"""Asking a running proxy over its admin socket."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Self

import msgspec

from edgeproxy.errors import EdgeproxyError

_TIMEOUT_S = 5.0


class _Answer(msgspec.Struct):
    ok: bool
    result: Any = None
    error: str = ""


class AdminClient:
    """One connection; also a context manager."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._answers = sock.makefile("rb")

    @classmethod
    def connect(cls, path: Path) -> AdminClient | None:
        """Connect to the proxy that listens at ``path``; ``None`` when none does.

        Raises:
            EdgeproxyError: one does, but this user may not talk to it, or it takes no more clients.
        """
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(_TIMEOUT_S)
        try:
            sock.connect(str(path))
        except PermissionError as error:
            sock.close()
            raise EdgeproxyError(
                f"no permission to use the admin socket {path}; run as the user that runs the proxy"
            ) from error
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except OSError as error:
            sock.close()
            raise EdgeproxyError(f"the admin socket {path} cannot be used: {error.strerror}") from error
        return cls(sock)

    def wait_up_to(self, timeout_s: float) -> None:
        """Wait so long for each answer."""
        self._sock.settimeout(timeout_s)

    def ask(self, command: str, **arguments: object) -> Any:
        """The proxy's answer to ``command``, as JSON values.

        Raises:
            EdgeproxyError: the proxy refused, or does not answer.
        """
        try:
            self._sock.sendall(msgspec.json.encode({"command": command, **arguments}) + b"\n")
            line = self._answers.readline()
        except OSError as error:
            raise EdgeproxyError(f"the running proxy does not answer: {error}") from error
        if not line:
            raise EdgeproxyError("the running proxy closed the admin connection")
        try:
            answer = msgspec.json.decode(line, type=_Answer)
        except msgspec.DecodeError as error:
            raise EdgeproxyError(f"what answers on the admin socket is no edgeproxy: {error}") from error
        if not answer.ok:
            raise EdgeproxyError(answer.error)
        return answer.result

    def close(self) -> None:
        self._answers.close()
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
