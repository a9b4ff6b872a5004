"""The whole of ``./dev bench``, for moments instead of minutes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench import rounds
from bench.__main__ import main
from bench.loads import Effort
from bench.peers import HAPROXY, TARGETS, Missing, Stage, Target, stage
from bench.profile import profile

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
    def without_haproxy(self: Stage, name: str) -> Target:
        if name == HAPROXY:
            raise Missing("haproxy is not installed: apt-get install haproxy")
        return start(self, name)

    start = Stage.start
    monkeypatch.setattr(Stage, "start", without_haproxy)
    monkeypatch.setattr(rounds, "TARGETS", [name for name in TARGETS if name != "nginx"])
    options = ["--rows", "conn,idle", "--rounds", "1", "--seconds", "1", "--idle-connections", "20"]
    assert main([*options, "--output", str(tmp_path)]) == 0
    (connections, idle) = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert connections["rounds"].keys() == {"direct", "edgeproxy"}
    assert connections["rounds"]["edgeproxy"][0]["figure"] > 10
    assert connections["rounds"]["edgeproxy"][0]["cpu_s_per_1e5"] > 0
    assert connections["figure"] is None, "there is nothing to compare with"
    assert "haproxy is not installed: apt-get install haproxy" in connections["notes"]
    assert idle["rounds"].keys() == {"edgeproxy"}
    assert "not measured" in capsys.readouterr().out


def test_a_profile_names_functions_and_system_calls() -> None:
    with stage(workers=1) as ready:
        told = profile(ready, rounds.COMPARED["conn"], Effort(1))
    assert "connection.py:Connection" in told
    if shutil.which("strace") is not None:
        assert "accept4" in told
