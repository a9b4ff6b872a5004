"""A proxy that is started as root, binds a port for root, and serves as somebody else."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeproxy import capabilities
from packages.proxy.tests.integration.proxies import (
    EDGEPROXY,
    Backend,
    Proxy,
    StartProxy,
    environment,
    row,
    write_rows,
)
from packages.proxy.tests.integration.worker.workers import need_kernel_relay
from testkit.process import UNMEASURED, ProcessFactory
from testkit.wait import wait_until

# Capabilities are passed on where a program is executed, which a fork is not.
pytestmark = pytest.mark.new_interpreters

StartBackend = Callable[[str], Backend]
NewClient = Callable[[], str]

USER = "nobody"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder of that user; those of pytest let nobody in but who runs it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def interpreter() -> tuple[list[str], dict[str, str]]:
    """Return a Python that the user may run too, with what it needs to find the proxy."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    own = Path(sys.base_prefix).resolve()
    packages = [each for each in sys.path if each and not Path(each).resolve().is_relative_to(own)]
    of_the_system = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")
    choices = [(sys.executable, {}), (of_the_system, {"PYTHONPATH": os.pathsep.join(packages)})]
    for program, variables in choices:
        if program and _can_run(program, variables):
            return [program, "-m", "edgeproxy"], variables
    pytest.skip(f"user {USER} may run no Python here that has what the proxy needs")


def _can_run(program: str, variables: dict[str, str]) -> bool:
    with tempfile.TemporaryFile() as said:
        try:
            ended = subprocess.run(
                [program, "-c", "import edgeproxy, msgspec, maxminddb, structlog"],
                env={**os.environ, **variables, **dict.fromkeys(UNMEASURED, "")},
                cwd="/",
                user=USER,
                stdout=said,
                stderr=said,
                check=False,
            )
        except PermissionError:
            return False
    return ended.returncode == 0


def free_port_of_root() -> int:
    for port in range(1023, 600, -1):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port below 1024 is free")


def users_of(pid: int) -> set[int]:
    """Real, effective, saved and file system user ids."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("Uid:"))
    return set(map(int, line.split()[1:]))


def capabilities_of(pid: int) -> int:
    """Those that the process may use, a bit for each."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("CapPrm:")[2].split(maxsplit=1)[0], 16)


def test_everything_serves_as_that_user_also_after_an_upgrade(
    process_factory: ProcessFactory,
    folder: Path,
    interpreter: tuple[list[str], dict[str, str]],
    start_backend: StartBackend,
    new_client: NewClient,
) -> None:
    command, variables = interpreter
    wanted = pwd.getpwnam(USER)
    db_path, state_dir = folder / "routing.db", folder / "state"
    write_rows(db_path, [row("one", start_backend("one").port)])
    for path in (folder, db_path):
        os.chown(path, wanted.pw_uid, wanted.pw_gid)
    settings = folder / "settings.toml"
    settings.write_text("workers = 1\n")
    chosen = {
        "listen_addr": f"127.0.0.1:{free_port_of_root()}",
        "region": "eu",
        "log_format": "json",
        "db_path": db_path,
        "state_dir": state_dir,
        "user": USER,
        "config": settings,
    }
    process = process_factory(
        [*command, "run"],
        # Nobody may write to where coverage is collected.
        env={**environment(chosen), **variables, **UNMEASURED},
        cwd=folder,
        name="edgeproxy",
    )
    found = process.wait_output(r'listening.*?"address": "([^"]+)"', timeout_s=20)
    proxy = Proxy(process, db_path, state_dir / "admin.sock", found[1])
    client = new_client()
    assert proxy.backend_of(client) == "one"
    before = proxy.stats()
    pids = [process.pid, *before["workers"]]
    assert [users_of(pid) for pid in pids] == [{wanted.pw_uid}] * 2

    # One more worker than there are sockets: another one cannot be opened by this user.
    settings.write_text("workers = 2\n")
    successor = proxy.ask("upgrade")["pid"]
    assert process.wait_exit() == 0
    proxy.wait_log("workers share listening sockets")
    assert proxy.backend_of(client) == "one"
    after = proxy.stats()
    assert [users_of(pid) for pid in (successor, *after["workers"])] == [{wanted.pw_uid}] * 3

    os.kill(successor, signal.SIGTERM)
    wait_until(lambda: process.group() == [], reason="the successor to end")
    assert {path.owner() for path in (state_dir, *state_dir.iterdir())} == {USER}


@pytest.mark.feature("relay.kernel")
def test_what_workers_need_for_the_kernel_relay_is_all_that_is_left_of_root(
    process_factory: ProcessFactory,
    folder: Path,
    interpreter: tuple[list[str], dict[str, str]],
    start_backend: StartBackend,
    new_client: NewClient,
) -> None:
    need_kernel_relay()
    command, variables = interpreter
    db_path = folder / "routing.db"
    write_rows(db_path, [row("one", start_backend("one").port)])
    chosen = {
        "listen_addr": "127.0.0.1:0",
        "log_format": "json",
        "db_path": db_path,
        "admin_socket": folder / "admin.sock",
        "user": USER,
        "workers": 1,
        "relay": "kernel",
    }
    for path in (folder, db_path):
        shutil.chown(path, USER)
    process = process_factory(
        [*command, "run"],
        env={**environment(chosen), **variables, **UNMEASURED},
        cwd=folder,
        name="edgeproxy",
    )
    found = process.wait_output(r'listening.*?"address": "([^"]+)"', timeout_s=20)
    proxy = Proxy(process, db_path, folder / "admin.sock", found[1])
    assert proxy.backend_of(new_client()) == "one"
    wait_until(lambda: proxy.stats()["kernel_relay"]["workers"] == 1, reason="the worker to tell")
    (worker,) = proxy.stats()["workers"]
    assert capabilities_of(process.pid) == capabilities.FOR_THE_KERNEL_RELAY
    assert capabilities_of(worker) == 0


def test_a_user_that_this_machine_has_not_ends_the_start(
    process_factory: ProcessFactory, tmp_path: Path
) -> None:
    process = process_factory([*EDGEPROXY, "run"], env=environment({"user": "no-such-user"}), cwd=tmp_path)
    assert process.wait_exit() == 2
    assert "EDGEPROXY_USER: this machine has no user 'no-such-user'" in process.log


def test_a_group_needs_a_user(process_factory: ProcessFactory, tmp_path: Path) -> None:
    process = process_factory([*EDGEPROXY, "run"], env=environment({"group": "root"}), cwd=tmp_path)
    assert process.wait_exit() == 2
    assert "EDGEPROXY_GROUP: needs EDGEPROXY_USER too" in process.log


def test_who_is_that_user_already_needs_not_be_root(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: NewClient
) -> None:
    proxy = start_proxy([row("one", start_backend("one").port)], user=os.geteuid(), group=os.getegid())
    assert proxy.backend_of(new_client()) == "one"
