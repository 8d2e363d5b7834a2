"""What is sent to a client that does not take all of it at once."""

import socket
from collections.abc import Iterator

import pytest

from mesh.http.downstream.h1_writer import ResponseWriter


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def everything(sock: socket.socket) -> bytes:
    data = b""
    try:
        while piece := sock.recv(1 << 20):
            data += piece
    except BlockingIOError:
        pass
    return data


def test_the_queue_goes_out_as_one(pair: tuple[socket.socket, socket.socket]) -> None:
    writer = ResponseWriter(pair[0])
    writer.queue += [b"head", b"body"]
    assert writer.flush()
    assert everything(pair[1]) == b"headbody"
    assert (writer.queue, writer.held, writer.is_behind) == ([], b"", False)


def test_what_the_kernel_does_not_take_is_held_in_order_until_it_does(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    writer, large = ResponseWriter(pair[0]), bytes(4 << 20)
    writer.queue.append(large)
    assert not writer.flush()
    assert writer.is_behind
    writer.queue.append(b"more")
    assert not writer.flush()
    assert writer.held.endswith(b"\0more")
    got = b""
    while writer.held:
        got += everything(pair[1])
        writer.drain()
    got += everything(pair[1])
    assert got == large + b"more"
    assert not writer.is_behind


def test_a_client_keeps_up_if_it_took_enough_since_the_last_look(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    writer = ResponseWriter(pair[0])
    assert not writer.keeps_up(0)  # nobody waits for it
    writer.queue.append(bytes(4 << 20))
    writer.flush()
    assert not writer.keeps_up(1)
    everything(pair[1])
    assert not writer.drain()
    assert writer.keeps_up(1000)
    assert not writer.keeps_up(1)


def test_a_lost_connection_is_the_owners_affair(pair: tuple[socket.socket, socket.socket]) -> None:
    writer = ResponseWriter(pair[0])
    pair[1].close()
    writer.queue.append(b"x")
    with pytest.raises(OSError, match="Broken pipe"):
        writer.flush()
