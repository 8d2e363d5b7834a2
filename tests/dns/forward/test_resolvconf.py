"""resolv.conf as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.forward.resolvconf import ResolvConf, parse_resolv_conf

SYSTEMD = """\
# This is /run/systemd/resolve/stub-resolv.conf
nameserver 127.0.0.53
options edns0 trust-ad
search corp.example
"""


def test_nameservers_in_their_order() -> None:
    text = "# nameserver 10.0.0.9\nnameserver\nnameserver 10.0.0.2\n  nameserver\tfe80::1%eth0 # here\n"
    assert parse_resolv_conf(text).nameservers == ("10.0.0.2", "fe80::1%eth0")
    assert parse_resolv_conf(SYSTEMD) == ResolvConf(("127.0.0.53",))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("options timeout:1 attempts:2 rotate use-vc", ResolvConf((), 1, 2, True, True)),
        ("options timeout:1\noptions timeout:3", ResolvConf((), 3)),
        ("options timeout:99999 attempts:77", ResolvConf((), 30, 5)),
        ("options timeout:0 attempts:-1", ResolvConf()),
        ("options timeout attempts:x timeout:9999999999999", ResolvConf()),
        ("#options rotate", ResolvConf()),
        ("", ResolvConf()),
    ],
)
def test_options(line: str, expected: ResolvConf) -> None:
    assert parse_resolv_conf(line) == expected


@given(st.text())
def test_any_text_has_a_meaning(text: str) -> None:
    parse_resolv_conf(text)
