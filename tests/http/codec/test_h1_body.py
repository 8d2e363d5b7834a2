"""Chunked bodies: the same payload however they arrive, and no second way to read one."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.codec.h1_body import END_OF_CHUNKS, LAST_CHUNK, ChunkedReader, chunk
from mesh.http.faults import HttpFault, RequestRefused


def whole(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Payload, trailers, what follows; fed at once."""
    reader = ChunkedReader(HttpFault.BAD_BODY)
    payload = reader.feed(data)
    assert reader.done
    return payload, reader.trailers, reader.rest


def byte_by_byte(data: bytes) -> tuple[bytes, bytes, bytes]:
    reader = ChunkedReader(HttpFault.BAD_BODY)
    payload = b""
    for at in range(len(data)):
        payload += reader.feed(data[at : at + 1])
        if reader.done:
            return payload, reader.trailers, reader.rest + data[at + 1 :]
    raise AssertionError("it never ended")


@pytest.mark.parametrize(
    ("data", "payload", "trailers"),
    [
        (b"0\r\n\r\n", b"", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
        (b"05\r\nhello\r\n000\r\n\r\n", b"hello", b""),
        (b"A\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n", b"0123456789x", b""),
        (b'3;a=b;c="d e"\r\nabc\r\n0;x\r\n\r\n', b"abc", b""),
        (b"1\r\n\r\r\n0\r\nChecksum: 1\r\nB: 2\r\n\r\n", b"\r", b"Checksum: 1\r\nB: 2\r\n"),
        (b"0\r\nHost: evil\r\nA: b\r\nContent-Length: 3\r\n\r\n", b"", b"A: b\r\n"),
    ],
)
def test_chunks_are_decoded_to_payload_and_trailers(data: bytes, payload: bytes, trailers: bytes) -> None:
    for read in (whole, byte_by_byte):
        assert read(data) == (payload, trailers, b"")
        assert read(data + b"GET /") == (payload, trailers, b"GET /")


@pytest.mark.parametrize(
    "data",
    [
        b"g\r\n",
        b"-1\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"5\nhello\r\n",
        b"5\rhello\r\n",
        b"\r\n",
        b"1234567890123456\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\rX",
        b"5;a\x00\r\nhello\r\n",
        b"5;a\nb\r\nhello\r\n",
        b"0\r\nbad\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\n\r\n\r\n",
        b"5;" + b"x" * 600,
        b"0\r\n" + b"A: b\r\n" * 4000,
    ],
)
def test_a_malformed_chunked_body_is_refused(data: bytes) -> None:
    with pytest.raises(RequestRefused) as caught:
        ChunkedReader(HttpFault.BAD_BODY).feed(data)
    assert caught.value.fault is HttpFault.BAD_BODY
    with pytest.raises(RequestRefused):
        byte_by_byte(data)


def test_the_bytes_of_extensions_are_limited() -> None:
    reader = ChunkedReader(HttpFault.BAD_BODY)
    with pytest.raises(RequestRefused, match="extensions"):
        reader.feed((b"1;" + b"x" * 400 + b"\r\na\r\n") * 100)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.data())
def test_encoded_chunks_are_decoded_however_they_are_cut(pieces: list[bytes], data: st.DataObject) -> None:
    coded = b"".join(map(chunk, pieces)) + data.draw(
        st.sampled_from([END_OF_CHUNKS, LAST_CHUNK + b"A: b\r\n\r\n"])
    )
    reader, payload, at = ChunkedReader(HttpFault.BAD_BODY), b"", 0
    while at < len(coded):
        step = data.draw(st.integers(1, len(coded)))
        payload += reader.feed(coded[at : at + step])
        at += step
    assert reader.done
    assert payload == b"".join(pieces)
    assert reader.rest == b""


@given(st.binary(max_size=80))
def test_any_bytes_are_a_body_or_refused(noise: bytes) -> None:
    with suppress(RequestRefused):
        ChunkedReader(HttpFault.BAD_BODY).feed(noise)
