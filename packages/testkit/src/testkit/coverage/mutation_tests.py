"""Which tests answer for a module: those that mirror its path, else those nearest to it.

``PACKAGE/src/pkg/a/b_c.py`` is mirrored by ``a/test_b_c.py`` and ``a/test_b_c_*.py`` in each of the
package's folders of tests. Without such a file the tests answer that import the module, and without those
the tests of a shorter name, ``a/test_b.py``. A suite that is held to several modules at once is named in the
settings and answers for each of them, too. Whatever else would notice a defect by accident is not asked: the
tests of a part should.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath


class TestIndex:
    """The test files of a repository by what they import."""

    __test__ = False

    def __init__(
        self, root: Path, kinds: Sequence[str], suites: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Take every ``test_*.py`` below a folder that is named like one of ``kinds``, in their order.

        ``suites`` are further tests to the patterns of the files that they answer for, whatever these are
        called.
        """
        self._suites = suites or {}
        found: list[tuple[int, str]] = []
        for path in root.rglob("test_*.py"):
            folders = path.relative_to(root).parts[:-1]
            kind = next((folder for folder in folders if folder in kinds), None)
            if kind is not None and not any(folder.startswith(".") for folder in folders):
                found.append((kinds.index(kind), path.relative_to(root).as_posix()))
        self._files: Mapping[str, frozenset[str]] = {
            file: frozenset(_imports(root / file)) for _, file in sorted(found)
        }

    def tests_of(self, file: str) -> tuple[str, ...]:
        """Return the test files that answer for a source file, in the order of the kinds; perhaps none."""
        own = self._own_tests_of(file)
        suites = (
            suite for suite, files in self._suites.items() if any(fnmatchcase(file, each) for each in files)
        )
        return (*own, *(suite for suite in suites if suite in self._files and suite not in own))

    def _own_tests_of(self, file: str) -> tuple[str, ...]:
        module = module_name(file)
        stem, folders = module.rpartition(".")[2].strip("_"), tuple(module.split(".")[1:-1])
        package = file.partition("src/")[0]
        near = [test for test in self._files if test.startswith(package)]
        mirroring = tuple(test for test in near if _mirrors(test, stem, folders))
        importing = tuple(test for test, imported in self._files.items() if module in imported)
        if mirroring or importing:
            return mirroring or importing
        while "_" in stem:
            stem = stem.rpartition("_")[0]
            if shorter := tuple(test for test in near if _mirrors(test, stem, folders)):
                return shorter
        return ()


def module_name(file: str) -> str:
    """Return the full name of a source file's module, which begins below ``src`` if there is one."""
    parts = list(PurePosixPath(file).with_suffix("").parts)
    if "src" in parts:
        parts = parts[parts.index("src") + 1 :]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _mirrors(test: str, stem: str, folders: tuple[str, ...]) -> bool:
    path = PurePosixPath(test)
    name, parents = path.stem.removeprefix("test_"), path.parts[:-1]
    return (name == stem or name.startswith(f"{stem}_")) and parents[len(parents) - len(folders) :] == folders


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
