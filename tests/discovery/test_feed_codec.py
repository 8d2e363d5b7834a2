"""What is encoded comes back; anything else is a DiscoveryError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.snapshot import Change
from mesh.discovery.endings import ENDINGS_MAX
from mesh.discovery.feed_codec import (
    HEARTBEAT,
    ID_MAX,
    REPORT_MAX,
    decode,
    decode_report,
    encode_change,
    encode_report,
    encode_view,
)
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


class TestReports:
    def test_a_report_comes_back(self) -> None:
        assert decode_report(encode_report({"t1": "web", "t2": "db"})) == {"t1": "web", "t2": "db"}
        assert decode_report(encode_report({})) == {}

    def test_the_longest_fits(self) -> None:
        longest = {f"{number:064}": "s" * ID_MAX for number in range(ENDINGS_MAX)}
        data = encode_report(longest)
        assert len(data) <= REPORT_MAX
        assert decode_report(data) == longest

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{}",
            b'{"ending": ["t1"]}',
            b'{"ending": {"t1": 1}}',
            b'{"ending": {"": "web"}}',
            b'{"ending": {}, "more": 1}',
            encode_report({"t1": "s" * (ID_MAX + 1)}),
            encode_report({str(number): "web" for number in range(ENDINGS_MAX + 1)}),
        ],
    )
    def test_what_does_not_fit_is_refused(self, data: bytes) -> None:
        with pytest.raises(DiscoveryError, match="not a message of the feed"):
            decode_report(data)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_report_or_an_error(self, data: bytes) -> None:
        try:
            decode_report(data)
        except DiscoveryError:
            pass
