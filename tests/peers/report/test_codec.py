"""A report that is encoded comes back; anything else is a DiscoveryError."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog.model import Attachment, Neighbour, ReturnPath
from mesh.errors import DiscoveryError
from mesh.peers.report.codec import (
    ALIASES_MAX,
    CONTAINERS_BYTES_MAX,
    CONTAINERS_MAX,
    ENDINGS_MAX,
    ENTRIES_MAX,
    ID_MAX,
    NAME_MAX,
    REPORT_MAX,
    TASKS_MAX,
    NodeReport,
    check_containers,
    decode_report,
    encode_report,
)

TOOL = Neighbour("", "c1", "tool", (Attachment("n1", "10.1.0.7", ("web", "helper")),), "toolbox", "shop")
RETURN_PATH = ReturnPath("10.0.0.2", "02:42:0a:00:00:02", ("10.0.0.2", "10.0.0.3"), ("10.0.0.7",))
LONGEST_RETURN_PATH = ReturnPath(
    "255.255.255.255",
    "02:42:0a:00:00:02",
    ("255.255.255.255",) * ENTRIES_MAX,
    ("255.255.255.255",) * TASKS_MAX,
)
LONGEST_ENDING = {f"{number:064}": "s" * ID_MAX for number in range(ENDINGS_MAX)}


def many(count: int, alias: str = "alias") -> dict[str, Neighbour]:
    attached = (Attachment("n1", "10.1.0.7", (alias,)),)
    return {f"{n:064}": Neighbour("", f"{n:064}", "tool", attached) for n in range(count)}


@pytest.mark.parametrize(
    "report",
    [
        NodeReport(),
        NodeReport({"t1": "web", "t2": "db"}),
        NodeReport({"t1": "web"}, {"c1": TOOL}),
        NodeReport(return_path=RETURN_PATH),
        NodeReport({"t1": "web", "t2": "web"}, unwell=frozenset({"t2"})),
    ],
)
def test_a_report_comes_back(report: NodeReport) -> None:
    assert decode_report(encode_report(report)) == report


def test_the_longest_fits() -> None:
    containers = many(CONTAINERS_MAX, "a" * 250)
    check_containers(containers)
    longest = NodeReport(LONGEST_ENDING, containers, LONGEST_RETURN_PATH, frozenset(LONGEST_ENDING))
    data = encode_report(longest)
    assert len(data) <= REPORT_MAX
    assert decode_report(data) == longest


def test_what_older_managers_understand() -> None:
    """They refuse fields that they do not know, so a node without plain containers says nothing of them."""
    assert json.loads(encode_report(NodeReport({"t1": "web"}))) == {"ending": {"t1": "web"}}


def test_what_older_nodes_say() -> None:
    assert decode_report(b'{"ending": {"t1": "web"}}') == NodeReport({"t1": "web"})


@pytest.mark.parametrize(
    "containers",
    [
        many(CONTAINERS_MAX + 1),
        {**many(CONTAINERS_MAX - 1, "a" * NAME_MAX), "c1": TOOL} | many(CONTAINERS_MAX, "a" * 500),
        {"c1": Neighbour("", "c1", "x" * (NAME_MAX + 1))},
        {"c1": Neighbour("", "c1", "tool", (Attachment("n1", "10.1.0.7", ("a",) * (ALIASES_MAX + 1)),))},
        {"c" * (ID_MAX + 1): TOOL},
    ],
)
def test_what_managers_would_refuse_is_known_before(containers: dict[str, Neighbour]) -> None:
    with pytest.raises(DiscoveryError):
        check_containers(containers)
    data = encode_report(NodeReport({}, containers))
    if len(data) <= CONTAINERS_BYTES_MAX:
        with pytest.raises(DiscoveryError, match="not a message of the feed"):
            decode_report(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"ending": ["t1"]}',
        b'{"ending": {"t1": 1}}',
        b'{"ending": {"": "web"}}',
        b'{"ending": {}, "more": 1}',
        b'{"ending": {}, "containers": {"c1": {"hostname": "no name"}}}',
        b'{"ending": {}, "containers": {"c1": {"name": "tool", "node": "another"}}}',
        encode_report(NodeReport({"t1": "s" * (ID_MAX + 1)})),
        encode_report(NodeReport({str(number): "web" for number in range(ENDINGS_MAX + 1)})),
    ],
)
def test_what_does_not_fit_is_refused(data: bytes) -> None:
    with pytest.raises(DiscoveryError, match="not a message of the feed"):
        decode_report(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_an_error(data: bytes) -> None:
    try:
        decode_report(data)
    except DiscoveryError:
        pass
