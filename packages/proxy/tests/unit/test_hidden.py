"""Imports that something is hidden from."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from edgeproxy.hidden import hidden

ABSENT = "edgeproxy_test_of_hidden"


def test_what_is_hidden_cannot_be_imported_within_the_block_and_can_be_after_it() -> None:
    assert "wave" not in sys.modules
    with hidden("wave"), pytest.raises(ImportError):
        importlib.import_module("wave")
    assert importlib.import_module("wave").__name__ == "wave"
    del sys.modules["wave"]


def test_it_can_be_imported_again_when_the_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), hidden(ABSENT):
        raise ZeroDivisionError
    assert ABSENT not in sys.modules


def test_what_was_imported_already_stays_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(ABSENT)
    monkeypatch.setitem(sys.modules, ABSENT, module)
    with hidden(ABSENT):
        assert importlib.import_module(ABSENT) is module
    assert sys.modules[ABSENT] is module
