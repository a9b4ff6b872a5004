"""The local walkthrough of the testing guide, typed as it is written but for the names of the two programs.

Only the ports are others than in the guide (8080 and 9001 to 9003), so that it can run beside anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from packages.proxy.tests.integration.proxies import PROMISE_S
from testkit.process import Process, ProcessFactory
from testkit.wait import wait_until

# What users start are interpreters of their own, and nothing is measured in them that other tests leave out.
pytestmark = pytest.mark.usefixtures("unmeasured")

SQL = """
-- Clear existing test backends
DELETE FROM backends WHERE id LIKE 'mock-%';

-- Add mock backends
INSERT INTO backends (id, app, region, wg_ip, port, healthy, weight, soft_limit, hard_limit)
VALUES
  ('mock-eu-1', 'test', 'eu', '127.0.0.1', {ports[0]}, 1, 2, 100, 150),
  ('mock-eu-2', 'test', 'eu', '127.0.0.1', {ports[1]}, 1, 2, 100, 150),
  ('mock-us-1', 'test', 'us', '127.0.0.1', {ports[2]}, 1, 2, 100, 150);
"""

# The schema of the original, which has no country and is what an existing routing.db was made with.
SCHEMA = """
CREATE TABLE backends (
    id TEXT PRIMARY KEY, app TEXT, region TEXT, wg_ip TEXT, port INTEGER, healthy INTEGER,
    weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER DEFAULT 0
);
"""

TEN_REQUESTS = """
for i in {{1..10}}; do
  curl -s http://localhost:{port}/api/info | grep backend_id
done
"""


class Shell:
    """A terminal in the folder of the walkthrough, where both programs are on the PATH."""

    def __init__(self, folder: Path, factory: ProcessFactory) -> None:
        programs = Path(sys.executable).parent
        self._folder = folder
        self._factory = factory
        self._path = f"{programs}{os.pathsep}{os.environ['PATH']}"

    def run(self, line: str, text: str | None = None) -> str:
        """Type ``line``, which ends by itself, and return what it prints."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self._folder,
            env={**os.environ, "PATH": self._path},
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    def background(self, line: str) -> Process:
        """Type ``line &``."""
        return self._factory(["bash", "-c", f"exec env {line}"], cwd=self._folder, env={"PATH": self._path})


@pytest.fixture
def shell(tmp_path: Path, process_factory: ProcessFactory) -> Shell:
    for program in ("bash", "curl", "sqlite3"):
        if shutil.which(program) is None:
            pytest.skip(f"the walkthrough is typed with {program}, which is not installed")
    return Shell(tmp_path, process_factory)


@pytest.mark.parametrize("database", ["made by edgeproxy", "of the original"])
def test_the_walkthrough_works_as_written(
    shell: Shell, port_factory: Callable[[], int], database: str
) -> None:
    ports = [port_factory() for _ in range(3)]
    port = port_factory()

    # 1. Configure routing.db
    if database == "of the original":
        shell.run("sqlite3 routing.db", SCHEMA)
    else:
        shell.run("edgeproxy db init")
    shell.run("sqlite3 routing.db", SQL.format(ports=ports))

    # 2. Start Mock Backends
    backends = {
        "mock-eu-1": shell.background(f"mock-backend -port {ports[0]} -region eu -id mock-eu-1"),
        "mock-eu-2": shell.background(f"mock-backend -port {ports[1]} -region eu -id mock-eu-2"),
        "mock-us-1": shell.background(f"mock-backend -port {ports[2]} -region us -id mock-us-1"),
    }
    for backend in backends.values():
        backend.wait_output("listening")

    # 3. Run edgeProxy
    proxy = shell.background(f"EDGEPROXY_REGION=eu EDGEPROXY_LISTEN_ADDR=0.0.0.0:{port} edgeproxy run")
    proxy.wait_output("listening")

    # 4. Test Requests
    first = shell.run(f"curl http://localhost:{port}/api/info")
    bound = next(name for name in backends if f'"{name}"' in first)
    assert bound in {"mock-eu-1", "mock-eu-2"}
    # Affinity: all of them are answered by one backend.
    ten = shell.run(TEN_REQUESTS.format(port=port)).splitlines()
    assert len(ten) == 10
    assert all('"backend_id"' in line and f'"{bound}"' in line for line in ten)
    assert shell.run(f"curl http://localhost:{port}/health") == f"OK - {bound} (eu)"

    # Killing the backend moves the client, at its next request.
    backends[bound].kill()
    backends[bound].wait_exit()
    other = "mock-eu-2" if bound == "mock-eu-1" else "mock-eu-1"
    assert f'"{other}"' in shell.run(f"curl -s http://localhost:{port}/api/info")

    # So does an edit, within a second.
    shell.run(f"""sqlite3 routing.db "UPDATE backends SET healthy=0 WHERE id='{other}'" """)
    moves_to(shell, port, "mock-us-1")
    proxy.terminate()


def test_the_walkthrough_works_with_registrations_instead_of_sql(
    shell: Shell, port_factory: Callable[[], int]
) -> None:
    ports = [port_factory() for _ in range(3)]
    port, api = port_factory(), port_factory()

    # 1. Nobody edits a table: it is made, and stays empty.
    shell.run("edgeproxy db init")
    proxy = shell.background(
        f"EDGEPROXY_REGION=eu EDGEPROXY_LISTEN_ADDR=0.0.0.0:{port} EDGEPROXY_API_ENABLED=true "
        f"EDGEPROXY_API_LISTEN_ADDR=127.0.0.1:{api} edgeproxy run"
    )
    proxy.wait_output("listening")

    # 2. Each backend starts, and says that it is there.
    backends, sidecars = {}, {}
    for name, its_port in zip(("mock-eu-1", "mock-eu-2", "mock-us-1"), ports, strict=True):
        region = name.split("-")[1]
        backends[name] = shell.background(f"mock-backend -port {its_port} -region {region} -id {name}")
        backends[name].wait_output("listening")
        sidecars[name] = shell.background(
            f"edgeproxy register http://127.0.0.1:{api} --id {name} --app test --region {region} "
            f"--ip 127.0.0.1 --port {its_port} --weight 2 --soft-limit 100 --hard-limit 150"
        )
        sidecars[name].wait_output("registered")
    listed = shell.run(f"curl -s http://127.0.0.1:{api}/api/v1/backends")
    assert all(f'"{name}"' in listed for name in backends)

    # 3. Clients are served, and each keeps its backend.
    bound = next(
        name for name in backends if f'"{name}"' in shell.run(f"curl -s http://localhost:{port}/api/info")
    )
    assert bound in {"mock-eu-1", "mock-eu-2"}
    ten = shell.run(TEN_REQUESTS.format(port=port)).splitlines()
    assert len(ten) == 10
    assert all(f'"{bound}"' in line for line in ten)

    # 4. A backend that goes takes itself out of the table, and its client is moved.
    sidecars[bound].terminate()
    other = "mock-eu-2" if bound == "mock-eu-1" else "mock-eu-1"
    moves_to(shell, port, other)

    # 5. An operator drains through the API what he would have marked with SQL.
    drained = shell.run(
        f"curl -s -X PATCH http://127.0.0.1:{api}/api/v1/backends/{other} "
        "-H 'Content-Type: application/json' -d '{\"drain\": true}'"
    )
    assert f'"{other}"' in drained
    moves_to(shell, port, "mock-us-1")
    for name in (other, "mock-us-1"):
        sidecars[name].terminate()
    proxy.terminate()


def moves_to(shell: Shell, port: int, name: str) -> None:
    """Wait until this machine's next request is answered by the backend ``name``."""
    wait_until(
        lambda: f'"{name}"' in shell.run(f"curl -s http://localhost:{port}/api/info"),
        reason=f"the client to be moved to {name}",
        timeout_s=10 * PROMISE_S,
    )
