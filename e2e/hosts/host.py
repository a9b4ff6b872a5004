"""One machine of the world: what can be done to it from outside, and how all of that is undone."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from docker.models.containers import Container
from docker.models.networks import Network

from testkit.faults.vocabulary import (
    DOWN,
    UP,
    ClockJump,
    Direction,
    Fault,
    Kill,
    Loss,
    Partition,
    Pause,
    UnavailableError,
)
from testkit.wait import wait_until

_DIAL_TIMEOUT_S: Final = 60
_COMMAND_TIMEOUT_S: Final = 180
_ANSWER_BYTES: Final = 256
_PROGRAM_TIMEOUT_S: Final = 30


class Host:
    """A container, what it is connected to, and what a story has done to it so far."""

    def __init__(self, container: Container, networks: dict[str, tuple[Network, str]]) -> None:
        """``networks``: by the name in the atlas, with the host's address in each."""
        self.container = container
        self.name = str(container.name).partition("-")[2]
        self._networks = networks
        self._undo = ExitStack()

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    # ---- what an operator does on it -----------------------------------------------------------------

    def run(
        self,
        *command: str,
        user: str = "root",
        env: dict[str, str] | None = None,
        check: bool = True,
        folder: str | None = None,
    ) -> str:
        """Run a command there and return what it prints on both outputs.

        Raises:
            AssertionError: it failed; carries its exit code and what it said.
        """
        code, printed = self._carry_out(command, user, env or {}, folder)
        said = printed.decode(errors="replace")
        assert not check or code == 0, f"{self.name}: {command} exited {code}: {said}"
        return said

    def _carry_out(
        self, command: Sequence[str], user: str, env: dict[str, str], folder: str | None
    ) -> tuple[int, bytes]:
        """Return the exit code of a command, and what it has printed."""
        ended = self.container.exec_run(list(command), user=user, environment=env, workdir=folder)
        assert isinstance(ended.exit_code, int)
        assert isinstance(ended.output, bytes)
        return ended.exit_code, ended.output

    def put(self, path: str, content: bytes | str, *, mode: int = 0o644) -> None:
        """Write a file of root's, in a folder that exists."""
        data = content.encode() if isinstance(content, str) else content
        folder, _, name = path.rpartition("/")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(name)
            # Whole seconds: whoever compares times of modification sees none from the future.
            entry.size, entry.mode, entry.mtime = len(data), mode, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
        assert self.container.put_archive(folder, archive.getvalue())

    def start_program(self, name: str, *command: str, ready: str = "ready") -> None:
        """Run a program beside the host's own until it heals; return when it has printed ``ready``."""
        script = f'echo $$ >{_pid_file(name)}; exec "$@" >/run/{name}.log 2>&1'
        self.container.exec_run(["sh", "-c", script, name, *command], detach=True)
        self._undo.callback(self.end_program, name)
        wait_until(
            lambda: ready in self.log_of(name),
            reason=f"{name} on {self} to be ready",
            timeout_s=_PROGRAM_TIMEOUT_S,
            interval_s=0.1,
        )

    def log_of(self, name: str) -> str:
        """What a program that was started here has printed."""
        return self.run("cat", f"/run/{name}.log", check=False)

    def end_program(self, name: str, signal: str = "TERM") -> None:
        """Send a signal to a program that was started here, and wait until it has ended, unless it has."""
        file = _pid_file(name)
        end = f'kill -{signal} "$pid"; tail --pid="$pid" -s 0.1 -f /dev/null'
        self.run("sh", "-c", f"pid=$(cat {file}) && rm {file} && {{ {end}; }}", check=False)

    # ---- what goes wrong with it ---------------------------------------------------------------------

    def stop(self) -> None:
        """Ask its one program to end, as a supervisor would: with SIGTERM."""
        self.container.stop(timeout=10)
        self._undo.callback(self.container.start)

    @staticmethod
    def unavailable(fault: Fault) -> str | None:
        """Why there is no such fault of a host; None when there is. ``UP`` is what leads to it."""
        match fault:
            case ClockJump():
                return "hosts share the clock of the machine's kernel"
            case Kill() | Pause():
                return None
            case Partition() | Loss():
                return None if fault.probability == 1 else "packets know no connections"
            case _:
                return "it is about the bytes of a stream, and what reaches a host is packets"

    def inject(self, fault: Fault) -> None:
        """Let something go wrong with the host, or with all that comes to it and leaves it.

        A host that is killed falls silent, as at a power cut; one that is parted both ways is unplugged.

        Raises:
            UnavailableError: this cannot be done to a host.
        """
        if (why := self.unavailable(fault)) is not None:
            raise UnavailableError(f"{fault} on {self.name}: {why}")
        match fault:
            case Kill():
                self.container.kill()
                self._undo.callback(self.container.start)
            case Pause():
                self.container.pause()
                self._undo.callback(self.container.unpause)
            case Partition(direction=Direction.BOTH):
                for network, address in self._networks.values():
                    network.disconnect(self.container)
                    self._undo.callback(network.connect, self.container, ipv4_address=address)
            case Partition():
                self._drop(fault.direction)
            case Loss(share):
                self._drop(
                    fault.direction, "-m", "statistic", "--mode", "random", "--probability", str(share)
                )

    def _drop(self, direction: Direction, *which: str) -> None:
        for chain, way in (("INPUT", UP), ("OUTPUT", DOWN)):
            if direction.covers(way):
                rule = (chain, *which, "-j", "DROP")
                self.run("iptables", "-A", *rule)
                self._undo.callback(self.run, "iptables", "-D", *rule)

    def packets_lost(self) -> int:
        """How many packets faults have cost it so far."""
        rules = self.run("iptables", "--numeric", "--verbose", "--exact", "--list")
        return sum(int(line.split()[0]) for line in rules.splitlines() if " DROP " in line)

    def undo(self, what: Callable[..., object], *arguments: object) -> None:
        """Have :meth:`heal` call this, too."""
        self._undo.callback(what, *arguments)

    def heal(self) -> None:
        """Undo all of that, the last first; a host to which nothing happened is left alone."""
        self._undo.pop_all().close()

    # ---- what is to be known when a story fails ------------------------------------------------------

    def report(self) -> str:
        """The last lines of its log, its addresses and its routes; says so where it cannot tell."""
        self.container.reload()
        told = [f"state: {self.container.status}", self.container.logs(tail=20).decode(errors="replace")]
        if self.container.status == "running":
            told.append(self.run("sh", "-c", "ip -brief address; ip route", check=False))
        return "\n".join(told)


def _pid_file(name: str) -> str:
    """In memory, so gone when the host was; its number may be another program's then."""
    return f"/dev/shm/{name}.pid"


class PopHost(Host):
    """A point of presence; an agent (``inside/agent.py``) runs its commands."""

    def __init__(self, container: Container, networks: dict[str, tuple[Network, str]], agent: Path) -> None:
        """``agent``: where its socket is, here."""
        super().__init__(container, networks)
        self.agent = agent

    def _carry_out(
        self,
        command: Sequence[str],
        user: str,
        env: dict[str, str],
        folder: str | None,
        given: bytes = b"",
    ) -> tuple[int, bytes]:
        """``given`` is what the command reads."""
        told = {"command": command, "user": user, "folder": folder, "env": env}
        order = {**told, "input": b64encode(given).decode()}
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(_COMMAND_TIMEOUT_S)
            agent.connect(str(self.agent))
            agent.sendall(json.dumps(order).encode())
            agent.shutdown(socket.SHUT_WR)
            with agent.makefile("rb") as answer:
                return int(answer.readline()), answer.read()

    def put(self, path: str, content: bytes | str, *, mode: int = 0o644) -> None:
        data = content.encode() if isinstance(content, str) else content
        command = ("install", f"--mode={mode:o}", "/dev/stdin", path)
        code, said = self._carry_out(command, "root", {}, None, given=data)
        assert code == 0, f"{self.name}: {path} cannot be written: {said.decode(errors='replace')}"


class ClientHost(Host):
    """A machine of clients; gives out sockets that were made on it."""

    def __init__(self, container: Container, networks: dict[str, tuple[Network, str]], dialler: Path) -> None:
        super().__init__(container, networks)
        self.dialler = dialler

    def dial(
        self, source: str, to: tuple[str, int], *, kind: str = "tcp", timeout_s: float = 20.0
    ) -> socket.socket:
        """Connect from ``source``, one of the addresses of this host.

        Raises:
            OSError: what connecting ended with there.
        """
        order = {"kind": kind, "source": source, "to": to, "timeout_s": timeout_s}
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
            agent.settimeout(_DIAL_TIMEOUT_S)
            agent.connect(str(self.dialler))
            agent.send(json.dumps(order).encode())
            answer, descriptors, _, _ = socket.recv_fds(agent, _ANSWER_BYTES, 1)
        if number := json.loads(answer)["errno"]:
            raise OSError(number, os.strerror(number))
        made = socket.socket(fileno=descriptors[0])
        made.settimeout(timeout_s)
        return made


def shell(script: str) -> Sequence[str]:
    """The command that runs a script which stops at its first failure."""
    return ("sh", "-euc", script)
