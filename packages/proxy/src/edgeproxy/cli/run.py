"""``edgeproxy run``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from edgeproxy.cli.flags import describe_flags, parse_flags
from edgeproxy.config import load

_HELP = """\
Usage: edgeproxy run [--config FILE] [--SETTING VALUE]...

Run the proxy until SIGTERM or Ctrl-C, which drain it.

Each setting is also an environment variable (--db-path is EDGEPROXY_DB_PATH) and a key of the TOML file
(db_path). A flag wins over the environment, the environment over the file.
"""


def run(arguments: Sequence[str]) -> int:
    """Run the proxy with the settings in ``arguments`` over those of the environment; return the exit code.

    Raises:
        ConfigError: the settings are wrong.
        EdgeproxyError: the proxy cannot start, or ended by an error.
    """
    if "--help" in arguments or "-h" in arguments:
        print(_HELP)
        print(describe_flags(min(shutil.get_terminal_size().columns, 110)))
        return 0
    config_path, flags = parse_flags(arguments)
    config = load(os.environ, flags, config_path)
    # Everything else waits until the settings are known to be right.
    from edgeproxy.app import run as run_proxy

    return run_proxy(config)
