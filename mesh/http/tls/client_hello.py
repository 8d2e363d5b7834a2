"""Reads the server name from a ClientHello, the first message of a TLS connection. Pure.

RFC 8446 section 4.1.2, RFC 6066 section 3. The message may come in several records and in any pieces.
Everything but the name is skipped by its length.
"""

from mesh.errors import WireError

HELLO_MAX = 16 * 1024  # bytes that are searched: with post-quantum key shares some 2 KiB are usual

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_RECORD_MAX = 2**14
_NAME_MAX = 255


def server_name(data: bytes) -> str | None:
    """The name in lower case; "" if the message has none; None if more bytes are needed. Raises WireError for
    what is no ClientHello."""
    message = b""
    at = 0
    while True:
        if len(data) - at < 5:
            _check_beginning(data[at:])
            return None
        _check_beginning(data[at : at + 5])
        size = int.from_bytes(data[at + 3 : at + 5])
        if not 0 < size <= _RECORD_MAX:
            raise WireError("a record of TLS with an impossible length")
        message += data[at + 5 : at + 5 + size]
        if message and message[0] != _CLIENT_HELLO:
            raise WireError("a handshake that does not begin with ClientHello")
        if len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4]):
            return _name_in(_HelloReader(message[4 : 4 + int.from_bytes(message[1:4])]))
        at += 5 + size
        if at >= len(data):
            return None


def _check_beginning(record: bytes) -> None:
    if record[:1] not in (b"", b"\x16") or record[1:2] not in (b"", b"\x03"):
        raise WireError("not TLS")


class _HelloReader:
    """Reads fields from the front. Raises WireError where the message is cut short."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, size: int) -> bytes:
        if size > len(self.data):
            raise WireError("a ClientHello that is cut short")
        found, self.data = self.data[:size], self.data[size:]
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.read(size))

    def part(self, size: int) -> "_HelloReader":
        """A part with its length, in `size` bytes, in front."""
        return _HelloReader(self.read(self.number(size)))


def _name_in(hello: _HelloReader) -> str:
    hello.read(2 + 32)  # version, random
    hello.part(1)  # session id
    hello.part(2)  # cipher suites
    hello.part(1)  # compression methods
    if not hello.data:
        return ""  # no extensions: TLS 1.0 allows it
    extensions = hello.part(2)
    while extensions.data:
        kind, content = extensions.number(2), extensions.part(2)
        if kind == _SERVER_NAME:
            return _host_in(content.part(2))
    return ""


def _host_in(names: _HelloReader) -> str:
    while names.data:
        kind, name = names.number(1), names.part(2).data
        if kind == _HOST_NAME:
            if not 0 < len(name) <= _NAME_MAX or not name.isascii() or not name.decode().isprintable():
                raise WireError("a server name that is none")
            return name.decode().lower().rstrip(".")
    return ""
