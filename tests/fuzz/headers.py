"""PROXY headers from a proxy in front: any bytes, in any pieces: a header, nonsense, or neither yet."""

from mesh.errors import WireError
from mesh.relay.proxy_protocol import HEADER_MAX, V1_MAX, V1_START, ProxyHeader, header, parse

PREFIXES = 64  # of an input that are read: each is what a slow sender's reader sees


class Headers:
    """Input: what a connection from a trusted proxy begins with."""

    def __call__(self, data: bytes) -> None:
        step = max(1, len(data) // PREFIXES)
        decided: ProxyHeader | str | None = None
        for end in (*range(0, len(data), step), len(data)):
            found = read(data[:end])
            # More bytes never change what has been found.
            assert decided is None or found == decided
            decided = found
        if decided is None:
            assert len(data) < (V1_MAX if data.startswith(V1_START) else HEADER_MAX), "waits for ever"
        if isinstance(decided, ProxyHeader):
            check(decided, data)


def read(data: bytes) -> ProxyHeader | str | None:
    try:
        return parse(data)
    except WireError:
        return "nonsense"


def check(found: ProxyHeader, data: bytes) -> None:
    assert 0 < found.length <= min(HEADER_MAX, len(data))
    assert read(data[: found.length]) == found
    assert read(data[: found.length - 1]) is None, "it ends where it says"
    assert (found.client is None) == (found.local is None)
    if found.client is not None and found.local is not None:
        for version in ("v1", "v2"):  # whom it names can be passed on to the task
            passed_on = parse(header(version, found.client, found.local))
            assert passed_on is not None
            assert (passed_on.client, passed_on.local) == (found.client, found.local)
