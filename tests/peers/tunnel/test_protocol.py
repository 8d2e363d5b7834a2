"""The lines at a tunnel's beginning: a value or WireError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import WireError
from mesh.peers.tunnel.protocol import OPEN, TunnelRequest, ask, read_answer, read_wanted, refuse

WANTED = TunnelRequest("qa6iyxzjw9ol43yo9tmrckpdm", "10.0.1.7", 8080)


def test_what_is_asked_is_read() -> None:
    assert read_wanted(ask(WANTED)) == WANTED


def test_what_is_answered_is_read() -> None:
    assert read_answer(OPEN) == ""
    assert read_answer(refuse("no such task")) == "no such task"
    assert read_answer(refuse("müde" + "x" * 500)).startswith("m?de")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"MESH/1 a 10.0.0.1 80\n",
        b"MESH/1 a 10.0.0.1 99999\r\n",
        b"MESH/1 a 10.0.0.1 -1\r\n",
        b"MESH/1 ../a 10.0.0.1 1\r\n",
        b"MESH/1 a example.org 1\r\n",
        b"MESH/2 a 10.0.0.1 1\r\n",
        b"MESH/1 a 10.0.0.1 1\r\nx",
    ],
)
def test_what_cannot_be_wanted(line: bytes) -> None:
    with pytest.raises(WireError):
        read_wanted(line)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_a_documented_error(line: bytes) -> None:
    for read in (read_wanted, read_answer):
        try:
            read(line)
        except WireError:
            continue
