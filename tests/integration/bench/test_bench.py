"""The whole of ``./dev bench``, for moments instead of minutes."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.loads import Effort, Row, idle_memory
from bench.peers import HAPROXY, NGINX, Missing, Stage, Target, stage
from bench.profile import profile
from bench.samples import Sample

pytestmark = [
    pytest.mark.usefixtures("unmeasured"),
    pytest.mark.skipif(
        shutil.which("wrk") is None or shutil.which("nginx", path="/usr/sbin:/usr/bin") is None,
        reason="wrk or nginx is not installed: apt-get install wrk nginx",
    ),
]


def test_compares_all_that_is_installed_and_writes_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_all_but_nginx(self: Stage, name: str) -> Target:
        if name == NGINX:
            raise Missing("nginx is not installed: apt-get install nginx")
        return start(self, name)

    start = Stage.start
    monkeypatch.setattr(Stage, "start", start_all_but_nginx)
    options = ["--rows", "conn", "--rounds", "1", "--seconds", "1", "--no-profiles"]
    # Which of the two is faster now is of no account.
    assert main([*options, "--output", str(tmp_path)]) in (0, 1)
    (row,) = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert row["rounds"]["edgeproxy"][0]["figure"] > 10
    assert row["rounds"]["edgeproxy"][0]["cpu_s_per_1e5"] > 0
    assert NGINX not in row["rounds"]
    assert "nginx is not installed: apt-get install nginx" in row["notes"]
    if HAPROXY in row["rounds"]:
        assert row["figure"] > 0
    assert "new connections" in capsys.readouterr().out


def test_idle_connections_are_counted_in_memory_and_a_profile_names_what_ran() -> None:
    def connect(target: Target, _effort: Effort) -> Sample:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", target.port), 10) as sock:
                sock.sendall(b"GET /s HTTP/1.0\r\n\r\n")
                while sock.recv(4096):
                    pass
        return Sample(20.0)

    with stage(workers=1) as ready:
        memory = idle_memory(ready.start_ours(), Effort(1, idle_connections=20))
        told = profile(ready, Row("few", "a few connections", "connections", connect), Effort(1))
    assert abs(memory.figure) < 1024
    assert "Processor time of the workers by function" in told
    if shutil.which("strace") is not None:
        assert "accept4" in told
