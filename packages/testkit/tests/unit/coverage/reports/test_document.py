from __future__ import annotations

import json
from pathlib import Path

from packages.testkit.tests.unit.coverage.reports.assessments import EVIL, HOSTILE, PLAIN, make_assessment
from testkit.coverage.reports.document import write_json


def test_everything_is_there_with_exact_counts(tmp_path: Path) -> None:
    write_json(make_assessment(tmp_path), tmp_path / "coverage.json")
    document = json.loads((tmp_path / "coverage.json").read_text())
    assert document["kinds"] == ["unit", "e2e"]
    assert document["layers"]["core"]["kinds"]["unit"]["lines"] == {"hit": 4, "total": 6}
    assert document["layers"]["core"]["required"] == {
        "kinds": ["unit"],
        "lines": 60.0,
        "branches": 50.0,
        "functions": 0.0,
    }
    assert list(document["layers"]) == ["core", "shell", "overall"]
    assert list(document["groups"]) == [HOSTILE]
    assert document["files"][PLAIN]["layer"] == "core"
    assert document["files"][PLAIN]["statements"] == {
        "1": ["unit", "e2e"],
        "2": ["unit"],
        "3": ["unit"],
        "4": [],
        "7": ["unit", "e2e"],
        "8": [],
    }
    assert document["features"] == [
        {"id": "a", "title": HOSTILE, "wanted": ["unit", "e2e"], "proven": ["unit"]},
        {"id": "b", "title": "The second", "wanted": [], "proven": []},
    ]
    assert document["gaps"][0] == {
        "layer": "core",
        "file": PLAIN,
        "line": 1,
        "function": "sign",
        "score": 20.0,
        "where": "4, 2->4",
    }
    assert document["failures"] == [
        {
            "gate": "threshold",
            "subject": "shell x unit",
            "verdict": f"0 % {HOSTILE}",
            "places": {EVIL: "1-8"},
        }
    ]
    assert [warning["gate"] for warning in document["warnings"]] == ["slack"]
    assert document["notes"] == [f"compared with {HOSTILE}"]


def test_a_repository_that_claims_nothing_has_no_features(tmp_path: Path) -> None:
    write_json(make_assessment(tmp_path, claims=False), tmp_path / "coverage.json")
    assert json.loads((tmp_path / "coverage.json").read_text())["features"] == []
