"""Who may import whom, and that nothing lies about which no entry point reaches.

Every rule is a function that returns one line per violation; each is tried on the repository and on a small
tree that breaks it.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

# Nothing of what is measured runs here.
pytestmark = pytest.mark.untraced

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "packages"

Imports = Mapping[str, frozenset[str]]
"""Module to the modules it imports, both by full name; ``from a import b`` imports ``a`` and ``a.b``."""

# fmt: off
PURE_STANDARD_LIBRARY = frozenset({
    "__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "contextlib",
    "dataclasses", "difflib", "enum", "fnmatch", "fractions", "functools", "hashlib", "heapq", "hmac",
    "ipaddress", "itertools", "json", "math", "operator", "re", "string", "struct", "types", "typing", "zlib",
})
# fmt: on
ADAPTER_FOLDERS = ("worker", "inbound", "outbound", "runtime")
SHARED_BY_ADAPTERS = ("core", "ports", "errors", "config", "capabilities", "hidden")
"""The last two are about the process itself, whatever it is for, and import nothing of ours."""
# The composition roots: of the control process, of the stores that commands need too, of a worker process.
COMPOSITION_ROOTS = ("edgeproxy.app", "edgeproxy.stores", "edgeproxy.worker.__main__")


def read_imports(source_folder: Path) -> dict[str, frozenset[str]]:
    """Return what every module below ``source_folder`` imports, at the top and inside functions."""
    return {
        module_name(source_folder, file): frozenset(imports_of(file)) for file in source_folder.rglob("*.py")
    }


def module_name(source_folder: Path, file: Path) -> str:
    parts = file.relative_to(source_folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path) -> Iterator[str]:
    for node in of_interest(file):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{file}:{node.lineno}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named_in_texts(file: Path) -> Iterator[str]:
    """What a table of parts to be imported on demand names: texts that could be ``package.module:name``."""
    for node in of_interest(file):
        if isinstance(node, ast.Constant):
            module = str(node.value).partition(":")[0]
            if "." in module and all(part.isidentifier() for part in module.split(".")):
                yield module


@cache
def of_interest(file: Path) -> tuple[ast.Import | ast.ImportFrom | ast.Constant, ...]:
    """The imports of a file, and its texts. Both are asked for, and to parse all files takes seconds."""
    return tuple(
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    )


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def impure_imports_of_core(imports: Imports) -> list[str]:
    """core imports itself, the ports, and what does no I/O and keeps no clock: such standard modules,
    msgspec, zstandard and ciphers.

    The ports say what core asks of the outside, so they are bound by the same rule.
    """
    ciphers = {"cryptography.exceptions", "cryptography.hazmat.primitives.ciphers.aead"}
    allowed = {
        *PURE_STANDARD_LIBRARY, *ciphers, "msgspec", "zstandard", "edgeproxy.core", "edgeproxy.ports"
    }  # fmt: skip
    return [
        f"{module} imports {imported}: core is pure"
        for module, all_imported in sorted(imports.items())
        if is_within(module, "edgeproxy.core") or module == "edgeproxy.ports"
        for imported in sorted(all_imported - {"edgeproxy"})
        if not any(is_within(imported, package) for package in allowed)
    ]


def imports_across_adapters(imports: Imports) -> list[str]:
    """Adapters know core, ports, errors and config, not one another; only composition roots name them."""
    violations: list[str] = []
    for module, all_imported in sorted(imports.items()):
        if any(is_within(module, root) for root in COMPOSITION_ROOTS) or not is_within(module, "edgeproxy"):
            continue
        folder = module.split(".")[1] if "." in module else ""
        for imported in sorted(name for name in all_imported if is_within(name, "edgeproxy") and "." in name):
            target = imported.split(".")[1]
            if target in ADAPTER_FOLDERS and target != folder:
                violations.append(f"{module} imports {imported}: only composition roots name adapters")
            elif folder in ADAPTER_FOLDERS and target not in (folder, *SHARED_BY_ADAPTERS):
                violations.append(
                    f"{module} imports {imported}: adapters know only {', '.join(SHARED_BY_ADAPTERS)}"
                )
    return violations


def imports_of_siblings(imports: Imports, package: str, siblings: Iterable[str]) -> list[str]:
    """Return every import of one of ``siblings`` by ``package``."""
    return [
        f"{module} imports {imported}: {package} stands alone"
        for module, all_imported in sorted(imports.items())
        if is_within(module, package)
        for imported in sorted(all_imported)
        if any(is_within(imported, sibling) for sibling in siblings)
    ]


def entry_points(packages: Path, imports: Imports) -> set[str]:
    """Return the modules that start by themselves: console scripts, pytest plugins, ``python -m PACKAGE``."""
    started = {module for module in imports if module.endswith(".__main__")}
    for manifest in packages.glob("*/pyproject.toml"):
        project = tomllib.loads(manifest.read_text(encoding="utf-8"))["project"]
        targets = [
            *project.get("scripts", {}).values(),
            *project.get("entry-points", {}).get("pytest11", {}).values(),
        ]
        started |= {target.partition(":")[0] for target in targets}
    return started


def imported_by_tests(root: Path) -> set[str]:
    """Return what tests import of testkit, but for its own: it is a library, and its users are the others."""
    folders = [root / "e2e", root / "examples", root / "tests", *root.glob("packages/*/tests")]
    own = root / "packages" / "testkit" / "tests"
    return {
        name
        for folder in folders
        if folder != own
        for file in folder.rglob("*.py")
        # Most do not name it, and to parse all takes seconds.
        if "testkit" in file.read_text(encoding="utf-8")
        for name in imports_of(file)
        if is_within(name, "testkit")
    }


def unreached_modules(imports: Imports, started: Iterable[str]) -> list[str]:
    """Return the modules that no import leads to from ``started``. Importing a.b imports a too."""
    reached: set[str] = set()
    waiting = list(started)
    while waiting:
        module = waiting.pop()
        if module in reached or module not in imports:
            continue
        reached.add(module)
        waiting.extend(imports[module])
        waiting.extend(module[:dot] for dot, letter in enumerate(module) if letter == ".")
    return [f"{module} is reached from no entry point" for module in sorted(imports.keys() - reached)]


def assert_none(violations: list[str]) -> None:
    """Fail with one violation per line."""
    if violations:
        pytest.fail("\n".join(violations), pytrace=False)


@pytest.fixture(scope="module")
def repository() -> Imports:
    return {
        module: imported
        for source_folder in PACKAGES.glob("*/src")
        for module, imported in read_imports(source_folder).items()
    }


def make_tree(root: Path, files: Mapping[str, str]) -> Imports:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return read_imports(root)


def test_core_is_pure(repository: Imports) -> None:
    assert_none(impure_imports_of_core(repository))


def test_adapters_do_not_know_one_another(repository: Imports) -> None:
    assert_none(imports_across_adapters(repository))


def test_testkit_stands_alone(repository: Imports) -> None:
    assert_none(imports_of_siblings(repository, "testkit", ("edgeproxy", "mock_backend")))


def test_every_module_is_reached_from_an_entry_point(repository: Imports) -> None:
    on_demand = {
        module_name(source_folder, file): frozenset(named_in_texts(file))
        for source_folder in PACKAGES.glob("*/src")
        for file in source_folder.rglob("*.py")
    }
    reachable = {module: imported | on_demand[module] for module, imported in repository.items()}
    assert_none(unreached_modules(reachable, entry_points(PACKAGES, repository) | imported_by_tests(ROOT)))


def test_the_pure_standard_library_is_part_of_the_standard_library() -> None:
    assert sys.stdlib_module_names | {"__future__"} >= PURE_STANDARD_LIBRARY


@pytest.mark.parametrize(
    ("statement", "imported"),
    [
        ("import time", "time"),
        ("from os import path", "os"),
        ("import asyncio.events", "asyncio.events"),
        ("def f():\n    import socket", "socket"),
        ("from edgeproxy import errors", "edgeproxy.errors"),
        ("import structlog", "structlog"),
    ],
)
def test_an_impure_core_is_noticed(tmp_path: Path, statement: str, imported: str) -> None:
    imports = make_tree(
        tmp_path, {"edgeproxy/core/wire/part.py": statement, "edgeproxy/worker/loop.py": statement}
    )
    assert f"edgeproxy.core.wire.part imports {imported}: core is pure" in impure_imports_of_core(imports)


def test_a_pure_core_passes(tmp_path: Path) -> None:
    text = "from collections.abc import Mapping\nimport msgspec\nfrom edgeproxy.core.model import Backend\n"
    assert impure_imports_of_core(make_tree(tmp_path, {"edgeproxy/core/part.py": text})) == []


@pytest.mark.parametrize(
    ("file", "statement", "violation"),
    [
        (
            "edgeproxy/worker/loop.py",
            "from edgeproxy.outbound import store_sqlite",
            "edgeproxy.worker.loop imports edgeproxy.outbound: only composition roots name adapters",
        ),
        (
            "edgeproxy/cli/run.py",
            "import edgeproxy.runtime.supervisor",
            "edgeproxy.cli.run imports edgeproxy.runtime.supervisor: only composition roots name adapters",
        ),
        (
            "edgeproxy/__main__.py",
            "import edgeproxy.inbound.dns",
            "edgeproxy.__main__ imports edgeproxy.inbound.dns: only composition roots name adapters",
        ),
        (
            "edgeproxy/runtime/stop.py",
            "from edgeproxy.app import App",
            (
                "edgeproxy.runtime.stop imports edgeproxy.app: "
                "adapters know only core, ports, errors, config, capabilities, hidden"
            ),
        ),
    ],
)
def test_an_adapter_named_outside_a_composition_root_is_noticed(
    tmp_path: Path, file: str, statement: str, violation: str
) -> None:
    assert violation in imports_across_adapters(make_tree(tmp_path, {file: statement}))


def test_composition_roots_and_shared_parts_pass(tmp_path: Path) -> None:
    files = {
        "edgeproxy/app.py": "from edgeproxy.outbound import store_sqlite\nimport edgeproxy.inbound.api\n",
        "edgeproxy/worker/__main__.py": "from edgeproxy.outbound.geo_maxmind import Lookup\n",
        "edgeproxy/worker/loop.py": "from edgeproxy.core.model import Backend\n"
        "from edgeproxy.ports import RowStore\nfrom edgeproxy.worker.listener import listen\nimport os\n",
    }
    imports = make_tree(tmp_path, files)
    assert (
        imports_across_adapters(
            {**imports, "edgeproxy.worker.loop": imports["edgeproxy.worker.loop"] - {"edgeproxy.__version__"}}
        )
        == []
    )


def test_an_import_of_a_sibling_is_noticed(tmp_path: Path) -> None:
    imports = make_tree(tmp_path, {"testkit/faults.py": "def f():\n    from edgeproxy.core import model\n"})
    assert imports_of_siblings(imports, "testkit", ("edgeproxy",)) == [
        "testkit.faults imports edgeproxy.core: testkit stands alone",
        "testkit.faults imports edgeproxy.core.model: testkit stands alone",
    ]


def test_only_testkits_own_tests_are_no_users_of_it(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        {
            "e2e/test_story.py": "import testkit.geo",
            "packages/proxy/tests/unit/test_part.py": "from testkit import wait",
            "packages/testkit/tests/unit/test_seeds.py": "import testkit.seeds",
        },
    )
    assert imported_by_tests(tmp_path) == {"testkit.geo", "testkit", "testkit.wait"}


def test_modules_that_are_imported_on_demand_are_named_in_texts(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text('WHERE = {"a": "thing.bugs.a", "b": "thing.b:B", "c": "no module."}\n')
    assert {*named_in_texts(tmp_path / "parts.py")} == {"thing.bugs.a", "thing.b"}


def test_a_module_that_nothing_reaches_is_noticed(tmp_path: Path) -> None:
    files = {
        "thing/src/thing/__init__.py": "",
        "thing/src/thing/cli.py": "from thing.used import f\n",
        "thing/src/thing/used.py": "",
        "thing/src/thing/plugin.py": "",
        "thing/src/thing/child/__init__.py": "",
        "thing/src/thing/child/__main__.py": "",
        "thing/src/thing/left_over/__init__.py": "",
        "thing/src/thing/left_over/part.py": "import thing.cli\n",
    }
    make_tree(tmp_path, files)
    (tmp_path / "thing" / "pyproject.toml").write_text(
        '[project]\nscripts.thing = "thing.cli:main"\nentry-points.pytest11.thing = "thing.plugin"\n'
    )
    imports = read_imports(tmp_path / "thing" / "src")
    assert unreached_modules(imports, entry_points(tmp_path, imports)) == [
        "thing.left_over is reached from no entry point",
        "thing.left_over.part is reached from no entry point",
    ]
