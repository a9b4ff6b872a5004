"""Fixtures, processes, country databases and coverage gates for testing network services."""

__version__ = "0.1.0"
