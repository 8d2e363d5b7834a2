"""Judgements: what is well, what is not, and that everything that is not comes with a remedy."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from mesh.telemetry import doctor
from mesh.telemetry.doctor import Check, DoctorSettings, Dropped, Passage, PublishedPort, Verdict

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL
TAKEN = PublishedPort("80/tcp", "web", "taken", "cannot listen on 0.0.0.0:80: held by nginx (12)")
FREE = PublishedPort("80/tcp", "web", "kernel")
HELD = PublishedPort("80/tcp", "web", "kernel", listening=True, holder="nginx (12)")


def _dropping(rules: list[Dropped]) -> Passage:
    return Passage(published=True, allowed=True, dropped=rules)


SOME = Dropped(
    "-A DOCKER-USER ! -s 198.51.100.0/28 -i ens32 -j DROP", False, ("80/tcp of web", "81/tcp of old")
)
POLICY = Dropped("-P INPUT DROP", True, ("81/tcp of old",))


@pytest.mark.parametrize(
    ("judge", "verdict", "says"),
    [
        (lambda: doctor.features({"nat": "", "fib": ""}), OK, "all 2"),
        (lambda: doctor.features({"nat": "", "fib": "no such thing"}), FAIL, "fib (no such thing)"),
        (lambda: doctor.ipvs(True), OK, "our rules"),
        (lambda: doctor.ipvs(False), OK, "through the sidecar only"),
        (lambda: doctor.conntrack(10, 100), OK, "10 of 100 entries (10%)"),
        (lambda: doctor.conntrack(75, 100), WARN, "75%"),
        (lambda: doctor.conntrack(95, 100), FAIL, "dropped"),
        (lambda: doctor.conntrack(0, 0), FAIL, "100%"),
        (lambda: doctor.descriptors(65_536), OK, "65536"),
        (lambda: doctor.descriptors(1024), WARN, "1024"),
        (lambda: doctor.unseen("x", "no permission"), WARN, "no permission"),
        # forwarding
        (lambda: doctor.forwarding(DoctorSettings(0)), FAIL, "ip_forward is 0"),
        (lambda: doctor.forwarding(DoctorSettings(1)), OK, "no ingress namespace"),
        (
            lambda: doctor.forwarding(DoctorSettings(1, sandbox_forwarding={"eth0": 1, "eth1": 0})),
            FAIL,
            "off on eth1",
        ),
        (
            lambda: doctor.forwarding(DoctorSettings(1, sandbox_forwarding={"eth0": 1, "eth1": 1})),
            OK,
            "on, on",
        ),
        (lambda: doctor.localhost(DoctorSettings(1)), OK, "no docker_gwbridge"),
        (lambda: doctor.localhost(DoctorSettings(1, route_localnet=1)), OK, "on"),
        (lambda: doctor.localhost(DoctorSettings(1, route_localnet=0)), WARN, "127.0.0.1:PORT"),
        # reverse path filter
        (lambda: doctor.reverse_paths(DoctorSettings(1)), OK, "not strict"),
        (
            lambda: doctor.reverse_paths(DoctorSettings(1, task_rp_filter={"abc": 1, "def": 2})),
            FAIL,
            "strict in abc:",
        ),
        (
            lambda: doctor.reverse_paths(DoctorSettings(1, task_rp_filter={"abc": 2, "def": 0})),
            OK,
            "not strict",
        ),
        (
            lambda: doctor.reverse_paths(DoctorSettings(1, rp_filter={"eth0": 1, "lo": 1, "docker0": 1})),
            OK,
            "eth0 only",
        ),
        (
            lambda: doctor.reverse_paths(DoctorSettings(1, rp_filter={"eth0": 1, "eth1": 1})),
            WARN,
            "eth0, eth1",
        ),
        (lambda: doctor.reverse_paths(DoctorSettings(1, rp_filter={"eth0": 2, "eth1": 2})), OK, "not strict"),
        (lambda: doctor.ways_back(DoctorSettings(1)), OK, "no task here"),
        (lambda: doctor.ways_back(DoctorSettings(1, task_rp_filter={"a": 2})), OK, "prepared in 1"),
        (lambda: doctor.ways_back(DoctorSettings(1, broken_ways=["web.1"])), FAIL, "gone in web.1:"),
        # firewall
        (lambda: doctor.passage(Passage(False)), OK, "no published port"),
        (lambda: doctor.passage(Passage(True, allowed=True)), OK, "lets"),
        (lambda: doctor.passage(Passage(True)), FAIL, "no rule of ours"),
        (lambda: doctor.passage(Passage(True, fault="no iptables")), FAIL, "no iptables"),
        (
            lambda: doctor.passage(_dropping([SOME])),
            WARN,
            f"'{SOME.rule}' keeps some clients",
        ),
        (
            lambda: doctor.passage(replace(_dropping([SOME]), published=False)),
            WARN,
            "from 80/tcp of web, 81/tcp of old",
        ),
        (lambda: doctor.passage(_dropping([replace(SOME, everybody=True)])), WARN, "every"),
        (
            lambda: doctor.passage(_dropping([SOME, POLICY])),
            FAIL,
            "-P INPUT DROP' keeps every",
        ),
        (
            lambda: doctor.passage(_dropping([replace(POLICY, everybody=False)])),
            WARN,
            "some",
        ),
        # MTU and VXLAN
        (lambda: doctor.mtu("eth0", 1500, {"network a": 1450}), OK, "eth0 has 1500, overlays 1450"),
        (lambda: doctor.mtu("eth0", 1500, {}), OK, "eth0 has 1500"),
        (lambda: doctor.mtu("eth0", 1400, {"network a": 1450, "network b": 1350}), FAIL, "takes 1350"),
        (lambda: doctor.vxlan(4789, True, "", True), OK, "kernel listens"),
        (lambda: doctor.vxlan(4789, False, "", True), WARN, "nobody listens"),
        (lambda: doctor.vxlan(4789, False, "", False), OK, "not in use"),
        (lambda: doctor.vxlan(4789, True, "flannel (7)", True), FAIL, "held by flannel (7)"),
        # listeners
        (lambda: doctor.listeners((), False), OK, "no published ports"),
        (lambda: doctor.listeners((FREE,), False), OK, "none on 1"),
        (lambda: doctor.listeners((FREE, TAKEN), False), FAIL, "nginx (12)"),
        (lambda: doctor.listeners((HELD,), False), WARN, "80/tcp of web (nginx (12))"),
        (lambda: doctor.listeners((HELD,), True), WARN, "nginx"),
        (lambda: doctor.listeners((replace(HELD, holder="dockerd (3)"),), True), OK, "none on"),
        (lambda: doctor.listeners((replace(HELD, holder=""),), True), OK, "none on"),
        (lambda: doctor.listeners((replace(HELD, holder=""),), False), WARN, "80/tcp of web: it is not"),
        # upstream resolvers
        (lambda: doctor.resolv_conf("/r", ["10.0.0.1"], []), OK, "10.0.0.1 (/r)"),
        (lambda: doctor.resolv_conf("/r", [], ["1.1.1.1"]), OK, "configured: 1.1.1.1"),
        (lambda: doctor.resolv_conf("/r", [], []), FAIL, "names no server"),
        (lambda: doctor.resolv_conf("/r", ["127.0.0.11"], []), FAIL, "127.0.0.11 only"),
    ],
)
def test_judgement(judge: Callable[[], Check], verdict: Verdict, says: str) -> None:
    check = judge()
    assert (check.verdict, says in check.seen) == (verdict, True), check
    assert bool(check.remedy) == (verdict is not OK)


def test_how_a_port_is_opened_in_the_nodes_firewall_is_in_the_remedy() -> None:
    remedy = doctor.passage(_dropping([SOME, POLICY])).remedy
    for way in ("ufw allow 81/tcp", "--add-port=81/tcp", "iptables -I INPUT -p tcp --dport 81 -j ACCEPT"):
        assert way in remedy


def test_the_mtu_that_would_fit_is_in_the_remedy() -> None:
    check = doctor.mtu("eth0", 1400, {"network a": 1450})
    assert check.remedy.endswith("com.docker.network.driver.mtu=1350")


def test_one_line_names_a_few() -> None:
    many = {f"task{n}": 1 for n in range(20)}
    assert "and 14 more" in doctor.reverse_paths(DoctorSettings(1, task_rp_filter=many)).seen


def test_a_warning_is_no_failure() -> None:
    assert not doctor.failed([doctor.ok("a", ""), doctor.warn("b", "", "x")])
    assert doctor.failed([doctor.ok("a", ""), doctor.fail("b", "", "x")])
