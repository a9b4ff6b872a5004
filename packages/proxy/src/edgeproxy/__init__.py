"""edgeproxy: an edge TCP proxy that routes each client to the best backend."""

from edgeproxy.hidden import hidden

__version__ = "0.1.0"

# msgspec takes what typing has from typing_extensions where that is installed, whose import is a tenth of a
# worker's start. In its absence msgspec makes do with typing, which lacks nothing from Python 3.11 on.
with hidden("typing_extensions"):
    import msgspec  # noqa: F401
