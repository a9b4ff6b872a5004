"""A start that cannot succeed ends at once, with its exit code and one line that names thing and remedy."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from packages.proxy.tests.integration.proxies import EDGEPROXY, environment, row, write_rows
from testkit.process import ProcessFactory


class FailedStart:
    """What ``edgeproxy run`` said, and how it ended."""

    def __init__(self, factory: ProcessFactory, folder: Path, settings: dict[str, object]) -> None:
        chosen = {"listen_addr": "127.0.0.1:0", "workers": 1, **settings}
        process = factory([*EDGEPROXY, "run"], env=environment(chosen), cwd=folder)
        self.exit_code = process.wait_exit()
        self.lines = process.log.splitlines()
        self.left_behind = process.group()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a usable ``routing.db``."""
    write_rows(tmp_path / "routing.db", [row("one", 9001)])
    return tmp_path


@pytest.fixture
def fails(process_factory: ProcessFactory, folder: Path) -> FailedStartFactory:
    return FailedStartFactory(process_factory, folder)


class FailedStartFactory:
    """Starts a proxy that must fail, and checks what holds for every failure."""

    def __init__(self, factory: ProcessFactory, folder: Path) -> None:
        self._factory = factory
        self._folder = folder

    def __call__(self, exit_code: int, **settings: object) -> str:
        """Return the one line, without the name of the program."""
        start = FailedStart(self._factory, self._folder, settings)
        assert start.exit_code == exit_code, start.lines
        (line,) = start.lines
        assert line.startswith("edgeproxy: error: ")
        assert start.left_behind == []
        assert not list(self._folder.glob("*.sock"))
        return line.removeprefix("edgeproxy: error: ")


# ---- settings: exit 2 ----------------------------------------------------------------------------


def test_a_variable_nobody_knows_is_named_with_the_one_that_was_meant(fails: FailedStartFactory) -> None:
    line = fails(2, listen_adress="127.0.0.1:0")
    assert line == "EDGEPROXY_LISTEN_ADRESS: unknown variable; did you mean EDGEPROXY_LISTEN_ADDR?"


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:99999", "300.0.0.1:80", "::1:80"])
def test_an_address_that_is_none_is_named(fails: FailedStartFactory, address: str) -> None:
    line = fails(2, listen_addr=address)
    assert line.startswith(f"EDGEPROXY_LISTEN_ADDR: {address!r} ")
    assert "write " in line


def test_a_region_that_is_none_is_named_with_those_there_are(fails: FailedStartFactory) -> None:
    line = fails(2, region="mars")
    assert line.startswith("EDGEPROXY_REGION: 'mars' is no region; write one of ap, ")


# ---- the routing database: exit 3 ----------------------------------------------------------------


def test_a_missing_database_is_named_with_the_command_that_makes_one(
    fails: FailedStartFactory, folder: Path
) -> None:
    missing = folder / "elsewhere.db"
    line = fails(3, db_path=missing)
    assert line.startswith(f"routing database {missing} does not exist; make it with `edgeproxy db init")
    assert not missing.exists()


def test_a_text_file_is_no_database(fails: FailedStartFactory, folder: Path) -> None:
    (folder / "routing.db").write_text("mock-eu-1 127.0.0.1:9001\n" * 100)
    assert "is not a SQLite database" in fails(3)


def test_a_database_without_the_table_is_named(fails: FailedStartFactory, folder: Path) -> None:
    (folder / "routing.db").unlink()
    (folder / "routing.db").touch()
    assert "has no table backends" in fails(3)


def test_a_folder_is_no_database(fails: FailedStartFactory, folder: Path) -> None:
    assert "is a directory" in fails(3, db_path=folder)


def test_beside_a_database_on_a_read_only_file_system_the_admin_socket_needs_another_place(
    fails: FailedStartFactory, folder: Path, read_only_copy: Callable[[Path], Path]
) -> None:
    db_path = read_only_copy(folder / "routing.db")
    line = fails(5, db_path=db_path)
    assert line == (
        f"cannot listen on the admin socket {db_path}.sock: Read-only file system; set EDGEPROXY_ADMIN_SOCKET"
    )


# ---- the country database: exit 4 ----------------------------------------------------------------


def test_a_missing_country_database_is_named(fails: FailedStartFactory, folder: Path) -> None:
    line = fails(4, geoip_path=folder / "no.mmdb")
    assert line.startswith(f"country database {folder}/no.mmdb does not exist: set EDGEPROXY_GEOIP_PATH")


def test_a_corrupt_country_database_is_named(fails: FailedStartFactory, folder: Path) -> None:
    (folder / "bad.mmdb").write_bytes(os.urandom(4096))
    line = fails(4, geoip_path=folder / "bad.mmdb")
    assert line.startswith(f"country database {folder}/bad.mmdb is not an .mmdb file, or a damaged one: ")


# ---- addresses: exit 5 ---------------------------------------------------------------------------


def test_a_port_in_use_by_another_program_is_named(fails: FailedStartFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        line = fails(5, listen_addr=f"127.0.0.1:{port}")
    assert line.startswith(f"cannot listen on 127.0.0.1:{port}: another process has the port")


def test_an_address_of_another_machine_is_named(fails: FailedStartFactory) -> None:
    line = fails(5, listen_addr="192.0.2.1:8080")
    assert line == (
        "cannot listen on 192.0.2.1:8080: no interface of this machine has that address; "
        "set EDGEPROXY_LISTEN_ADDR"
    )


def test_an_admin_socket_in_a_folder_that_does_not_exist_is_named(
    fails: FailedStartFactory, folder: Path
) -> None:
    line = fails(5, admin_socket=folder / "no" / "admin.sock")
    assert line == (
        f"cannot listen on the admin socket {folder}/no/admin.sock: No such file or directory; "
        "set EDGEPROXY_ADMIN_SOCKET"
    )


def test_an_admin_socket_that_is_a_file_is_left_as_it_is(fails: FailedStartFactory, folder: Path) -> None:
    (folder / "notes.txt").write_text("important")
    line = fails(5, admin_socket=folder / "notes.txt")
    assert "it is no socket" in line
    assert (folder / "notes.txt").read_text() == "important"
