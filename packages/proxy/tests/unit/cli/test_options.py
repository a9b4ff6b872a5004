from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.cli.options import load_config


def test_settings_come_from_the_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.toml"
    file.write_text('region = "us"\nworkers = 3')
    monkeypatch.setenv("EDGEPROXY_WORKERS", "4")
    config = load_config(file)
    assert (config.region, config.workers) == ("us", 4)
