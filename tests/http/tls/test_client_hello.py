"""The name in a ClientHello, of those that OpenSSL writes, in any pieces and records."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import WireError
from mesh.http.tls.client_hello import server_name


def hello(name: str | None, *, version: ssl.TLSVersion | None = None, alpn: tuple[str, ...] = ()) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        one.do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """The same message, in records of so many bytes."""
    message = data[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(one).to_bytes(2) + one for one in pieces)


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,10}){1,3}", fullmatch=True)
HELLO = hello("shop.example", alpn=("h2", "http/1.1"))


@given(NAMES, st.sampled_from([None, ssl.TLSVersion.TLSv1_2]), st.integers(1, 600))
def test_the_server_name_is_found(name: str, version: ssl.TLSVersion | None, size: int) -> None:
    data = hello(name, version=version)
    assert server_name(data) == name
    assert server_name(data + b"more") == name
    assert server_name(in_records(data, size)) == name


def test_every_incomplete_message_needs_more_bytes() -> None:
    assert {server_name(HELLO[:end]) for end in range(len(HELLO))} == {None}


def test_the_name_is_in_lower_case() -> None:
    assert server_name(hello("Shop.EXAMPLE")) == "shop.example"


def test_a_message_without_a_name_has_an_empty_one() -> None:
    assert server_name(hello(None)) == ""


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x02\x00\x00\x05\x01",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        HELLO.replace(b"shop.example", b"shop\0example"),
        HELLO.replace(b"shop.example", b"shop\xffexample"),
    ],
)
def test_other_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(WireError):
        server_name(data)


@given(st.binary(max_size=400), st.integers(0, len(HELLO) - 1), st.integers(0, 255))
def test_any_bytes_are_a_name_or_a_documented_error(data: bytes, at: int, byte: int) -> None:
    changed = HELLO[:at] + bytes((byte,)) + HELLO[at + 1 :]
    for one in (data, b"\x16\x03\x01" + data, changed):
        try:
            name = server_name(one)
        except WireError:
            continue
        assert name is None or name.isascii()
