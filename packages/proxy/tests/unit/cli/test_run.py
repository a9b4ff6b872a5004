from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeproxy.cli.run import run
from edgeproxy.config import Config
from edgeproxy.errors import ConfigError


def test_runs_the_proxy_with_the_settings_and_returns_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text("")
    seen: list[Config] = []

    def run_proxy(
        config: Config, load: Callable[[], Config], config_file: Path | None, predecessor: None
    ) -> int:
        assert (config_file, predecessor) == (file, None)
        file.write_text("heartbeat_ttl_secs = 7")
        seen.extend((config, load()))
        return 7

    monkeypatch.setitem(
        sys.modules, "edgeproxy.app", SimpleNamespace(run=run_proxy, find_predecessor=lambda _environ: None)
    )
    assert run(["--region", "eu", "--config", str(file)]) == 7
    assert [(config.region, config.heartbeat_ttl_secs) for config in seen] == [("eu", 60), ("eu", 7)]


def test_does_not_touch_the_proxy_when_the_settings_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edgeproxy.app", raising=False)
    with pytest.raises(ConfigError):
        run(["--region", "mars"])
    assert "edgeproxy.app" not in sys.modules


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--region", "mars", "--help"]])
def test_help_lists_the_flags(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert run(arguments) == 0
    text = capsys.readouterr().out
    assert "  --listen-addr VALUE\n" in text
    assert max(map(len, text.splitlines())) <= 100
