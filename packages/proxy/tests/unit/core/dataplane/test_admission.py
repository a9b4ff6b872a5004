"""Lists of networks and countries decide who may come in."""

from __future__ import annotations

import pytest

from edgeproxy.core.dataplane.admission import AccessLists, Admission
from edgeproxy.core.model import Client

GERMAN = Client("192.0.2.7", "DE", "eu")
FRENCH = Client("2001:db8::7", "FR", "eu")
UNKNOWN = Client("10.0.0.7", "", "")


@pytest.mark.parametrize(
    ("lists", "admitted"),
    [
        (AccessLists(), [GERMAN, FRENCH, UNKNOWN]),
        (AccessLists(deny=("192.0.2.0/24",)), [FRENCH, UNKNOWN]),
        (AccessLists(deny=("2001:db8::/32",)), [GERMAN, UNKNOWN]),
        (AccessLists(deny_countries=("DE",)), [FRENCH, UNKNOWN]),
        (AccessLists(allow=("192.0.2.0/24",)), [GERMAN]),
        (AccessLists(allow_countries=("FR",)), [FRENCH]),
        (AccessLists(allow=("10.0.0.0/8",), allow_countries=("FR",)), [FRENCH, UNKNOWN]),
        (AccessLists(allow=("0.0.0.0/0",), deny=("192.0.2.7/32",)), [UNKNOWN]),
        (AccessLists(allow=("::/0", "0.0.0.0/0"), deny_countries=("FR",)), [GERMAN, UNKNOWN]),
    ],
)
def test_who_is_admitted(lists: AccessLists, admitted: list[Client]) -> None:
    admission = Admission(lists)
    assert [each for each in (GERMAN, FRENCH, UNKNOWN) if admission.admits(each)] == admitted


@pytest.mark.parametrize("field", AccessLists.__struct_fields__)
def test_a_list_with_anything_on_it_is_not_empty(field: str) -> None:
    assert AccessLists().is_empty
    assert not AccessLists(**{field: ("x",)}).is_empty
