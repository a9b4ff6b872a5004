"""A small HTTP backend that says which backend it is, for testing proxies."""

__version__ = "0.1.0"
