"""By what limits tell clients apart."""

from typing import Any

import pytest

from mesh.http.middleware.client_key import KEY_MAX, ClientKeySource, IpStrategy, client_key
from tests.support.middleware_runs import context_of

REQUEST: dict[str, Any] = {
    "client": "2001:db8::1",
    "fields": {"x-key": ["a" * 99]},
    "forwarded_for": ("::1",),
}


@pytest.mark.parametrize(
    ("source", "same", "other"),
    [
        (ClientKeySource("X-Key"), {"client": "10.0.0.2"}, {"fields": {"x-key": ["b"]}}),
        (ClientKeySource(host=True), {"client": "10.0.0.2"}, {"host": "b"}),
        (ClientKeySource(), {"host": "b"}, {"client": "10.0.0.2"}),
        (ClientKeySource(address=IpStrategy(1)), {"client": "10.0.0.2"}, {"forwarded_for": ("::2",)}),
        (ClientKeySource(prefix6=64), {"client": "2001:db8::7"}, {"client": "2001:db8:0:1::1"}),
    ],
)
def test_requests_of_one_client_have_the_same_key(
    source: ClientKeySource, same: dict[str, Any], other: dict[str, Any]
) -> None:
    key = client_key(source, context_of(**REQUEST))
    assert client_key(source, context_of(**(REQUEST | same))) == key
    assert client_key(source, context_of(**(REQUEST | other))) != key


def test_a_long_key_is_stored_as_a_digest() -> None:
    keys = {
        client_key(ClientKeySource("X-Key"), context_of(fields={"x-key": ["a" * length]}))
        for length in (KEY_MAX, KEY_MAX + 1, 5000)
    }
    assert len(keys) == 3
    assert all(len(key) <= KEY_MAX for key in keys)


@pytest.mark.parametrize("client", ["10.0.0.1", "::ffff:zz", ""])
def test_a_prefix_is_for_ipv6_addresses_only(client: str) -> None:
    assert client_key(ClientKeySource(prefix6=64), context_of(client=client)) == client
