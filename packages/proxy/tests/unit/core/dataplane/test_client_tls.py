"""Whom a certificate is for."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.core.dataplane.client_tls import Subject, subject_of

NAMES = (("DNS", "a.example.com"), ("DNS", "b.example.com"))


@pytest.mark.parametrize(
    ("certificate", "subject"),
    [
        (
            {
                "subject": ((("organizationName", "Example"),), (("commonName", "alice"),)),
                "subjectAltName": NAMES,
            },
            Subject("alice", "alice"),
        ),
        (
            {"subject": ((("organizationName", "Example"),),), "subjectAltName": NAMES},
            Subject(None, NAMES[0][1]),
        ),
        ({"subjectAltName": NAMES}, Subject(None, "a.example.com")),
        ({"serialNumber": "1"}, Subject(None, "?")),
    ],
)
def test_a_certificate_is_for_its_common_name_or_else_its_first_name(
    certificate: dict[str, Any], subject: Subject
) -> None:
    assert subject_of(certificate) == subject
