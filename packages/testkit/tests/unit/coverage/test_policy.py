from __future__ import annotations

from fractions import Fraction

from testkit.coverage.policy import Layer, NewCodePolicy, Policy, Requirement, thresholds_of


def test_every_threshold_has_a_name() -> None:
    unit = Requirement(("unit",), Fraction(90), functions=Fraction(80))
    core = Layer(
        "core", ("*.py",), unit, each_file=unit, cells=(Requirement(("e2e",), branches=Fraction(7)),)
    )
    policy = Policy(
        kinds=("unit", "e2e"),
        sources=("*.py",),
        layers=(core,),
        overall=Requirement(("unit",), branches=Fraction(60)),
        groups=(Layer("wire", ("*.py",), unit),),
        new_code=NewCodePolicy(Fraction(95)),
    )
    assert thresholds_of(policy) == {
        "overall.branches": 60,
        "layers.core.lines": 90,
        "layers.core.functions": 80,
        "layers.core.each_file.lines": 90,
        "layers.core.each_file.functions": 80,
        "layers.core.cells.e2e.branches": 7,
        "groups.wire.lines": 90,
        "groups.wire.functions": 80,
        "new_code.threshold": 95,
    }
