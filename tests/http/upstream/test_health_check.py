"""Checks without a socket: what is asked, what answers mean, when the next one is."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mesh.balance.health_state import FALL, Pulse, Result
from mesh.balance.policies import Endpoint
from mesh.http.codec.h1_head import Fields, ResponseHead
from mesh.http.config.model import HealthCheck
from mesh.http.upstream.health_check import HealthRequest, onward, pause, question, verdict

TASK = Endpoint("10.0.0.1", 8080)
CHECK = HealthCheck("/health")


def answer(status: int, *lines: str) -> ResponseHead:
    return ResponseHead(status, b"X", 1, Fields("".join(f"{line}\r\n" for line in lines).encode()))


def test_what_is_asked() -> None:
    assert question(CHECK, TASK) == HealthRequest(
        b"GET", b"/health", b"Host: 10.0.0.1:8080\r\nUser-Agent: mesh-probe\r\n"
    )
    check = HealthCheck("/a?b", port=81, host="app.example", method="POST", headers=(("X-A", "ü"),))
    assert question(check, TASK) == HealthRequest(
        b"POST",
        b"/a?b",
        b"Host: app.example\r\nUser-Agent: mesh-probe\r\nX-A: \xfc\r\nContent-Length: 0\r\n",
    )
    assert b"Host: 10.0.0.1:81\r\n" in question(HealthCheck("/", port=81), TASK).lines
    grpc = question(HealthCheck(grpc=True), TASK)
    assert (grpc.method, grpc.path, grpc.body) == (b"POST", b"/grpc.health.v1.Health/Check", b"\0\0\0\0\0")


@pytest.mark.parametrize(
    ("status", "statuses", "well"),
    [
        (200, (), True),
        (204, (), True),
        (399, (), True),
        (404, (), False),
        (503, (), False),
        (404, (404,), True),
        (200, (404,), False),
    ],
)
def test_which_status_is_well(status: int, statuses: tuple[int, ...], well: bool) -> None:
    found = verdict(HealthCheck("/", statuses=frozenset(statuses)), answer(status), b"")
    assert found is (Result.WELL if well else Result.STATUS)


@pytest.mark.parametrize(
    ("body", "well"),
    [
        (b"\0\0\0\0\2\x08\1", True),  # SERVING
        (b"\0\0\0\0\2\x08\2", False),  # NOT_SERVING
        (b"\0\0\0\0\0", False),  # UNKNOWN, which is not written
        (b"", False),  # no such service: the status is in the trailers
    ],
)
def test_what_a_grpc_server_says(body: bytes, well: bool) -> None:
    assert (verdict(HealthCheck(grpc=True), answer(200), body) is Result.WELL) is well


@pytest.mark.parametrize(
    ("location", "to"),
    [
        ("/there/", "/there/"),
        ("there?x=1#y", "/a/there?x=1"),
        ("http://10.0.0.1:8080", "/"),
        ("http://10.0.0.1:8080/b", "/b"),
        ("https://10.0.0.1:8080/b", ""),
        ("http://10.0.0.1/b", ""),
        ("//app.example/b", ""),
        ("http://[", ""),
        ("/a b", ""),
        ("/\xe9", ""),
    ],
)
def test_redirects_are_followed_on_the_same_endpoint(location: str, to: str) -> None:
    head = ResponseHead(302, b"X", 1, Fields(b"Location: %b\r\n" % location.encode("latin-1")))
    assert onward(HealthCheck("/a/b"), TASK, "/a/b", head) == to
    assert onward(HealthCheck("/a/b", follow=False), TASK, "/a/b", head) == ""
    assert onward(CHECK, TASK, "/", answer(200, "Location: /b")) == ""


@given(some.binary(max_size=60))
def test_whatever_a_location_says_the_next_request_can_be_written(location: bytes) -> None:
    printable = bytes(byte for byte in location if byte >= 32 and byte != 127)
    to = onward(CHECK, TASK, "/health", ResponseHead(302, b"X", 1, Fields(b"Location: %b\r\n" % printable)))
    assert to == "" or (to.startswith("/") and all("!" <= one <= "~" for one in to))


def test_when_the_next_one_is() -> None:
    check = HealthCheck("/", interval=30.0, unwell_interval=7.0)
    well, new = Pulse(well=True), Pulse(well=False, new=True)
    assert (pause(check, well), pause(check, new)) == (30.0, 1.0)
    for _ in range(FALL - 1):
        well.take(Result.STATUS)
        assert pause(check, well) == 1.0
    well.take(Result.STATUS)
    assert pause(check, well) == 7.0
    assert pause(HealthCheck("/", interval=0.5), new) == 0.5
    assert pause(HealthCheck("/", interval=9.0), Pulse(well=False)) == 9.0
