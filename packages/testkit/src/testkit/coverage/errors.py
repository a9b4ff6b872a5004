"""Why there is no verdict."""

from __future__ import annotations

from collections.abc import Sequence


class CoverageInputError(Exception):
    """The policy, the source tree or the measurements cannot be used; each problem is one line."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))
