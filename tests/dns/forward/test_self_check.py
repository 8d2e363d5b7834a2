"""Which servers are ourselves."""

import pytest

from mesh.dns.config import BRIDGE, GATEWAY
from mesh.dns.forward import self_check
from mesh.dns.forward.route import parse_server
from mesh.dns.forward.self_check import is_ourselves
from mesh.net.netlink import InterfaceAddress


@pytest.mark.parametrize(
    ("server", "host", "port", "expected"),
    [
        ("10.9.9.9", "10.9.9.9", 53, True),
        ("10.9.9.9:54", "10.9.9.9", 53, False),
        ("10.9.9.8", "10.9.9.9", 53, False),
        ("fd00::0001", "fd00::1", 53, True),
        ("127.0.0.1", "0.0.0.0", 53, True),
        ("::1", "::", 53, True),
        ("192.0.2.1", "0.0.0.0", 53, False),
    ],
)
def test_addresses(server: str, host: str, port: int, expected: bool) -> None:
    assert is_ourselves(parse_server(server), [("10.1.1.1", 9), (host, port)]) is expected


def test_the_gateway_is_an_address_of_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [InterfaceAddress("eth0", "10.0.0.1", 24), InterfaceAddress(BRIDGE, "172.18.0.1", 16)]
    monkeypatch.setattr(self_check.netlink, "addresses", lambda: found)
    assert is_ourselves(parse_server("172.18.0.1"), [(GATEWAY, 53)])
    assert not is_ourselves(parse_server("10.0.0.1"), [(GATEWAY, 53)])
