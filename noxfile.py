"""Every check of the repository, defined once; ``./dev SESSION...`` and CI run these same sessions.

All sessions share the one environment that ``./dev setup`` makes (``.venv``): with one set of locked
dependencies there is nothing to keep apart, and making an environment per session would cost most of the
time a run takes.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent
BIN = ROOT / ".venv" / "bin"
REQUIREMENTS = ROOT / "requirements"
PACKAGES = ("proxy", "mock_backend", "testkit")
MEASUREMENTS = ROOT / "coverage_reports" / "data"
DIST = ROOT / "dist"
TESTKIT_EXTRAS = "clock,containers,jwt,pki,postgres,s3,valkey"
TESTKIT_TESTS_NEED = (
    *("aiohttp", "anyio", "asyncpg", "backoff", "blinker", "boto3", "geoip2"),
    *("hypothesis", "pip", "procrastinate", "psycopg[binary,pool]", "pybreaker", "pyee"),
    *("pyzmq", "rq", "saq", "stamina", "tenacity"),
    *("pytest-asyncio", "pytest-randomly", "pytest-timeout", "pytest-xdist"),
)
SINGLE_FILE_PYTHONS = ("3.11", "3.12", "3.13")
SINGLE_FILE_PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")

# What sessions and their children run are the programs of .venv.
os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
# Images of Python often forbid bytecode. Without it each of a thousand processes compiles all that it
# imports, and each process of pytest rewrites the assertions of all tests: half of what a run takes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# One more than there are cores: tests wait for processes, and for answers, most of the time.
TEST_PROCESSES = (os.cpu_count() or 1) + 1
# Of processes: who has it gets what all others leave.
LOWEST = "19"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["tests", "e2e", "coverage"]


def prepare(session: nox.Session) -> None:
    """Bring ``.venv`` up to date, which takes a fraction of a second when it is."""
    session.run("./dev", "setup", silent=True, log=False)


def run_pytest(
    session: nox.Session,
    kind: str,
    folders: list[str],
    *,
    dist: str = "worksteal",
    priority: str = "0",
    processes: int = TEST_PROCESSES,
) -> None:
    """Run one kind of test in a process of its own, measured into its own data files.

    Paths among the session's arguments narrow the run to what they and ``folders`` have in common.
    """
    prepare(session)
    if not (paths := narrowed(session, folders)):
        session.skip(f"no {kind} test is in the paths given")
    options = [argument for argument in session.posargs if not is_path(argument)]
    MEASUREMENTS.mkdir(parents=True, exist_ok=True)
    for stale in MEASUREMENTS.glob(f".coverage.{kind}*"):
        stale.unlink()
    session.run(
        *("nice", "-n", priority, "coverage", "run", f"--context={kind}"),
        *("-m", "pytest", f"--numprocesses={processes}"),
        # By default neighbours stay together, so that what a module's tests share is made once.
        f"--dist={dist}",
        f"--outcomes={MEASUREMENTS / f'outcomes.{kind}.jsonl'}",
        *options,
        *paths,
        env={"COVERAGE_FILE": str(MEASUREMENTS / f".coverage.{kind}")},
        # pytest ends with 5 when a filter such as -k leaves nothing of one kind.
        success_codes=[0, 5] if session.posargs else [0],
        external=True,
    )


def is_path(argument: str) -> bool:
    """Whether it names tests, and is no option of pytest."""
    return Path(argument.partition("::")[0]).exists()


def narrowed(session: nox.Session, folders: list[str]) -> list[str]:
    """Return what the paths among the session's arguments leave of ``folders``: all of them without any."""
    if not (named := [argument for argument in session.posargs if is_path(argument)]):
        return folders
    return [
        path if Path(path).is_relative_to(folder) else folder
        for path, folder in itertools.product(named, folders)
        if Path(path).is_relative_to(folder) or Path(folder).is_relative_to(path)
    ]


def folders_of(kind: str) -> list[str]:
    """Return the folders of this kind of test that exist, relative to the root."""
    candidates = [
        *(Path("packages") / package / "tests" / kind for package in PACKAGES),
        *(path.relative_to(ROOT) for path in sorted(ROOT.glob(f"examples/*/tests/{kind}"))),
        Path("tests") / kind,
    ]
    return [str(folder) for folder in candidates if (ROOT / folder).is_dir()]


@nox.session(allow_parallel=True)
def e2e(session: nox.Session) -> None:
    """The stories a user would tell, on processes and on hosts; --list, --keep, or what pytest takes."""
    if "--list" in session.posargs:
        prepare(session)
        session.run("python", "-m", "pytest", "--quiet", "e2e", *session.posargs)
        return
    if "--keep" in session.posargs:
        # In this process, which says how to enter the hosts.
        session.posargs.append("-n0")
    # Which process tells which stories is for e2e/conftest.py to say. One more: two mostly wait for hosts.
    run_pytest(session, "e2e", ["e2e"], dist="load", processes=TEST_PROCESSES + 1)


@nox.session(allow_parallel=True)
def unit(session: nox.Session) -> None:
    """Unit tests: they only compute, and beside other sessions they do so while those wait."""
    run_pytest(session, "unit", folders_of("unit"), priority=LOWEST)


@nox.session(allow_parallel=True)
def simulation(session: nox.Session) -> None:
    """A few simulated histories of replication; `simulate` takes thousands."""
    run_pytest(session, "simulation", folders_of("simulation"), priority=LOWEST)


@nox.session(allow_parallel=True)
def integration(session: nox.Session) -> None:
    """Integration tests: loopback, real files, real processes."""
    # One more than for what only computes: they wait for programs a sixth of the time.
    run_pytest(session, "integration", folders_of("integration"), processes=TEST_PROCESSES + 1)


@nox.session(requires=["unit", "simulation", "integration"])
def tests(session: nox.Session) -> None:
    """Unit and integration tests and simulated histories; arguments go to pytest."""
    if not any(narrowed(session, folders_of(kind)) for kind in ("unit", "simulation", "integration")):
        session.error("no unit or integration test or simulated history is in the paths given")


@nox.session
def repeat(session: nox.Session) -> None:
    """Sessions so many times, with new seeds, every result printed: -- 10 e2e -k containers."""
    if len(session.posargs) < 2 or not session.posargs[0].isdigit():
        session.error("say how often and what: ./dev repeat -- 10 e2e -k containers")
    times, *what = session.posargs
    session.run("python", "tools/repeat.py", times, "./dev", *what)


@nox.session(requires=["tests", "e2e"])
def coverage(session: nox.Session) -> None:
    """Combine what the tests measured by layer and kind, ask every gate, write coverage_reports/."""
    prepare(session)
    session.run("testkit", "coverage", "gate")


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules and formatting."""
    prepare(session)
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check", "--quiet")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, on packages, tests and this file."""
    prepare(session)
    session.run("mypy", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """A million inputs for each parser; --inputs N, --seed S, --target NAME, --number N."""
    prepare(session)
    session.run("python", "-m", "packages.proxy.tests.fuzz", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """Replication through 2,000 histories of faults; --seeds N, --seed S, --plant NAME, --measure"""
    prepare(session)
    options = [option for option in session.posargs if option != "--measure"]
    command = ["python", "-m"]
    if len(options) < len(session.posargs):
        MEASUREMENTS.mkdir(parents=True, exist_ok=True)
        command = ["coverage", "run", "--context=simulation", "-m"]
    session.run(
        *(*command, "packages.proxy.tests.simulation", *options),
        env={"COVERAGE_FILE": str(MEASUREMENTS / ".coverage.simulation")},
    )


@nox.session
def mutation(session: nox.Session) -> None:
    """Plant defects and see whether the tests notice; --number N, --seed S, --paths PATH..., --minutes M."""
    prepare(session)
    session.run("testkit", "coverage", "mutation", *session.posargs)


@nox.session
def contracts(session: nox.Session) -> None:
    """Which implementation holds which contract, and whether contracts bite; --number N, --seed S."""
    prepare(session)
    outcomes = MEASUREMENTS / "outcomes.contracts.jsonl"
    folders = [*folders_of("unit"), *folders_of("integration")]
    session.run(
        *("python", "-m", "pytest", f"--numprocesses={TEST_PROCESSES}", "--dist=worksteal", "-m", "contract"),
        *(f"--outcomes={outcomes}", "--full", "--no-header", "-rfE", *folders),
        # The matrix says which have failed.
        success_codes=[0, 1],
    )
    session.run("testkit", "contracts", f"--outcomes={outcomes}", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with HAProxy and nginx into bench_reports/; --rows k64,conn, --rounds N, --seconds S."""
    prepare(session)
    session.run("python", "-m", "bench", *session.posargs, success_codes=[0, 1])


@nox.session
def soak(session: nox.Session) -> None:
    """Connections of every kind, and those that the kernel relays, of which nothing may be left."""
    prepare(session)
    session.run("python", "-m", "bench.soak", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Watch the proxy route clients from several countries; --for SECONDS."""
    prepare(session)
    # Ctrl-C reaches the demo too; left to its default, nox would kill it while it stops what it started.
    session.run("python", "-m", "e2e.demo", *session.posargs, interrupt_timeout=15.0, terminate_timeout=15.0)


@nox.session
def image(session: nox.Session) -> None:
    """Build the container image of the proxy: edgeproxy:local, or the name given."""
    prepare(session)
    session.run("python", "-m", "e2e.hosts.images", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Resolve the dependencies anew and write requirements/*.txt with their hashes."""
    prepare(session)

    def compile_lock(name: str, *sources: str) -> None:
        target = REQUIREMENTS / f"{name}.txt"
        constraints = [] if name == "dev" else ["--constraints", str(REQUIREMENTS / "dev.txt")]
        session.run(
            *("uv", "pip", "compile", "--quiet", "--generate-hashes", "--universal"),
            *("--python-version", "3.11", "--no-header", "--no-annotate", *session.posargs),
            *(*constraints, *sources, "--output-file", str(target)),
        )

    manifests = {package: f"packages/{package}/pyproject.toml" for package in PACKAGES}
    compile_lock("dev", *manifests.values(), "requirements/dev.in")
    compile_lock("uv", "requirements/uv.in")
    compile_lock("edgeproxy", manifests["proxy"])
    compile_lock("mock-backend", manifests["mock_backend"])


@nox.session
def dist(session: nox.Session) -> None:
    """Wheels, source archives, and each program as a single file, into dist/."""
    prepare(session)
    shutil.rmtree(DIST, ignore_errors=True)
    for package in PACKAGES:
        with session.chdir(ROOT / "packages" / package):
            session.run("hatchling", "build", "--directory", str(DIST))
    for program in ("edgeproxy", "mock-backend"):
        build_single_file(session, program)


@nox.session
def wheel(session: nox.Session) -> None:
    """Install testkit's built wheel into an empty environment, and run testkit's own tests there."""
    prepare(session)
    with tempfile.TemporaryDirectory() as elsewhere:
        folder = Path(elsewhere)
        # PostgreSQL runs as somebody else where the tests run as root.
        folder.chmod(0o755)
        with session.chdir(ROOT / "packages" / "testkit"):
            session.run("hatchling", "build", "--target", "wheel", "--directory", elsewhere, silent=True)
        (built,) = folder.glob("*.whl")
        session.run("uv", "venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
        session.run(
            *("uv", "pip", "install", "--quiet", "--python", str(folder / "venv" / "bin" / "python")),
            *("--constraints", str(REQUIREMENTS / "dev.txt")),
            *(f"{built}[{TESTKIT_EXTRAS}]", *TESTKIT_TESTS_NEED),
        )
        # Nothing of the repository but the tests and the settings of pytest.
        shutil.copytree(ROOT / "packages" / "testkit" / "tests", folder / "packages" / "testkit" / "tests")
        shutil.copy(ROOT / "pyproject.toml", folder)
        with session.chdir(folder):
            session.run(
                *(str(folder / "venv" / "bin" / "python"), "-m", "pytest", "packages/testkit/tests"),
                *(f"--numprocesses={TEST_PROCESSES}", "--dist=worksteal", *session.posargs),
                external=True,
                env={"PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{os.defpath}", "PYTHONPATH": ""},
            )


def build_single_file(session: nox.Session, program: str) -> None:
    """Make dist/PROGRAM.pyz, which runs wherever one of the supported interpreters is.

    Compiled modules carry interpreter and platform in their file names, so those of all targets fit side by
    side into one tree; what is pure Python is the same for all.
    """
    tree = session.create_tmp()
    distribution = "edgeproxy_mock_backend" if program == "mock-backend" else program
    (wheel,) = DIST.glob(f"{distribution}-*.whl")
    site_packages = Path(tree) / program
    shutil.rmtree(site_packages, ignore_errors=True)
    for version, platform in itertools.product(SINGLE_FILE_PYTHONS, SINGLE_FILE_PLATFORMS):
        target = Path(tree) / f"{program}-{version}-{platform}"
        shutil.rmtree(target, ignore_errors=True)
        session.run(
            *("uv", "pip", "install", "--quiet", "--target", str(target), "--only-binary", ":all:"),
            *("--python-version", version, "--python-platform", platform),
            *("--require-hashes", "--requirements", str(REQUIREMENTS / f"{program}.txt")),
        )
        shutil.copytree(target, site_packages, dirs_exist_ok=True)
    session.run("uv", "pip", "install", "--quiet", "--target", str(site_packages), "--no-deps", str(wheel))
    single_file = DIST / f"{program}.pyz"
    session.run(
        *("shiv", "--site-packages", str(site_packages), "--console-script", program, "--compressed"),
        # Worker processes are new interpreters, which find the unpacked tree through PYTHONPATH.
        *("--extend-pythonpath", "--reproducible", "--python", "/usr/bin/env python3"),
        *("--output-file", str(single_file)),
    )
    smoke_test(session, single_file)


def smoke_test(session: nox.Session, single_file: Path) -> None:
    """Run the file with a bare interpreter outside of every environment, as on the host it is copied to."""
    with tempfile.TemporaryDirectory() as elsewhere:
        copy = shutil.copy(single_file, elsewhere)
        interpreter = (
            Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        )
        with session.chdir(elsewhere):
            session.run(
                *(str(interpreter), "-I", copy, "--help"),
                env={"PATH": os.defpath, "SHIV_ROOT": elsewhere},
                include_outer_env=False,
                silent=True,
            )
    session.log(f"{single_file.relative_to(ROOT)} runs by itself ({single_file.stat().st_size >> 10} KiB)")
