from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from edgeproxy import __version__
from edgeproxy.__main__ import main
from edgeproxy.errors import ConfigError, EdgeproxyError, ListenError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys, "argv", ["edgeproxy", "run"])
    return monkeypatch


def end_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(*_arguments: object) -> int:
        raise error

    monkeypatch.setitem(
        sys.modules, "edgeproxy.app", SimpleNamespace(run=run, find_predecessor=lambda _environ: None)
    )


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (EdgeproxyError("broken"), 1, ["broken"]),
        (ConfigError(["one", "two"]), 2, ["one", "two"]),
        (ListenError("0.0.0.0:80: taken"), 5, ["0.0.0.0:80: taken"]),
    ],
)
def test_an_error_is_a_line_for_each_problem_and_its_exit_code(
    command: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: EdgeproxyError,
    code: int,
    lines: list[str],
) -> None:
    end_with(command, error)
    assert main() == code
    assert capsys.readouterr() == ("", "".join(f"edgeproxy: error: {line}\n" for line in lines))


def test_ctrl_c_ends_quietly_with_130(
    command: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    end_with(command, KeyboardInterrupt())
    assert main() == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_keeps_its_traceback(command: pytest.MonkeyPatch) -> None:
    end_with(command, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main()


def test_other_commands_end_with_the_exit_code_of_typer(
    command: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.setattr(sys, "argv", ["edgeproxy", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"edgeproxy {__version__}\n"
