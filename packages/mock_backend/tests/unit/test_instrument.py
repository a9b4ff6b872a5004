from __future__ import annotations

import asyncio

import pytest

from mock_backend.instrument import MAX_CLIENTS, OTHERS, Instrument, State
from mock_backend.language import LanguageError


async def test_script_counts_from_when_it_was_set() -> None:
    instrument = Instrument()
    instrument.arrive("http", "127.0.0.1:1")
    instrument.set_script("connection 1: reset")
    assert instrument.steps(instrument.arrive("http", "127.0.0.1:2")) is not None
    assert instrument.steps(instrument.arrive("http", "127.0.0.1:3")) is None


async def test_wrong_texts_change_nothing() -> None:
    instrument = Instrument(script="connection 1: hang", faults="every request: reset", seed=5)
    with pytest.raises(LanguageError):
        instrument.set_script("x")
    with pytest.raises(LanguageError):
        instrument.set_faults("x", 6)
    assert (instrument.script, instrument.faults) == ("connection 1: hang", ("every request: reset", 5))


async def test_clients_are_counted_by_address_up_to_a_limit() -> None:
    instrument = Instrument()
    for number in range(MAX_CLIENTS + 5):
        arrival = instrument.arrive("http", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:4000")
        instrument.request(arrival, "GET", "/")
        instrument.request(arrival, "GET", "/")
    assert len(instrument.clients) == MAX_CLIENTS + 1
    assert instrument.clients[OTHERS] == 10
    assert instrument.clients["10.0.0.1"] == 2


async def test_connection_is_over_once() -> None:
    instrument = Instrument()
    arrival = instrument.arrive("http", "127.0.0.1:1")
    instrument.leave(arrival, "reset")
    instrument.leave(arrival, "closed")
    assert instrument.open_connections == 0
    assert [entry.detail for entry in instrument.journal.entries()] == ["http", "reset"]


async def test_hostile_path_is_cut_in_the_journal() -> None:
    instrument = Instrument()
    instrument.request(instrument.arrive("http", "127.0.0.1:1"), "GET", "/" + "x" * 8000)
    assert len(instrument.journal.entries()[-1].path) == 512


async def test_all_who_wait_are_woken_by_one_entry() -> None:
    instrument = Instrument(state=State.HUNG)
    waiting = [asyncio.create_task(instrument.entries_after(0, 10)) for _ in range(3)]
    held = asyncio.create_task(instrument.running())
    await asyncio.sleep(0)
    instrument.set_state(State.READY)
    await held
    assert [len(entries) for entries in await asyncio.gather(*waiting)] == [1, 1, 1]


async def test_reset_begins_anew_and_tells_the_shell() -> None:
    instrument = Instrument(state=State.NOT_LISTENING, script="every connection: hang")
    states = []
    instrument.on_state = lambda: states.append(instrument.state)
    instrument.request(instrument.arrive("http", "[::1]:1"), "GET", "/")
    assert instrument.clients == {"[::1]": 1}
    instrument.reset()
    assert states == [State.READY]
    assert (instrument.script, instrument.clients, instrument.journal.entries()) == ("", {}, [])
