"""How the commands end."""

from __future__ import annotations

OK = 0
FAILED = 1
NO_VERDICT = 2

EXIT_CODES = {
    OK: "nothing to complain of",
    FAILED: "a gate failed; each failure names what, the number, the threshold and the lines",
    NO_VERDICT: "there can be no verdict: wrong arguments, settings or measurements",
}
