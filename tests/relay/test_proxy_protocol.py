"""PROXY protocol headers, byte for byte (proxy-protocol.txt, 2.1 and 2.2)."""

import random
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from mesh.errors import WireError
from mesh.relay.proxy_protocol import HEADER_MAX, SIGNATURE, ProxyHeader, header, parse, trusts


def test_version_1() -> None:
    assert header("v1", ("10.1.2.3", 4711), ("10.0.0.1", 80)) == b"PROXY TCP4 10.1.2.3 10.0.0.1 4711 80\r\n"
    assert header("v1", ("fd00::1", 1), ("fd00::2", 2)) == b"PROXY TCP6 fd00::1 fd00::2 1 2\r\n"


def test_version_2() -> None:
    assert header("v2", ("10.1.2.3", 4711), ("10.0.0.1", 80)) == (
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes([10, 1, 2, 3, 10, 0, 0, 1]) + b"\x12\x67\x00\x50"
    )
    assert header("v2", ("fd00::1", 1), ("fd00::2", 2))[12:16] == b"\x21\x21\x00\x24"


def test_none() -> None:
    assert header("", ("10.1.2.3", 4711), ("10.0.0.1", 80)) == b""


def some_header(rng: random.Random) -> tuple[bytes, ProxyHeader]:
    kind, bits = rng.choice([(IPv4Address, 32), (IPv6Address, 128)])
    client, local = ((str(kind(rng.getrandbits(bits))), rng.randrange(65536)) for _ in range(2))
    data = header(rng.choice(["v1", "v2"]), client, local)
    return data, ProxyHeader(len(data), client, local)


@pytest.mark.parametrize("seed", range(200))
def test_what_is_written_is_read_whole_and_never_before_it_is_complete(seed: int) -> None:
    rng = random.Random(seed)
    data, said = some_header(rng)
    assert all(parse(data[:end]) is None for end in range(len(data)))
    assert parse(data) == parse(data + rng.randbytes(50)) == said


@pytest.mark.parametrize("seed", range(200))
def test_any_bytes_are_a_header_an_incomplete_one_or_an_error_and_more_of_them_change_no_verdict(
    seed: int,
) -> None:
    rng = random.Random(seed)
    data = bytearray(some_header(rng)[0] + rng.randbytes(300))
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(min(40, len(data)))] = rng.randrange(256)
    verdict: object = None
    for end in range(len(data) + 1):
        try:
            found: object = parse(bytes(data[:end]))
        except WireError as error:
            found = type(error)
        assert verdict is None or found == verdict
        verdict = found
        if isinstance(found, ProxyHeader):
            assert found.length <= end


def test_tlvs_are_passed_over() -> None:
    data = bytearray(header("v2", ("10.1.2.3", 4711), ("10.0.0.1", 80)))
    data[15] += 7
    data += b"\x04\x00\x04abcd"
    assert parse(bytes(data) + b"GET") == ProxyHeader(len(data), ("10.1.2.3", 4711), ("10.0.0.1", 80))


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        SIGNATURE + b"\x20\x00\x00\x00",  # LOCAL
        SIGNATURE + b"\x20\x11\x00\x0c" + bytes(12),  # LOCAL, addresses not to be used
        SIGNATURE + b"\x21\x00\x00\x00",  # unspecified
        SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),  # a datagram
        SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),  # a Unix socket
    ],
)
def test_headers_that_name_nobody(data: bytes) -> None:
    assert parse(data + b"more") == ProxyHeader(len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXYTCP4",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1\r\n",
        b"PROXY TCP4  10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY TCP4 10.0.0.1 fd00::1 1 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 -1 2\r\n",
        "PROXY TCP4 10.0.0.1 10.0.0.2 ١ 2\r\n".encode(),
        b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
        b"PROXY UDP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY UNKNOWN" + b" " * 100,
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),  # version 1 in binary
        SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),  # no such command
        SIGNATURE + b"\x21\x41\x00\x0c" + bytes(12),  # no such family
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),  # too short for its addresses
        SIGNATURE + b"\x21\x11" + (HEADER_MAX - 15).to_bytes(2),  # refused before it is sent
    ],
)
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(WireError):
        parse(data)


def test_who_is_trusted() -> None:
    networks = tuple(map(ip_network, ("10.1.0.0/16", "fd00::/8")))
    assert trusts(networks, "10.1.200.1")
    assert trusts(networks, "fd12::1")
    assert not trusts(networks, "10.2.0.1")
    assert not trusts((), "10.1.0.1")
