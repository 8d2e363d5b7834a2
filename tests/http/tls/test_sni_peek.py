"""A server name is read from a connection's first message, which stays in the socket."""

import socket
from collections.abc import Iterator

import pytest

from mesh.http.tls.sni_peek import SniPeek
from mesh.net.poller import PEER_DONE
from tests.http.tls.test_client_hello import hello
from tests.support.fake_poller import FakeDeadlines, FakePoller


class World:
    def __init__(self) -> None:
        self.poller, self.deadlines = FakePoller(), FakeDeadlines()
        self.sock, self.client = socket.socketpair()
        self.sock.setblocking(False)
        self.names: list[str] = []
        self.failed = False
        self.began = 0
        self.peek = SniPeek(
            self.poller.as_poller(), self.deadlines.as_deadlines(), self.sock, self._on_done, self._on_failed
        )
        self.peek.on_first_bytes = self._on_first_bytes
        self.peek.start()

    def _on_done(self, one: SniPeek, sock: socket.socket, name: str) -> None:
        assert sock is self.sock
        self.names.append(name)

    def _on_failed(self, one: object) -> None:
        self.failed = True

    def _on_first_bytes(self) -> None:
        self.began += 1

    def send(self, data: bytes) -> None:
        self.client.sendall(data)
        self.poller.readable(self.sock)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.sock.close()
    made.client.close()


def test_the_name_is_passed_on_and_the_message_stays_in_the_socket(world: World) -> None:
    message = hello("a.example")
    world.send(message)
    assert world.names == ["a.example"]
    assert world.sock.recv(len(message) + 1) == message
    assert world.poller.handlers == {}
    assert world.deadlines.waiting == set()


def test_a_message_in_pieces_is_waited_for(world: World) -> None:
    message = hello("a.example")
    world.send(message[:20])
    assert (world.names, world.began) == ([], 1)
    world.send(message[20:])
    assert (world.names, world.began) == (["a.example"], 1)


def test_what_is_no_tls_is_passed_on_without_a_name(world: World) -> None:
    world.send(b"GET / HTTP/1.1\r\n\r\n")
    assert world.names == [""]


def test_a_client_that_ends_before_its_message_is_complete_has_failed(world: World) -> None:
    world.client.sendall(hello("a.example")[:20])
    world.client.shutdown(socket.SHUT_WR)
    world.poller.readable(world.sock, PEER_DONE)
    assert (world.names, world.failed) == ([], True)


def test_a_client_that_takes_too_long_has_failed(world: World) -> None:
    world.peek.on_timeout()
    assert world.failed
    assert world.poller.closed == [world.sock]


def test_a_bug_in_the_next_step_closes_the_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(SniPeek, "_finish", fail)
    world.send(hello("a.example"))
    assert world.failed
    assert world.poller.closed == [world.sock]
