"""Checkers of recorded histories: is what clients saw something that a correct service can have shown them?

| module | finds |
|---|---|
| `sets` | what was acknowledged and is lost, was added once and is there twice, or was never added |
| `counters` | readings that no order of the increments explains, by bounds that are quick to compute |
| `linearizability` | any history of a register (read, write, cas) or of a counter that has no explanation |

Histories are recorded by `history.History`, from any number of threads or tasks. An operation of which nobody
knows whether it happened (a time-out) is no failure: it may take effect at any time after it began, or never.
"""
