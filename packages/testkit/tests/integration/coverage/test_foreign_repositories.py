"""Layers, kinds and gaps of repositories that know nothing of this tool, without an edit to their code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from testkit.__main__ import main

# Two interpreters with pytest are started for each package, which takes a while on a busy machine.
pytestmark = pytest.mark.timeout(300)

# Source archives stay here from run to run; git ignores the folder.
CACHE = Path(__file__).parents[5] / ".cache" / "sdists"


@dataclass(frozen=True)
class Foreign:
    """A distribution: layer to its files, kind to some quick tests of it that need only pytest."""

    name: str
    layers: Mapping[str, Sequence[str]]
    tests: Mapping[str, str]


PACKAGES = (
    Foreign(
        "itsdangerous",
        {
            "signing": ["src/itsdangerous/signer.py", "src/itsdangerous/timed.py"],
            "formats": ["src/itsdangerous/[!st]*.py", "src/itsdangerous/serializer.py"],
        },
        {
            "unit": "tests/test_itsdangerous/test_encoding.py",
            "integration": "tests/test_itsdangerous/test_signer.py",
        },
    ),
    Foreign(
        "packaging",
        {"versions": ["src/packaging/version.py"], "others": ["src/packaging/[!v]*.py"]},
        {"unit": "tests/test_direct_url.py", "integration": "tests/test_utils.py"},
    ),
)


def fetch(name: str, folder: Path) -> Path:
    """Return the unpacked source archive of the newest release; skip the test when it cannot be had."""
    if not (archives := sorted(CACHE.glob(f"{name}-*.tar.gz"))):
        options = ("--quiet", "--retries=0", "--timeout=10", "--no-deps", "--no-binary=:all:")
        command = [sys.executable, "-m", "pip", "download", *options, f"--dest={folder}", name]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"the source archive of {name} did not come within a minute")
        if ended.returncode:
            pytest.skip(
                f"the source archive of {name} cannot be had: {ended.stderr.strip().splitlines()[-1]}"
            )
        CACHE.mkdir(parents=True, exist_ok=True)
        archives = [Path(shutil.move(path, CACHE / path.name)) for path in folder.glob(f"{name}-*.tar.gz")]
    with tarfile.open(archives[-1]) as archive:
        # As an argument, interpreters before 3.11.4 do not know it.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    (root,) = (path for path in folder.iterdir() if path.is_dir())
    return root


def rebuild_installed(folder: Path) -> Path:
    """Lay out the installed ``packaging`` like its repository, with two tests of ours: needs no network."""
    spec = importlib.util.find_spec("packaging")
    assert spec is not None
    assert spec.origin is not None
    root = folder / "packaging"
    shutil.copytree(
        Path(spec.origin).parent, root / "src" / "packaging", ignore=shutil.ignore_patterns("*.pyc")
    )
    (root / "tests").mkdir()
    (root / "tests" / "test_direct_url.py").write_text(
        "from packaging.version import Version\n\ndef test(): assert Version('1.10') > Version('1.9')\n"
    )
    (root / "tests" / "test_utils.py").write_text(
        "from packaging.utils import canonicalize_name as name\n\ndef test(): assert name('A_b') == 'a-b'\n"
    )
    return root


def fingerprint(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()


def settings_for(foreign: Foreign) -> str:
    kinds = "kinds = ['unit', 'integration']"
    layers = [
        f"[tool.testkit.coverage.layers.{name}]\npaths = {json.dumps(paths)}\n{kinds}\n"
        for name, paths in foreign.layers.items()
    ]
    return "\n".join(
        [
            "[tool.coverage.run]\nbranch = true\n",
            "[tool.testkit.coverage]\nkinds = ['unit', 'integration']",
            f"sources = ['src/{foreign.name}/*.py']",
            "overall = { kinds = ['unit', 'integration'] }\n",
            *layers,
        ]
    )


def run_tests(root: Path, output: Path, kind: str, tests: str) -> None:
    # What measures this test must not measure its children as well: one interpreter holds one tracer.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))
    }
    environment |= {
        "PYTHONPATH": str(root / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    data = f"--data-file={output}/data/.coverage.{kind}"
    command = [
        *(sys.executable, "-m", "coverage", "run", "--rcfile=", "--branch", "--parallel-mode", data),
        *(f"--source={root}/src", "-m", "pytest", "-q", "-p", "no:cacheprovider", tests),
    ]
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def check(foreign: Foreign, root: Path, folder: Path, output: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(root)
    reports, settings = folder / "reports", folder / "settings.toml"
    (reports / "data").mkdir(parents=True)
    settings.write_text(settings_for(foreign))
    for kind, tests in foreign.tests.items():
        run_tests(root, reports, kind, tests)
    common = ["--root", str(root), "--settings", str(settings), "--output", str(reports)]
    assert main(["coverage", "gate", *common]) == 0
    layers = json.loads((reports / "coverage.json").read_text())["layers"]
    assert set(layers) == {*foreign.layers, "overall"}
    for row in layers.values():
        assert set(row["kinds"]) == set(foreign.tests)
        assert 0 < row["counted"]["lines"]["hit"] < row["counted"]["lines"]["total"]
        assert row["counted"]["branches"]["total"] > 0
    output.readouterr()
    assert main(["coverage", "gaps", *common]) == 0
    head, worst, *_ = output.readouterr().out.splitlines()
    assert head.startswith("score")
    assert f"src/{foreign.name}/" in worst
    assert fingerprint(root) == before


@pytest.mark.parametrize("foreign", PACKAGES, ids=lambda foreign: foreign.name)
def test_a_source_archive_with_its_own_tests(
    foreign: Foreign, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "archive").mkdir()
    check(foreign, fetch(foreign.name, tmp_path / "archive"), tmp_path, capsys)


def test_an_installed_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(PACKAGES[1], rebuild_installed(tmp_path), tmp_path, capsys)
