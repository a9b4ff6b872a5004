"""Settings: defaults < TOML file < environment < flags, strict, every problem reported at once.

:mod:`~edgeproxy.config.settings` defines each setting once, :mod:`~edgeproxy.config.kinds` says what
values look like, :mod:`~edgeproxy.config.load` merges the sources, :mod:`~edgeproxy.config.show` and
:mod:`~edgeproxy.config.reference` write them down again. All of it is part of the proxy's start, so
nothing here imports what is slow.
"""

from edgeproxy.config.kinds import Address
from edgeproxy.config.load import load
from edgeproxy.config.settings import Config

__all__ = ["Address", "Config", "load"]
