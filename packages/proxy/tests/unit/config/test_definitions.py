from __future__ import annotations

from dataclasses import dataclass, field

from edgeproxy.config import kinds
from edgeproxy.config.definitions import Section, setting, settings_of

DOORS = Section("Doors")


@dataclass(frozen=True, kw_only=True)
class Doors:
    front_door: int = setting(kinds.whole(1, 9), "3", DOORS, "Width.", switch=True, live=True)
    back_door: str = setting(kinds.name, "", DOORS, "Word.", secret=True)
    colour: str = field(metadata={})


def test_settings_are_the_fields_that_are_defined_in_their_order() -> None:
    assert list(settings_of(Doors)) == ["front_door", "back_door"]


def test_a_setting_says_what_its_field_was_defined_with() -> None:
    front, back = settings_of(Doors).values()
    assert (front.default, front.section, front.description) == ("3", DOORS, "Width.")
    assert (front.is_switch, front.is_secret, front.is_live) == (True, False, True)
    assert (back.is_switch, back.is_secret, back.is_live) == (False, True, False)


def test_a_setting_has_a_name_in_the_environment_and_on_the_command_line() -> None:
    front = settings_of(Doors)["front_door"]
    assert (front.variable, front.flag) == ("EDGEPROXY_FRONT_DOOR", "--front-door")


def test_a_secret_is_not_shown() -> None:
    shown = repr(Doors(front_door=4, back_door="sesame", colour="red"))
    assert "sesame" not in shown
    assert "4" in shown
