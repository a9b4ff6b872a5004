"""Implementations with a known bug, one module a contract: each must be rejected by the test it names."""
