"""Servers as text and as values."""

import socket

import pytest

from mesh.dns.forward.route import BadServer, DnsServer, parse_server, parse_servers


@pytest.mark.parametrize(
    ("text", "server", "shown_as"),
    [
        ("10.0.0.1", DnsServer("10.0.0.1"), "10.0.0.1"),
        ("10.0.0.1:5353", DnsServer("10.0.0.1", 5353), "10.0.0.1:5353"),
        ("fd00::1", DnsServer("fd00::1"), "[fd00::1]"),
        ("[fd00::1]", DnsServer("fd00::1"), "[fd00::1]"),
        ("[fd00::1]:5353", DnsServer("fd00::1", 5353), "[fd00::1]:5353"),
        ("fe80::1%lo", DnsServer("fe80::1%lo"), "[fe80::1%lo]"),
        ("tls://10.0.0.1", DnsServer("10.0.0.1", 853, tls_name="10.0.0.1"), "tls://10.0.0.1"),
        (
            "tls://10.0.0.1:853#dns.test",
            DnsServer("10.0.0.1", 853, tls_name="dns.test"),
            "tls://10.0.0.1#dns.test",
        ),
        (
            "tls://[fd00::1]:8853#d.test",
            DnsServer("fd00::1", 8853, tls_name="d.test"),
            "tls://[fd00::1]:8853#d.test",
        ),
    ],
)
def test_servers_as_text(text: str, server: DnsServer, shown_as: str) -> None:
    assert parse_server(text) == server
    assert str(server) == shown_as
    assert parse_server(shown_as) == server


NO_SERVERS = [
    "",
    "dns.example",
    "1.2.3",
    "10.0.0.1:",
    "10.0.0.1:x",
    "10.0.0.1:70000",
    "[fd00::1",
    "fd00::1]:53",
]


@pytest.mark.parametrize(
    "text", [*NO_SERVERS, *(f"tls://{text}" for text in NO_SERVERS), "tls://dns.test:853"]
)
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(BadServer):
        parse_server(text)


def test_at_most_three_servers_each_once_and_never_ourselves() -> None:
    texts = ("127.0.0.11", "10.0.0.1", "nonsense", "10.0.0.1", "fd00::1", "10.0.0.3", "10.0.0.4")
    assert parse_servers(texts) == (DnsServer("10.0.0.1"), DnsServer("fd00::1"), DnsServer("10.0.0.3"))


def test_a_link_local_server_is_reached_through_its_interface() -> None:
    index = socket.if_nametoindex("lo")
    assert DnsServer("fe80::1%lo").target(tcp=False) == ("fe80::1", 53, 0, index)
    assert DnsServer("fe80::1%7").target(tcp=True) == ("fe80::1", 53, 0, 7)
    with pytest.raises(OSError):
        DnsServer("fe80::1%nothing0").target(tcp=False)


def test_dockers_resolver_has_another_port_for_tcp() -> None:
    server = DnsServer("127.0.0.11", 4000, 5000)
    assert (server.target(tcp=False)[1], server.target(tcp=True)[1]) == (4000, 5000)
