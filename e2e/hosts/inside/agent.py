"""Runs on a POP: runs commands there for the stories, each at the cost of a process.

The container engine takes several more for each, and stories ask again and again.

``agent.py SOCKET``: each connection to SOCKET is one order as JSON, to its end: ``{"command": [WORD...],
"user": NAME, "folder": PATH or null, "env": {NAME: VALUE}, "input": BASE64}``. It is answered by a line with
the exit code, and what the command has printed on both outputs.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import sys
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

_BACKLOG = 128
_NOT_STARTED = 127
"""As a shell has it."""


def main() -> None:
    path = Path(sys.argv[1])
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Under another name until somebody listens: who sees it may connect.
    unfinished = path.with_suffix(".new")
    listener.bind(str(unfinished))
    unfinished.chmod(0o666)
    listener.listen(_BACKLOG)
    unfinished.rename(path)
    while True:
        peer, _ = listener.accept()
        Thread(target=_serve, args=[peer], daemon=True).start()


def _serve(peer: socket.socket) -> None:
    # Whoever asked may be gone by the time there is an answer.
    with suppress(BrokenPipeError, ConnectionResetError), peer, peer.makefile("rwb") as stream:
        code, printed = _carry_out(json.load(stream))
        stream.write(f"{code}\n".encode() + printed)


def _carry_out(order: dict[str, Any]) -> tuple[int, bytes]:
    user = pwd.getpwnam(order["user"])
    try:
        ended = subprocess.run(
            order["command"],
            input=b64decode(order["input"]),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=order["folder"],
            env={**os.environ, "HOME": user.pw_dir, **order["env"]},
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=os.getgrouplist(user.pw_name, user.pw_gid),
            check=False,
        )
    except OSError as error:
        return _NOT_STARTED, str(error).encode()
    return ended.returncode, ended.stdout


if __name__ == "__main__":
    main()
