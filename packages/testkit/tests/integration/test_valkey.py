"""A real server: started, asked, killed, paused, gone."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from testkit.valkey import ValkeyServer, find_program, valkey_server


def test_answers(valkey: ValkeyServer) -> None:
    assert valkey.execute("SET", "key", "välue") == "OK"
    assert valkey.execute("APPEND", "key", "!") == "7"


@pytest.mark.parametrize("attempt", [1, 2])
def test_every_test_begins_with_nothing(valkey: ValkeyServer, attempt: int) -> None:
    assert valkey.execute("INCR", "attempts") == "1"


def test_time_passes_for_keys_that_end(valkey: ValkeyServer) -> None:
    for name, ttl_s in (("short", "10"), ("long", "100")):
        valkey.execute("SET", name, "value", "EX", ttl_s)
    valkey.execute("SET", "for ever", "value")
    valkey.pass_time(11)
    assert [valkey.execute("EXISTS", name) for name in ("short", "long", "for ever")] == ["0", "1", "1"]
    assert int(valkey.execute("TTL", "long")) <= 89


def test_refusal_carries_the_error(valkey: ValkeyServer) -> None:
    with pytest.raises(AssertionError, match="unknown command"):
        valkey.execute("NOTHING")


@pytest.mark.parametrize(("durable", "left"), [(True, "2"), (False, "1")])
def test_what_a_killed_server_remembers(
    valkey_factory: Callable[..., ValkeyServer], durable: bool, left: str
) -> None:
    server = valkey_factory(durable=durable)
    server.execute("INCR", "n")
    server.kill()
    assert "stopped" in repr(server)
    with pytest.raises(ConnectionRefusedError):
        server.execute("PING")
    server.start()
    assert "running" in repr(server)
    assert server.execute("INCR", "n") == left


def test_paused_server_answers_when_it_goes_on(valkey_factory: Callable[..., ValkeyServer]) -> None:
    server = valkey_factory()
    server.pause()
    server.resume()
    assert server.execute("PING") == "PONG"
    server.pause()  # and goes all the same when the test ends


def test_nothing_is_left_of_a_server(valkey_program: Path) -> None:
    with valkey_server(valkey_program) as server:
        folder = server._folder
        assert "Ready to accept connections" in server.log
        assert server.url.endswith(f":{server.port}/0")
    assert not server.running
    assert not folder.exists()


def test_server_that_cannot_start_says_why(tmp_path: Path, port: int) -> None:
    server = ValkeyServer(Path("/bin/false"), tmp_path, port)
    assert (server.log, server.running) == ("", False)
    server.stop()
    with pytest.raises(AssertionError, match="exited 1"):
        server.start()


# ---- finding the program -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_program_on_the_path_is_found(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(shutil, "which", {name: "/opt/bin/it"}.get)
    assert find_program() == Path("/opt/bin/it")


def test_else_the_one_of_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda _: SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    )
    assert find_program() is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "redis-server").touch()
    assert find_program() == tmp_path / "bin" / "redis-server"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert find_program() is None
