"""Labels into plans: what is understood, and that nothing wrong stops a port from being carried."""

import pytest

from mesh.balance.policies import Endpoint, Policy
from mesh.catalog.model import Network, Port, Protocol, PublishMode, Service, ServiceNetwork, Task, TaskState
from mesh.labels.ports import Carrier, endpoints, plan
from mesh.labels.vips import Locality
from mesh.parsing import parse_duration

HTTP = Port(80, 8080)


def labelled(*ports: Port, labels: dict[str, str]) -> Service:
    return Service("id", "web", ports=ports, labels=labels)


def test_a_port_without_labels_is_carried_by_the_nodes_default() -> None:
    assert plan(labelled(HTTP, labels={})).ports[0].carrier is Carrier.KERNEL
    assert plan(labelled(HTTP, labels={}), Carrier.PROXY).ports[0].carrier is Carrier.PROXY


def test_every_label_is_read() -> None:
    found = plan(
        labelled(
            HTTP,
            labels={
                "mesh.port.80.mode": "proxy",
                "mesh.port.80.policy": "least_conn",
                "mesh.port.80.source_ip": "preserve",
                "mesh.port.80.proxy_protocol": "v2",
                "mesh.port.80.health": "http:/ready",
                "mesh.port.80.connect_timeout": "250ms",
                "mesh.port.80.idle_timeout": "1h30m",
                "mesh.port.80.drain": "10",
                "mesh.port.80.locality": "node",
                "mesh.port.80.trusted": "10.1.0.0/16, 192.168.2.7,fd00::/8",
                "mesh.port.80.slow_start": "1m",
                "mesh.port.80.health_interval": "2s",
            },
        )
    )
    (one,) = found.ports
    assert found.problems == ()
    assert (one.carrier, one.policy, one.source_ip) == (Carrier.PROXY, Policy.LEAST_CONN, "preserve")
    assert (one.proxy_protocol, one.health) == ("v2", "http:/ready")
    assert (one.connect_timeout, one.idle_timeout, one.drain) == (0.25, 5400, 10)
    assert (one.locality, one.slow_start, one.health_interval) == (Locality.NODE, 60, 2)
    assert one.trusted == ("10.1.0.0/16", "192.168.2.7/32", "fd00::/8")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("mesh.port.80.mode", "userland", "not one of kernel, proxy, http"),
        ("mesh.port.80.policy", "fastest", "not one of round_robin"),
        ("mesh.port.80.idle_timeout", "5 minutes", "not a time like 30s"),
        ("mesh.port.80.idle_timeout", "0s", "between 0 and 7 days"),
        ("mesh.port.80.drain", "-3s", "not a time"),
        ("mesh.port.80.health", "maybe", "not tcp, http:/path or off"),
        ("mesh.port.80.health", "http:/a\r\nX-Forged: 1", "not tcp, http:/path or off"),
        ("mesh.port.80.health", "http:/caf\udc80", "not tcp, http:/path or off"),
        ("mesh.port.80.locality", "rack", "not one of any, node"),
        ("mesh.port.80.trusted", "10.0.0.0/8, proxy.example", "'proxy.example' does not appear to be"),
        ("mesh.port.80.trusted", "10.0.0.1/8", "host bits set; none is used"),
        ("mesh.port.80.trusted", "", "none is used"),
        ("mesh.port.80.trusted", ",".join(["10.0.0.1"] * 65), "65 networks are more than 64"),
        ("mesh.port.80.slow_start", "slowly", "not a time like 30s, 5m or 250ms; none is used"),
        ("mesh.port.80.health_interval", "0s", "between 0 and 7 days; 5.0 is used"),
        ("mesh.port.80.nosuch", "1", "unknown option"),
        ("mesh.port.81.mode", "proxy", "no such published port"),
        ("mesh.port.abc.mode", "proxy", "no such published port"),
        ("mesh.enable", "perhaps", "neither true nor false"),
    ],
)
def test_a_bad_label_is_a_named_problem_and_the_port_goes_on(key: str, value: str, says: str) -> None:
    found = plan(labelled(HTTP, labels={key: value}))
    (problem,) = found.problems
    assert (problem.file, problem.key) == ("web", key)
    assert says in problem.message
    assert found.ports[0].carrier in (Carrier.KERNEL, Carrier.PROXY)


def test_what_stays_with_docker() -> None:
    host = Port(90, 90, mode=PublishMode.HOST)
    assert [one.carrier for one in plan(labelled(host, HTTP, labels={})).ports] == [
        Carrier.DOCKER,
        Carrier.KERNEL,
    ]
    disabled = plan(labelled(HTTP, labels={"mesh.enable": "false", "mesh.port.80.mode": "nonsense"}))
    assert [one.carrier for one in disabled.ports] == [Carrier.DOCKER]


def test_udp_is_relayed_where_that_is_asked_for() -> None:
    udp = Port(53, 53, Protocol.UDP)
    assert plan(labelled(udp, labels={})).ports[0].carrier is Carrier.KERNEL
    assert plan(labelled(udp, labels={}), Carrier.PROXY).ports[0].carrier is Carrier.PROXY
    found = plan(labelled(udp, labels={"mesh.port.53.mode": "proxy"}))
    assert (found.ports[0].carrier, found.problems) == (Carrier.PROXY, ())
    assert found.ports[0].idle_timeout == 120.0


def test_datagrams_have_no_proxy_header() -> None:
    udp, tcp = Port(53, 53, Protocol.UDP), Port(53, 53)
    asked = {"mesh.port.53.mode": "proxy", "mesh.port.53.proxy_protocol": "v2"}
    alone = plan(labelled(udp, labels=asked))
    assert alone.ports[0].proxy_protocol == ""
    assert [one.key for one in alone.problems] == ["mesh.port.53.proxy_protocol"]
    both = plan(labelled(udp, tcp, labels=asked))  # it is the TCP port's label
    assert sorted((one.key, one.proxy_protocol) for one in both.ports) == [("53/tcp", "v2"), ("53/udp", "")]
    assert both.problems == ()


def test_sctp_is_carried_by_the_kernel_and_says_so_only_when_asked_otherwise() -> None:
    sctp = Port(53, 53, Protocol.SCTP)
    assert plan(labelled(sctp, labels={}), Carrier.PROXY).problems == ()
    found = plan(labelled(sctp, labels={"mesh.port.53.mode": "proxy"}))
    assert found.ports[0].carrier is Carrier.KERNEL
    assert "sctp cannot be relayed" in found.problems[0].message


def test_a_port_published_twice_counts_once() -> None:
    found = plan(labelled(HTTP, Port(80, 9090), Port(0, 5), labels={}))
    assert [one.port for one in found.ports] == [HTTP]
    assert "published twice" in found.problems[0].message


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1m30s", 90), ("1.5s", 1.5), ("7", 7)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5x", "1s ", "-1s", "1e3s", "٣s", "999h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_duration(text)


def test_endpoints_are_serving_tasks_on_the_ingress_network() -> None:
    tasks = (
        Task("b", "b", "n", TaskState.RUNNING, {"in": "10.0.0.9", "web": "10.1.0.9"}),
        Task("a", "a", "n", TaskState.RUNNING, {"in": "10.0.0.8"}),
        Task("c", "c", "n", TaskState.LEAVING, {"in": "10.0.0.7"}),
        Task("d", "d", "n", TaskState.RUNNING, {"web": "10.1.0.6"}),
    )
    web = Service("id", "web", networks=(ServiceNetwork("web"),), ports=(HTTP,), tasks=tasks)
    ingress = Network("in", "ingress", ingress=True)
    on_ingress = (Endpoint("10.0.0.8", 8080, "a"), Endpoint("10.0.0.9", 8080, "b"))
    assert endpoints(web, HTTP, ingress) == on_ingress
    assert [one.port for one in endpoints(web, HTTP, ingress, as_published=True)] == [80, 80]
    assert [str(one) for one in endpoints(web, HTTP, None)] == ["10.1.0.6:8080", "10.1.0.9:8080"]
