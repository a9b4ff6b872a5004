"""As many file descriptors as the operating system grants."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

_KERNEL_LIMIT = Path("/proc/sys/fs/nr_open")
_ENOUGH = 1 << 20
"""Two descriptors a connection: half a million connections for each worker."""


def raise_descriptor_limit() -> int:
    """Raise ``RLIMIT_NOFILE``, also for the children, as far as allowed; return the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        # Only root may go beyond the hard limit; everyone may go up to it.
        wanted = min(int(_KERNEL_LIMIT.read_text()), max(hard, _ENOUGH))
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        return wanted
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft
