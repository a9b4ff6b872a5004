"""edgeproxy: an edge TCP proxy that routes each client to the best backend."""

__version__ = "0.1.0"
