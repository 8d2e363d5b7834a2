"""What labels say about names, and what is said of bad ones."""

import pytest

from mesh.catalog.model import Protocol, Service
from mesh.labels.dns import labelled_ports, problems, ttl_of


def service(**labels: str) -> Service:
    return Service("s", "web", labels={f"mesh.dns.{key}": value for key, value in labels.items()})


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), (" 30s ", 30), ("5m", 300), ("1h30m", 5400), ("0", 0), ("24h", 86_400)]
)
def test_a_ttl(text: str, seconds: int) -> None:
    assert ttl_of(service(ttl=text)) == seconds
    assert problems(service(ttl=text)) == ()


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5s", "250ms", "25h", "8d", "0s"])
def test_a_bad_ttl_is_named_and_does_not_count(text: str) -> None:
    assert ttl_of(service(ttl=text)) is None
    (problem,) = problems(service(ttl=text))
    assert (problem.file, problem.key) == ("web", "mesh.dns.ttl")
    assert problem.message.endswith("; dns.ttl is used")


def test_no_ttl() -> None:
    assert ttl_of(Service("s", "web")) is None


def test_ports() -> None:
    one = Service("s", "dns", labels={"mesh.dns.srv.domain": "53, 53/udp,5353/udp"})
    assert labelled_ports(one, "domain", "udp") == (53, 5353)
    assert labelled_ports(one, "domain", Protocol.TCP) == (53,)
    assert labelled_ports(one, "http", "tcp") == ()
    assert problems(one) == ()


@pytest.mark.parametrize("text", ["", "http", "0", "65536", "80/quic", "80,", "080", "80-81"])
def test_bad_ports_are_named_and_do_not_count(text: str) -> None:
    one = Service("s", "web", labels={"mesh.dns.srv.http": text})
    assert labelled_ports(one, "http", "tcp") == ()
    (problem,) = problems(one)
    assert problem.message.endswith("is not a port like 8080 or 53/udp; ignored")


@pytest.mark.parametrize("name", ["", "HTTP", "_http", "a.b", "-x", "x-", "x" * 63])
def test_names_that_ports_cannot_have(name: str) -> None:
    (problem,) = problems(Service("s", "web", labels={f"mesh.dns.srv.{name}": "80"}))
    assert "is not a name" in problem.message


def test_a_service_left_to_docker_has_no_problems() -> None:
    assert problems(Service("s", "web", labels={"mesh.enable": "false", "mesh.dns.ttl": "x"})) == ()
