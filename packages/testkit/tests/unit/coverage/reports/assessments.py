"""An assessment with something of everything in it, of files and names that mean harm."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from testkit.coverage.assessment import Assessment, Measured
from testkit.coverage.exclusions import Exclusion
from testkit.coverage.failure import Failure
from testkit.coverage.features_claims import Feature
from testkit.coverage.features_marks import Mark
from testkit.coverage.features_matrix import build_feature_matrix
from testkit.coverage.features_outcomes import TestOutcome
from testkit.coverage.functions import Function
from testkit.coverage.gaps import rank_gaps
from testkit.coverage.matrix import build_matrix, build_row
from testkit.coverage.measurement import FileMeasurement
from testkit.coverage.new_code import ChangedFile, NewCode
from testkit.coverage.policy import Layer, Policy, Requirement
from testkit.coverage.sources import Sources

HOSTILE = "<img src=x onerror=alert(1)>&\"'|`]]></script>"
EVIL = f"src/product/shell/{HOSTILE.replace('/', '_')}.py"
PLAIN = "src/product/core/part.py"
TEXT = f'''\
def sign(number):
    if number < 0:
        return -1
    return 1


def never():
    return "{HOSTILE}"
'''
SIGN = Function("sign", 1, frozenset({2, 3, 4}), 2)
NEVER = Function("never", 7, frozenset({8}), 1)
ALL_LINES = frozenset({1, 2, 3, 4, 7, 8})
BRANCHES = frozenset({(2, 3), (2, 4)})


def measured(lines: set[int], branches: set[tuple[int, int]]) -> FileMeasurement:
    return FileMeasurement(ALL_LINES, frozenset(lines), BRANCHES, frozenset(branches), (SIGN, NEVER))


def make_assessment(root: Path, *, fails: bool = True, claims: bool = True) -> Assessment:
    """Write the sources below ``root`` and return what unit and e2e tests made of them."""
    for file in (PLAIN, EVIL):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(TEXT)
    both = Requirement(("unit", "e2e"), Fraction(95), Fraction(95))
    core = Layer("core", ("src/product/core/**",), Requirement(("unit",), Fraction(60), Fraction(50)))
    shell = Layer("shell", ("src/product/shell/**",), both)
    group = Layer(HOSTILE, ("src/**",), both)
    policy = Policy(("unit", "e2e"), ("src/**",), (core, shell), both, groups=(group,))
    layers = {"core": [PLAIN], "shell": [EVIL]}
    unit = {PLAIN: measured({1, 2, 3, 7}, {(2, 3)}), EVIL: measured(set(), set())}
    e2e = {PLAIN: measured({1, 7}, set()), EVIL: measured({1, 2, 4, 7}, {(2, 4)})}
    measurements = {"unit": unit, "e2e": e2e}
    rows = build_matrix(policy, layers, measurements)
    groups = [build_row(group, [PLAIN, EVIL], measurements)]
    sources = Sources(layers, {HOSTILE: [PLAIN, EVIL]}, frozenset())
    assessment = Assessment(Measured(root, policy, sources, measurements, rows, groups))
    assessment.gaps = rank_gaps(rows[:-1], {"core": Fraction(2), "shell": Fraction(1)}, {PLAIN: 4})
    assessment.notes = [f"compared with {HOSTILE}"]
    assessment.warnings = [Failure("slack", "core", HOSTILE)]
    assessment.exclusions = [Exclusion(EVIL, 3, HOSTILE, HOSTILE, "impossible", HOSTILE, False)]
    whole = NewCode(EVIL, EVIL, unit[EVIL], ALL_LINES, BRANCHES)
    assessment.new_code = [ChangedFile(whole, ())]
    assessment.outcomes = {
        "unit": [
            TestOutcome("tests/unit/core/test_part.py::test_it", "passed", ("a",), 0.1),
            TestOutcome("tests/unit/test_all.py::test_it", "passed", (), 0.1),
        ],
        "e2e": [TestOutcome(f"e2e/test_{HOSTILE}.py::test_it", "passed", (), 0.1)],
    }
    if fails:
        assessment.failures = [Failure("threshold", "shell x unit", f"0 % {HOSTILE}", {EVIL: "1-8"})]
    if claims:
        features = [Feature("a", HOSTILE, ("unit", "e2e"), ()), Feature("b", "The second", (), ())]
        marks = [Mark("a", PLAIN, 2)]
        assessment.features = build_feature_matrix(features, marks, measurements, assessment.outcomes)
    return assessment
