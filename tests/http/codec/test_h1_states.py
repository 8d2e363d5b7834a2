"""The tables of transitions: complete, and no more than what can happen."""

from enum import IntEnum
from typing import Any

import pytest

from mesh.http.codec.h1_states import (
    CLIENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    ClientEvent,
    ClientState,
    ServerEvent,
    ServerState,
)

Table = dict[Any, dict[Any, Any]]
SIDES = pytest.mark.parametrize(
    ("table", "states", "events", "first"),
    [
        (SERVER_TRANSITIONS, ServerState, ServerEvent, ServerState.HEAD),
        (CLIENT_TRANSITIONS, ClientState, ClientEvent, ClientState.CONNECTING),
    ],
    ids=["server", "client"],
)


@SIDES
class TestTables:
    def test_every_state_has_a_row_and_every_event_a_place(
        self, table: Table, states: type[IntEnum], events: type[IntEnum], first: IntEnum
    ) -> None:
        assert set(table) == set(states)
        assert {event for row in table.values() for event in row} == set(events)

    def test_every_state_can_be_reached_from_the_first(
        self, table: Table, states: type[IntEnum], events: type[IntEnum], first: IntEnum
    ) -> None:
        reached, new = {first}, [first]
        while new:
            new = [after for one in new for after in table[one].values() if after not in reached]
            reached.update(new)
        assert reached == set(states)

    def test_every_state_but_the_last_can_be_closed_and_nothing_follows_that(
        self, table: Table, states: type[IntEnum], events: type[IntEnum], first: IntEnum
    ) -> None:
        (closed,) = (state for state, row in table.items() if not row)
        assert closed.name == "CLOSED"
        for state, row in table.items():
            if state is not closed:
                assert {event.name for event, after in row.items() if after is closed} == {"CLOSE"}


def test_after_a_refusal_no_request_is_read_any_more() -> None:
    reached, new = {ServerState.REFUSED}, [ServerState.REFUSED]
    while new:
        new = [after for one in new for after in SERVER_TRANSITIONS[one].values() if after not in reached]
        reached.update(new)
    assert reached == {ServerState.REFUSED, ServerState.LINGER, ServerState.CLOSED}


def test_a_tunnel_never_becomes_http_again() -> None:
    assert set(SERVER_TRANSITIONS[ServerState.TUNNEL].values()) == {ServerState.LINGER, ServerState.CLOSED}
    assert set(CLIENT_TRANSITIONS[ClientState.TUNNEL].values()) == {ClientState.CLOSED}
