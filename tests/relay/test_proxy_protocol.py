"""PROXY protocol headers, byte for byte (proxy-protocol.txt, 2.1 and 2.2)."""

from mesh.relay.proxy_protocol import header


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
