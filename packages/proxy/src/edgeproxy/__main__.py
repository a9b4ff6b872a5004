"""The entry of the ``edgeproxy`` command and of ``python -m edgeproxy``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from edgeproxy.errors import EdgeproxyError

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130


def main() -> int:
    """Run the command on the command line and return its exit code (see :mod:`edgeproxy.errors`)."""
    try:
        try:
            return _dispatch(sys.argv[1:])
        finally:
            # Flushed here: when the interpreter does it at exit, a closed pipe ends in a traceback.
            print(end="", flush=True)
    except EdgeproxyError as error:
        for line in str(error).splitlines():
            print(f"edgeproxy: error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`edgeproxy config show | head -1`). What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE


def _dispatch(arguments: Sequence[str]) -> int:
    # Importing typer takes 0.1 s, a third of what a start may take, and its memory would stay in the
    # control process for good. So `run` goes without it.
    if arguments[:1] == ["run"]:
        from edgeproxy.cli.run import run

        return run(arguments[1:])
    from edgeproxy.cli.app import app

    # Commands that typer runs end with SystemExit, whatever their outcome.
    return int(app(arguments, prog_name="edgeproxy"))


if __name__ == "__main__":
    sys.exit(main())
