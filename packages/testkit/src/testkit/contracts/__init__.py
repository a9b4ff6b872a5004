"""What every implementation of an interface must do, as tests that take the implementation.

``packages/testkit/CONTRACTS.md`` says how to hold something to a contract and how to write one.
"""
