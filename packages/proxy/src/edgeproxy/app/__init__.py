"""Composition root of the control process: the only modules besides :mod:`edgeproxy.stores` and
``edgeproxy.worker.__main__``, the root of the other kind of process, that name adapters.

:mod:`~edgeproxy.app.control` builds every part, in the order in which data flows, and runs them;
:mod:`~edgeproxy.app.entrances` opens the sockets that others connect to; :mod:`~edgeproxy.app.parts` says
what each part is given of the settings; :mod:`~edgeproxy.app.view` what can be seen of it all from outside.
"""

from edgeproxy.app.control import SAME_REQUEST_S, find_predecessor, run
from edgeproxy.app.view import explain_offline

__all__ = ["SAME_REQUEST_S", "explain_offline", "find_predecessor", "run"]
