"""Composition root of the control process: the only modules besides :mod:`edgeproxy.stores` and
``edgeproxy.worker.__main__``, the root of the other kind of process, that name adapters.

:mod:`~edgeproxy.app.groundwork` binds the addresses and starts the workers; on that
:mod:`~edgeproxy.app.control` builds every other part, in the order in which data flows, and runs them;
:mod:`~edgeproxy.app.entrances` opens the sockets that others connect to; :mod:`~edgeproxy.app.parts` says
what each part is given of the settings; :mod:`~edgeproxy.app.worker_news` takes in what workers say;
:mod:`~edgeproxy.app.servers` says what servers answer with, :mod:`~edgeproxy.app.view` what can be seen of it
all from outside; :mod:`~edgeproxy.app.upgrading` hands it over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeproxy.app.groundwork import Groundwork
from edgeproxy.config import Config
from edgeproxy.runtime.handover import Predecessor
from edgeproxy.runtime.handover import receive as find_predecessor

__all__ = ["find_predecessor", "run"]


def run(
    config: Config,
    load: Callable[[], Config] | None = None,
    config_file: Path | None = None,
    predecessor: Predecessor | None = None,
) -> int:
    """Run the proxy until SIGTERM or SIGINT, or until a successor serves; return the exit code.

    ``load`` reads the settings again, from the same sources, of which ``config_file`` is one.
    ``predecessor`` is the proxy that this one is an upgrade of.

    Raises:
        EdgeproxyError: it cannot start.
    """
    groundwork = Groundwork(config, predecessor)
    try:
        # While the workers boot, what is slow to import is imported.
        from edgeproxy.app.control import App

        app = App(groundwork, load, config_file)
    except BaseException:
        groundwork.abandon()
        raise
    return app.run()
