"""What nodes complain of in their logs, less what a test expects them to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_COMPLAINT = re.compile(
    r"\b(ERROR|CRITICAL|FATAL|PANIC)\b|^Traceback \(|\"level\": ?\"(error|critical|fatal)\"", re.MULTILINE
)


def complaints(logs: Mapping[str, str], allowed: Iterable[str] = ()) -> list[str]:
    """Lines that tell of errors, with the node's name before them; but for those that a pattern allows."""
    patterns = [re.compile(each) for each in allowed]
    return [
        f"{name}: {line}"
        for name, log in sorted(logs.items())
        for line in log.splitlines()
        if _COMPLAINT.search(line) and not any(pattern.search(line) for pattern in patterns)
    ]
