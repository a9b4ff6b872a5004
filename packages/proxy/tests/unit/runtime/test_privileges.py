"""Which user is meant, and in which order a process becomes it."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from edgeproxy import capabilities
from edgeproxy.errors import ConfigError, EdgeproxyError
from edgeproxy.runtime.privileges import Account, find_account, make_folder

SOMEBODY = Account("somebody", 4711, 4712, (4712, 4713))
ROOT = pwd.getpwuid(0)


class Process:
    """What a process is, and what it did to become that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, uid: int, gid: int) -> None:
        self.done: list[tuple[str, object]] = []
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        monkeypatch.setattr(os, "getegid", lambda: gid)
        for name in ("setgroups", "setgid", "setuid"):
            monkeypatch.setattr(os, name, lambda value, name=name: self.done.append((name, value)))


@pytest.mark.feature("process.user")
def test_root_gives_up_groups_then_group_then_user(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch, 0, 0)
    SOMEBODY.become()
    assert process.done == [("setgroups", (4712, 4713)), ("setgid", 4712), ("setuid", 4711)]


@pytest.mark.feature("relay.kernel")
def test_what_the_kernel_relay_needs_is_kept_over_the_change_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = Process(monkeypatch, 0, 0)
    for name in ("keep_on_change_of_user", "hand_down"):
        monkeypatch.setattr(capabilities, name, lambda *kept, name=name: process.done.append((name, kept)))
    SOMEBODY.become(for_kernel_relay=True)
    assert [name for name, _ in process.done] == [
        "keep_on_change_of_user",
        "setgroups",
        "setgid",
        "setuid",
        "hand_down",
    ]
    assert process.done[-1][1] == (capabilities.NET_ADMIN | capabilities.BPF,)


def test_who_is_that_user_already_stays_as_he_is(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch, 4711, 4712)
    SOMEBODY.become()
    assert process.done == []


@pytest.mark.parametrize(("uid", "gid"), [(1, 1), (4711, 1)])
def test_others_cannot(monkeypatch: pytest.MonkeyPatch, uid: int, gid: int) -> None:
    process = Process(monkeypatch, uid, gid)
    with pytest.raises(EdgeproxyError, match=f"EDGEPROXY_USER is somebody, and this process, of user {uid},"):
        SOMEBODY.become()
    assert process.done == []


def test_a_user_is_found_by_name_and_by_number() -> None:
    by_name = find_account(ROOT.pw_name, None)
    assert by_name == find_account("0", None)
    assert by_name[:3] == (ROOT.pw_name, 0, ROOT.pw_gid)
    assert ROOT.pw_gid in by_name.groups


def test_a_group_takes_the_place_of_the_users_own() -> None:
    other = next(each for each in grp.getgrall() if each.gr_gid != ROOT.pw_gid)
    account = find_account("0", other.gr_name)
    assert account == find_account("0", str(other.gr_gid))
    assert account.gid == other.gr_gid
    assert other.gr_gid in account.groups


@pytest.mark.parametrize(
    ("user", "group", "problem"),
    [
        ("no such user", None, "EDGEPROXY_USER: this machine has no user 'no such user'"),
        ("99999999999999999999", None, "EDGEPROXY_USER: this machine has no user '9+'"),
        ("0", "no such group", "EDGEPROXY_GROUP: this machine has no group 'no such group'"),
        ("0", "99999999999999999999", "EDGEPROXY_GROUP: this machine has no group '9+'"),
    ],
)
def test_an_unknown_one_is_a_wrong_setting(user: str, group: str | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        find_account(user, group)


def test_a_new_folder_is_given_to_its_owner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[tuple[Path, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda *arguments: given.append(arguments))
    make_folder(tmp_path / "some" / "folder", SOMEBODY)
    make_folder(tmp_path / "some" / "folder", SOMEBODY)
    make_folder(tmp_path / "other", None)
    assert (tmp_path / "other").is_dir()
    assert given == [(tmp_path / "some" / "folder", 4711, 4712)]
