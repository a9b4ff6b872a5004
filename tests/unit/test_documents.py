"""The paths that documents name and link to exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A path in backticks is one word with a slash or a suffix of ours; `a.b` and `./dev test` are none.
PATH = re.compile(r"`((?:[\w.*-]+/)+[\w.*-]*|[\w-]+\.(?:py|md|toml|sql|sh|html))`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
SOURCE_ROOTS = ("", "packages/proxy/src/edgeproxy", "packages/mock_backend/src", "packages/testkit/src")


def missing_paths(document: Path, roots: list[Path]) -> list[str]:
    """Name each path in backticks that is below none of ``roots``."""
    return [
        f"{document.name} names {name}, which does not exist"
        for name in PATH.findall(document.read_text(encoding="utf-8"))
        if not any(any(root.glob(name.rstrip("/"))) for root in roots)
    ]


def missing_links(document: Path) -> list[str]:
    """Name each link to a file that is not there."""
    return [
        f"{document.name} links to {name}, which does not exist"
        for name in LINK.findall(document.read_text(encoding="utf-8"))
        if not (document.parent / name).exists()
    ]


def test_every_path_that_the_architecture_document_names_exists() -> None:
    missing = missing_paths(ROOT / "ARCHITECTURE.md", [ROOT / source_root for source_root in SOURCE_ROOTS])
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "coverage_reports/README.md"]
)
def test_every_link_leads_somewhere(document: str) -> None:
    missing = missing_links(ROOT / document)
    assert not missing, "\n".join(missing)


def test_the_architecture_document_names_files() -> None:
    assert len(PATH.findall((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))) >= 10


def test_a_path_that_does_not_exist_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "model.py").touch()
    document = tmp_path / "ARCHITECTURE.md"
    document.write_text(
        "`core/model.py` `core/` `core/*.py` `model.py` `a.b` `./dev test`\n`core/gone.py` `gone.md`\n"
    )
    assert missing_paths(document, [tmp_path, tmp_path / "core"]) == [
        "ARCHITECTURE.md names core/gone.py, which does not exist",
        "ARCHITECTURE.md names gone.md, which does not exist",
    ]


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("[self](README.md#part) [web](https://x/y.md) [here](#part) [bad](gone/away.md)\n")
    assert missing_links(document) == ["README.md links to gone/away.md, which does not exist"]
