from __future__ import annotations

import pytest

from edgeproxy.core.dataplane.identities import Identity, KeyPair, NameTable


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("shop.example.com", 1),
        ("blog.example.com", 2),
        ("a.blog.example.com", None),
        ("example.com", None),
        ("com", None),
    ],
)
def test_a_name_is_found_as_it_is_or_under_a_wildcard_for_its_first_label(
    asked: str, found: int | None
) -> None:
    table = NameTable[int]()
    table.add(["shop.example.com"], 1)
    table.add(["*.example.com"], 2)
    assert table.get(asked) == found


def test_the_first_of_two_with_the_same_name_is_found() -> None:
    table = NameTable[int]()
    table.add(["example.com"], 1)
    table.add(["example.com", "example.org"], 2)
    assert (table.get("example.com"), table.get("example.org")) == (1, 2)


def test_the_text_of_an_identity_shows_no_key() -> None:
    identity = Identity(("example.com",), (KeyPair("ec", b"chain", b"secret"),))
    assert identity.kinds == {"ec"}
    assert "secret" not in repr(identity)
