"""What is encoded comes back; anything else is a DiscoveryError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.snapshot import Change
from mesh.discovery.feed_codec import HEARTBEAT, decode, encode_change, encode_view
from mesh.discovery.swarm import ClusterView, cluster
from mesh.errors import DiscoveryError
from tests.support.docker_fixtures import NETWORKS, NODES, WEB, WEB_TASKS

VIEW = cluster(NODES, NETWORKS, [WEB], WEB_TASKS)


def test_a_view_comes_back() -> None:
    assert decode(encode_view(VIEW)) == VIEW


def test_a_change_comes_back() -> None:
    change = Change(
        nodes={"gone": None}, networks=VIEW.networks, services={"webservice": VIEW.services["webservice"]}
    )
    assert decode(encode_change(change)) == change


def test_a_heartbeat_is_nothing() -> None:
    assert decode(HEARTBEAT) is None


def test_an_empty_view_is_a_view() -> None:
    assert decode(encode_view(ClusterView({}, {}, {}))) == ClusterView({}, {}, {})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"view": 1}',
        b'{"surprise": {}}',
        b'{"view": {"nodes": {}, "networks": {}}}',
        b'{"changed": {"services": {"s": {"id": "s"}}}}',
        b"\xff\xfe",
    ],
)
def test_what_does_not_fit_is_refused(data: bytes) -> None:
    with pytest.raises(DiscoveryError, match="not a message of the feed"):
        decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        decode(data)
    except DiscoveryError:
        pass


@given(st.data())
def test_a_damaged_view_is_a_view_or_an_error(data: st.DataObject) -> None:
    whole = encode_view(VIEW)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    try:
        assert isinstance(decode(damaged), ClusterView | Change | None)
    except DiscoveryError:
        pass
