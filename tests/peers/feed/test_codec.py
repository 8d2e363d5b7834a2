"""What is encoded comes back; anything else is a DiscoveryError."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import Attachment, Neighbour
from mesh.catalog.snapshot import Change
from mesh.discovery.swarm_json import cluster
from mesh.errors import DiscoveryError
from mesh.peers.feed.codec import HEARTBEAT, decode, encode_change, encode_view
from tests.support.docker_fixtures import NETWORKS, NODES, WEB, WEB_TASKS

NEIGHBOUR = Neighbour("n2", "c1", "tool", (Attachment("back", "10.0.8.7", ("helper",)),), "host", "shop")
VIEW = cluster(NODES, NETWORKS, [WEB], WEB_TASKS)


def test_a_view_comes_back() -> None:
    assert decode(encode_view(VIEW)) == VIEW


def test_a_change_comes_back() -> None:
    change = Change(
        nodes={"gone": None}, networks=VIEW.networks, services={"webservice": VIEW.services["webservice"]}
    )
    assert decode(encode_change(change)) == change


class TestNeighbours:
    """Other nodes' plain containers, which sidecars did not always know of."""

    VIEW = replace(VIEW, neighbours={NEIGHBOUR.key: NEIGHBOUR})
    CHANGE = Change(services={"gone": None}, neighbours={NEIGHBOUR.key: NEIGHBOUR, "n2/c2": None})

    def test_they_come_back(self) -> None:
        assert decode(encode_view(self.VIEW)) == self.VIEW
        assert decode(encode_change(self.CHANGE)) == self.CHANGE

    def test_older_sidecars_are_told_what_they_understand(self) -> None:
        """They refuse fields that they do not know."""
        view = json.loads(encode_view(self.VIEW, neighbours=False))["view"]
        change = json.loads(encode_change(self.CHANGE, neighbours=False))["changed"]
        assert view.keys() == change.keys() == {"nodes", "networks", "services"}
        assert change["services"] == {"gone": None}

    def test_where_there_are_none_nothing_is_said(self) -> None:
        assert json.loads(encode_view(VIEW))["view"].keys() == {"nodes", "networks", "services"}
        assert "neighbours" not in json.loads(encode_change(Change(services={"s": None})))["changed"]

    def test_what_older_sidecars_tell_is_understood(self) -> None:
        assert decode(b'{"view": {"nodes": {}, "networks": {}, "services": {}}}') == ClusterView({}, {}, {})
        old = b'{"changed": {"nodes": {}, "networks": {}, "services": {"s1": null}}}'
        assert decode(old) == Change(services={"s1": None})


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
