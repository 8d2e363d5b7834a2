"""The last descriptors of a process are not for clients."""

import errno
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from mesh.net.limits import descriptors
from mesh.net.limits.descriptors import RESERVED_MAX, for_client, is_reserved


@pytest.fixture
def limit() -> Iterator[int]:
    """The soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = 4_000 if hard == resource.RLIM_INFINITY else min(hard, 4_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowered, hard))
    yield lowered
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_only_the_last_ones_are_reserved(limit: int) -> None:
    reserved = min(RESERVED_MAX, limit // 8)
    assert not is_reserved(limit - reserved - 1)
    assert is_reserved(limit - reserved)


def test_of_a_small_limit_an_eighth_is(limit: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (800, hard))
    assert (is_reserved(699), is_reserved(700)) == (False, True)
    assert descriptors.limits()[0] == 800


def test_a_socket_with_a_reserved_number_is_closed_as_if_there_were_none(limit: int) -> None:
    before = descriptors.count()
    with socket.socket() as sock:
        assert for_client(sock) is sock
    high = socket.socket(fileno=_at(limit - 1))
    with pytest.raises(OSError, match="not for clients") as raised:
        for_client(high)
    assert raised.value.errno == errno.EMFILE
    assert descriptors.count() == before


def _at(number: int) -> int:
    with socket.socket() as sock:
        return os.dup2(sock.fileno(), number, inheritable=False)
