"""edgeproxy: an edge TCP proxy that routes each client to the best backend."""

import sys

__version__ = "0.1.0"

# msgspec takes what typing has from typing_extensions where that is installed, whose import is a tenth of a
# worker's start. In its absence msgspec makes do with typing, which lacks nothing from Python 3.11 on.
if "typing_extensions" not in sys.modules:
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]
