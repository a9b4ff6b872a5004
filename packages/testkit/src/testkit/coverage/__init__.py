"""What the tests covered, by layer and kind of test, held against thresholds.

``testkit coverage gate`` combines the data that each kind of test left behind, prints a matrix of layers
and kinds, writes the reports, and ends with 1 when a gate fails.

A *kind* is a way of testing (unit, integration, e2e) whose measurements stay apart; a *layer* is a set of
source files with one promise about them. Both are declared in ``pyproject.toml``, see :mod:`.policy`.
"""
