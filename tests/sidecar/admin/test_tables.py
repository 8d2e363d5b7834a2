"""Tables: the same words for terminal and page; nothing in them can move a cursor."""

from dataclasses import asdict, replace

import pytest

from sidecar import status_model
from sidecar.admin import html, tables


def status_of(**changes: object) -> dict[str, object]:
    base = status_model.StatusReport(
        "1", "swarm00", "worker", 0.0, 3, status_model.SourceView("file", connected=True, age=2.0)
    )
    return asdict(replace(base, **changes))  # type: ignore[arg-type]


def text(**changes: object) -> str:
    return tables.as_text(tables.status(status_of(**changes)))


def test_a_quiet_node() -> None:
    assert text() == "\n".join(
        [
            "version    1",
            "node       swarm00 (worker)",
            "catalogue  version 3",
            "source     file, connected, confirmed 2.0s ago",
            "",
            "Listeners: none",
            "",
            "Ports: none",
            "",
            "Containers: none",
            "",
            "Problems: none",
        ]
    )


@pytest.mark.parametrize(
    ("feed", "line"),
    [
        (status_model.FeedView(serving=True, clients=1), "serving, workers: 1, refused: 0"),
        (status_model.FeedView(following="10.10.10.60"), "following 10.10.10.60"),
        (status_model.FeedView(last_error="timed out"), "NO MANAGER REACHABLE; last error: timed out"),
    ],
)
def test_the_feed(feed: status_model.FeedView, line: str) -> None:
    assert f"feed       {line}\n" in text(feed=feed)


def test_a_source_in_trouble_says_so() -> None:
    told = text(source=status_model.SourceView("docker", connected=False, last_error="no socket"))
    assert "docker, NOT CONNECTED, never confirmed; last error: no socket" in told


def test_ports_containers_and_problems() -> None:
    told = text(
        ports=(
            status_model.PortView(80, "tcp", "web", status_model.PortCarrier.TAKEN, "nginx (pid 1)", 1, 3),
        ),
        containers=(status_model.ContainerView("0123456789abcdef", "web.1.a", captured=False, reason="off"),),
        listeners=(status_model.ListenerView("dns", "gateway:53", "address in use"),),
        problems=("web: bad label",),
    )
    for line in (
        "80/tcp  web        taken   1/3          nginx (pid 1)",
        "0123456789ab  web.1.a  no          off",
        "dns     gateway:53  NOT BOUND: address in use",
        "Problems\nweb: bad label",
    ):
        assert line in told


def test_no_escape_sequence_gets_through() -> None:
    hostile = "\x1b[2J<script>\r\n"
    told = text(
        problems=(hostile,),
        source=status_model.SourceView("docker", connected=False, last_error=hostile),
        node=hostile,
    )
    assert "\x1b" not in told
    assert "\r" not in told
    assert "<script>" not in html.render("t", tables.status(status_of(problems=(hostile,), node=hostile)))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.25, "0.2s"), (42, "42s"), (600, "10m"), (7300, "2h"), (400_000, "5d")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert tables.duration(seconds) == shown
