"""Who may say who the client is, and under which spellings of a name."""

import pytest

from mesh.http.codec.h2_headers import read_trailers
from mesh.http.codec.protected_fields import (
    as_trailers,
    from_proxy,
    from_stranger,
    is_protected,
    without_names,
)
from mesh.http.faults import HttpFault

PLAIN = (
    b"Host: a\r\nX-Client: 1\r\nX-Forward: 2\r\nForwarded-By: 3\r\nTrue-Client: 4\r\nCookie: x-real-ip: 5\r\n"
)
OURS = [
    "X-Forwarded-For",
    "X-Forwarded-Anything",
    "X-Real-Ip",
    "X-Request-Id",
    "Forwarded",
    "X-Replaced-Path",
]
OTHERS = [
    *("True-Client-IP", "X-Client-Ip", "X-Original-URL", "X-Rewrite-URL", "X-Original-Host", "Client-IP"),
    *("CF-Connecting-IP", "X-Cluster-Client-Ip", "X-Forwarded-Tls-Client-Cert", "X-Envoy-External-Address"),
    *("Fastly-Client-IP", "X-Azure-ClientIP", "X-SSL-Client-Cert", "SSL-Client-Cert", "X-Accel-Mapping"),
]


def spellings(name: str) -> list[str]:
    return [
        name,
        name.lower(),
        name.upper(),
        name.replace("-", "_"),
        name.replace("-", "."),
        name.replace("-", "_", 1),
    ]


@pytest.mark.parametrize("name", OURS + OTHERS)
def test_a_client_may_not_send_protected_fields_in_any_spelling(name: str) -> None:
    lines = "".join(f"{one}: x\r\n" for one in spellings(name)).encode()
    assert from_stranger(lines + PLAIN + lines) == PLAIN
    assert from_stranger(PLAIN) == PLAIN


@pytest.mark.parametrize("name", OURS)
def test_a_trusted_proxy_may_send_them_in_the_canonical_spelling_only(name: str) -> None:
    right = f"{name}: 1\r\n{name.upper()}: 2\r\n".encode()
    wrong = "".join(f"{one}: x\r\n" for one in spellings(name) if "_" in one or "." in one).encode()
    assert from_proxy(wrong + right + wrong + PLAIN) == right + PLAIN


@pytest.mark.parametrize("name", OTHERS)
def test_a_trusted_proxy_may_send_the_fields_of_other_proxies(name: str) -> None:
    assert from_proxy(f"{name}: 1\r\n".encode() + PLAIN) == f"{name}: 1\r\n".encode() + PLAIN


def test_the_field_proxy_is_never_passed_on() -> None:
    assert from_stranger(b"Proxy: a\r\n" + PLAIN) == from_proxy(b"proxy: a\r\n" + PLAIN) == PLAIN


@pytest.mark.parametrize(
    "name",
    [
        *OURS,
        *OTHERS,
        *(
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "TE",
            "Trailer",
            "Upgrade",
            "Keep-Alive",
        ),
        *("Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "WWW-Authenticate"),
        *(
            "Content-Type",
            "Content-Encoding",
            "Content-Range",
            "Cache-Control",
            "Expect",
            "Range",
            "If-Match",
        ),
        *("Location", "Date", "Age", "Vary", "Origin", "Access-Control-Allow-Origin", "Proxy"),
        *("X-HTTP-Method-Override", "Content-Security-Policy", "Strict-Transport-Security"),
    ],
)
def test_a_field_that_changes_the_message_is_no_trailer(name: str) -> None:
    lines = "".join(f"{one}: x\r\n" for one in spellings(name)).encode()
    assert as_trailers(lines + b"X-Sum: 1\r\n") == b"X-Sum: 1\r\n"


@pytest.mark.parametrize(
    "name", ["grpc-status", "grpc-message", "x-checksum", "server-timing", "digest", "etag"]
)
def test_other_fields_may_be_trailers(name: str) -> None:
    assert as_trailers(f"{name}: 0\r\n".encode()) == f"{name}: 0\r\n".encode()


def test_trailers_of_http2_follow_the_same_rules() -> None:
    fields = [
        (b"x-real-ip", b"1"),
        (b"x_forwarded_for", b"1"),
        (b"content-length", b"1"),
        (b"grpc-status", b"0"),
    ]
    assert read_trailers(fields, HttpFault.BAD_BODY) == b"grpc-status: 0\r\n"


def test_all_spellings_of_a_name_are_removed() -> None:
    block = b"X-User: 1\r\nA: x-user: 2\r\nX_User: 3\r\nx.user: 4\r\nX-Users: 5\r\n"
    assert without_names(block, [b"x-user"]) == b"A: x-user: 2\r\nX-Users: 5\r\n"
    assert without_names(block, [b"X_USER", b"A"]) == b"X-Users: 5\r\n"
    assert without_names(b"", [b"a"]) == b""


def test_connection_cannot_remove_protected_fields() -> None:
    assert is_protected(b"x-forwarded-for")
    assert is_protected(b"x_real_ip")
    assert not is_protected(b"x-trace")
