"""Composition root of the control process: the only modules besides :mod:`edgeproxy.stores` and
``edgeproxy.worker.__main__``, the root of the other kind of process, that name adapters.

:mod:`~edgeproxy.app.control` builds every part, in the order in which data flows, and runs them;
:mod:`~edgeproxy.app.entrances` opens the sockets that others connect to; :mod:`~edgeproxy.app.parts` says
what each part is given of the settings; :mod:`~edgeproxy.app.worker_news` takes in what workers say;
:mod:`~edgeproxy.app.servers` says what servers answer with, :mod:`~edgeproxy.app.view` what can be seen of it
all from outside; :mod:`~edgeproxy.app.upgrading` hands
it over.
"""

from edgeproxy.app.control import SAME_REQUEST_S, run
from edgeproxy.app.view import explain_offline
from edgeproxy.runtime.handover import receive as find_predecessor

__all__ = ["SAME_REQUEST_S", "explain_offline", "find_predecessor", "run"]
