"""Becoming another user once the ports are bound, so that nothing that a client can reach runs as root."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import NamedTuple

from edgeproxy.errors import ConfigError, EdgeproxyError


class Account(NamedTuple):
    """A user to run as, with the groups that count for it."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def become(self, *, for_kernel_relay: bool = False) -> None:
        """Run this process, and all that it starts from now on, as this user, for good.

        What workers need of root's powers to have the kernel relay is left if wanted.

        Raises:
            EdgeproxyError: this process is another user already, and not root.
        """
        if (os.geteuid(), os.getegid()) == (self.uid, self.gid):
            return  # the successor of a process that did it
        if os.geteuid() != 0:
            raise EdgeproxyError(
                f"EDGEPROXY_USER is {self.name}, and this process, of user {os.geteuid()}, cannot become "
                "another: only root can; start it as root, or unset EDGEPROXY_USER"
            )
        if not for_kernel_relay:
            self._change()
            return
        # ctypes is loaded only by those who need it.
        from edgeproxy import capabilities

        capabilities.keep_on_change_of_user()
        self._change()
        capabilities.hand_down(capabilities.FOR_THE_KERNEL_RELAY)

    def _change(self) -> None:
        # The user last: who is not root any more may change nothing.
        os.setgroups(self.groups)  # feature: process.user
        os.setgid(self.gid)
        os.setuid(self.uid)


def find_account(user: str, group: str | None) -> Account:
    """Look up ``user``, a name or a number, with ``group`` in place of the user's own one.

    Raises:
        ConfigError: this machine has no such user or group.
    """
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise ConfigError(
            [f"EDGEPROXY_USER: this machine has no user {user!r}; `getent passwd` lists them"]
        ) from None
    gid = entry.pw_gid if group is None else _group_id(group)
    return Account(entry.pw_name, entry.pw_uid, gid, tuple(os.getgrouplist(entry.pw_name, gid)))


def make_folder(path: Path, owner: Account | None) -> None:
    """Make ``path``, if it is missing, and give it to its ``owner``.

    Raises:
        OSError: it cannot be made or given away.
    """
    if not path.exists():
        path.mkdir(parents=True)
        if owner is not None:
            os.chown(path, owner.uid, owner.gid)


def _group_id(group: str) -> int:
    try:
        return (grp.getgrgid(int(group)) if group.isdigit() else grp.getgrnam(group)).gr_gid
    except (KeyError, OverflowError):
        raise ConfigError(
            [f"EDGEPROXY_GROUP: this machine has no group {group!r}; `getent group` lists them"]
        ) from None
