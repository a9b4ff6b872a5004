"""``edgeproxy run``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from edgeproxy.cli.flags import config_path, help_text, load_with_flags
from edgeproxy.errors import EdgeproxyError
from edgeproxy.ports import HANDOVER_VARIABLE

_HELP = (
    "Usage: edgeproxy run [--config FILE] [--SETTING VALUE]...",
    "Run the proxy until SIGTERM or Ctrl-C, which drain it.",
    "Each setting is also an environment variable (--db-path is EDGEPROXY_DB_PATH) and a TOML key (db_path).",
    "A flag wins over the environment, the environment over the file.",
)


def run(arguments: Sequence[str]) -> int:
    """Run the proxy with the settings in ``arguments`` over those of the environment; return the exit code.

    Raises:
        ConfigError: the settings are wrong.
        EdgeproxyError: the proxy cannot start, or ended by an error.
    """
    if "--help" in arguments or "-h" in arguments:
        import shutil

        print(help_text(_HELP, min(shutil.get_terminal_size().columns, 100)))
        return 0
    try:
        config = load_with_flags(arguments)
    except EdgeproxyError as error:
        _refuse_to_succeed(error)
        raise
    # Everything else waits until the settings are known to be right.
    from edgeproxy.app import find_predecessor
    from edgeproxy.app import run as run_proxy

    predecessor = find_predecessor(os.environ)
    try:
        return run_proxy(config, lambda: load_with_flags(arguments), config_path(arguments), predecessor)
    except EdgeproxyError as error:
        if predecessor is not None:
            predecessor.refuse(_in_one_line(error))
        raise


def _refuse_to_succeed(error: EdgeproxyError) -> None:
    """Tell the proxy that is being upgraded, if one is, that its successor's settings are wrong."""
    if HANDOVER_VARIABLE in os.environ:
        from edgeproxy.app import find_predecessor

        if (predecessor := find_predecessor(os.environ)) is not None:
            predecessor.refuse(_in_one_line(error))


def _in_one_line(error: EdgeproxyError) -> str:
    return "; ".join(str(error).splitlines())
