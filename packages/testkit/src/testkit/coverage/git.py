"""What git knows: the base of a change, the lines that changed since, how often a file changes.

A checkout without git, without history or without the branch that changes go to is no error: the answer is
then that there is no base, with the reason.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testkit.coverage.errors import CoverageInputError

_HUNK = re.compile(r"^@@ -\S+ \+(?P<start>\d+)(?:,(?P<length>\d+))? @@")


@dataclass(frozen=True, slots=True)
class Hunk:
    """Neighbouring lines that were added or changed, first and last."""

    first: int
    last: int

    @property
    def lines(self) -> range:
        """Every line of it."""
        return range(self.first, self.last + 1)

    def __str__(self) -> str:
        """``3-7``, or ``3`` alone."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Base:
    """The commit that the working tree is held against."""

    commit: str
    origin: str
    """Where it comes from, for people: ``merge base with main``."""

    def __str__(self) -> str:
        """Short enough for a message."""
        return f"{self.commit[:12]} ({self.origin})"


@dataclass(frozen=True, slots=True)
class Difference:
    """What happened to files since a commit."""

    hunks: Mapping[str, Sequence[Hunk]]
    """File to what was added or changed in it. Deleted lines leave no hunk, nor does moving a file."""
    moved: Mapping[str, str]
    """File to the name it had."""

    def changed_lines(self, file: str) -> frozenset[int]:
        """Return every line of ``file`` that is not as it was."""
        return frozenset(line for hunk in self.hunks.get(file, ()) for line in hunk.lines)


class Repository:
    """The git repository that the root belongs to, if it belongs to one."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def head(self) -> str | None:
        """Return the commit that is checked out, if there is one."""
        return self._commit("HEAD")

    def find_base(self, branches: Sequence[str], named: str | None = None) -> Base | str:
        """Return the base of what is checked out, or the reason why there is none.

        It is the merge base with the first of ``branches`` that exists. On that branch itself it is the first
        parent, so that what came last is judged.

        Raises:
            CoverageInputError: ``named``, a revision to use instead, does not exist.
        """
        head = self.head()
        if named is not None:
            commit = self._commit(named)
            if commit is None:
                raise CoverageInputError([f"git knows no revision {named!r}"])
            return Base(commit, named)
        if head is None:
            return "this is no git repository with a commit"
        branch = next((branch for branch in branches if self._commit(branch)), None)
        if branch is None:
            return f"none of the branches {', '.join(branches)} exists here"
        merge_base = self._git("merge-base", "HEAD", branch).strip()
        if not merge_base:
            return f"HEAD and {branch} have no common commit here{self._whether_shallow()}"
        if merge_base != head:
            return Base(merge_base, f"merge base with {branch}")
        parent = self._commit("HEAD^")
        if parent is None:
            return f"HEAD is on {branch} and its parent is not here{self._whether_shallow()}"
        return Base(parent, f"the commit before HEAD, which is on {branch}")

    def difference(self, base: str) -> Difference:
        """Return how the Python files of the working tree differ from ``base``, new files included."""
        hunks: dict[str, list[Hunk]] = {}
        moved: dict[str, str] = {}
        file = source = ""
        diff = ("diff", "--unified=0", "--no-color", "--no-ext-diff", "--find-renames", "--relative", base)
        # With a fixed prefix whatever the user's settings say.
        for line in self._git(*diff, "--dst-prefix=b/", "--", "*.py").splitlines():
            if line.startswith("+++ "):
                file = line.removeprefix("+++ ").removeprefix("b/").rstrip("\t")
            elif line.startswith("rename from "):
                source = line.removeprefix("rename from ")
            elif line.startswith("rename to "):
                moved[line.removeprefix("rename to ")] = source
            elif found := _HUNK.match(line):
                first, length = int(found["start"]), int(found["length"] or 1)
                if length:
                    hunks.setdefault(file, []).append(Hunk(first, first + length - 1))
        untracked = self._git("ls-files", "--others", "--exclude-standard", "-z", "--", "*.py")
        for name in filter(None, untracked.split("\0")):
            length = len((self._root / name).read_bytes().splitlines())
            if length:
                hunks[name] = [Hunk(1, length)]
        return Difference(hunks, moved)

    def is_clean(self) -> bool:
        """Whether no Python file of the working tree differs from HEAD."""
        return not self._git("status", "--porcelain", "--untracked-files=all", "--", "*.py")

    def content(self, commit: str, file: str) -> bytes | None:
        """Return what ``file`` held in ``commit``, if it was there."""
        ended = self._run("show", f"{commit}:./{file}")
        return ended.stdout if ended.returncode == 0 else None

    def distance(self, ancestor: str, commit: str) -> int | None:
        """Return how many commits lie between them; None when ``ancestor`` is none, or is not here."""
        if self._run("merge-base", "--is-ancestor", ancestor, commit).returncode:
            return None
        return int(self._git("rev-list", "--count", f"{ancestor}..{commit}"))

    def churn(self, since: str) -> Mapping[str, int]:
        """Return how many commits touched each file since a date as git understands it."""
        log = self._git("log", "--no-merges", f"--since={since}", "--format=", "--name-only", "--relative")
        return Counter(filter(None, log.splitlines()))

    def _whether_shallow(self) -> str:
        shallow = self._git("rev-parse", "--is-shallow-repository").strip() == "true"
        return " (the clone is shallow: fetch more history)" if shallow else ""

    def _commit(self, revision: str) -> str | None:
        commit = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        return commit.strip() or None

    def _git(self, *arguments: str) -> str:
        """Return the output, empty when git fails."""
        ended = self._run(*arguments)
        return ended.stdout.decode("utf-8", errors="surrogateescape") if ended.returncode == 0 else ""

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = ["git", "-c", "core.quotePath=false", *arguments]
        try:
            return subprocess.run(command, cwd=self._root, capture_output=True, check=False)
        except OSError as error:  # there is no git
            return subprocess.CompletedProcess(command, 127, b"", str(error).encode())
