"""Which rule drops a client: read from rules as operators, ufw and firewalls write them."""

import pytest

from mesh.kernel.firewall.filter_table import FilterTable, parse, plan_forward, plan_input
from mesh.kernel.firewall.rule_walk import FirstPacket, Obstacle, obstacles

SANDBOX, BRIDGE = "172.18.0.2", "docker_gwbridge"
MARK = 0x10000000
FORWARDED = FirstPacket("tcp", 80, True, SANDBOX, BRIDGE)
LISTENED = FirstPacket("tcp", 81, marks=MARK)

DOCKER = """\
*filter
:INPUT {policy} [0:0]
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
:MESH-FORWARD - [0:0]
:MESH-INPUT - [0:0]
-A INPUT -m mark --mark 0x10000000/0x10000000 -m comment --comment mesh -j MESH-INPUT
{input}
-A FORWARD -d 172.18.0.2/32 -o docker_gwbridge -m conntrack --ctstate DNAT -m comment --comment mesh -j MESH-FORWARD
-A FORWARD -s 172.18.0.2/32 -i docker_gwbridge -m conntrack --ctstate DNAT --ctdir REPLY -m comment --comment mesh -j MESH-FORWARD
-A FORWARD -j DOCKER-USER
{user}
-A DOCKER-USER -j RETURN
-A MESH-FORWARD -m comment --comment mesh -j DOCKER-USER
-A MESH-FORWARD -m comment --comment mesh -j ACCEPT
-A MESH-INPUT -m comment --comment mesh -j MARK --set-xmark 0x0/0x10000000
-A MESH-INPUT -m comment --comment mesh -j DOCKER-USER
COMMIT
"""  # noqa: E501 - as iptables-save prints it


def rules(user: str = "", input_: str = "", policy: str = "ACCEPT") -> FilterTable:
    return parse(DOCKER.format(user=user, input=input_, policy=policy))


def test_the_tables_here_are_as_we_make_them() -> None:
    assert plan_forward(rules(), SANDBOX, BRIDGE) == ""
    assert plan_input(rules(), MARK) == ""
    assert obstacles(rules(), "FORWARD", FORWARDED) == []
    assert obstacles(rules(), "INPUT", LISTENED) == []


SOME = "-A DOCKER-USER ! -s 198.51.100.0/28 -i ens32 -j DROP"
ALL = "-A DOCKER-USER -p tcp -m multiport --dports 80,81 -j REJECT --reject-with icmp-port-unreachable"


@pytest.mark.parametrize(
    ("rule", "everybody"),
    [
        (SOME, False),
        (ALL, True),
        ("-A DOCKER-USER -p tcp -m conntrack --ctorigdstport 80:81 --ctdir ORIGINAL -j DROP", True),
        ("-A DOCKER-USER -m conntrack --ctstate NEW -j DROP", True),
        ("-A DOCKER-USER -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP", True),
        ("-A DOCKER-USER -m limit --limit 5/sec -j DROP", False),
    ],
)
def test_a_rule_of_the_operators_is_named_as_it_is_written(rule: str, everybody: bool) -> None:
    assert obstacles(rules(rule), "FORWARD", FORWARDED) == [Obstacle(rule, everybody)]
    assert obstacles(rules(rule), "INPUT", LISTENED) == [Obstacle(rule, everybody)]


@pytest.mark.parametrize(
    "rule",
    [
        "-A DOCKER-USER -p udp -j DROP",
        "-A DOCKER-USER -p tcp -m tcp --dport 443 -j DROP",
        "-A DOCKER-USER -p tcp -m multiport ! --dports 80,81 -j DROP",
        "-A DOCKER-USER -m conntrack --ctstate INVALID -j DROP",
        "-A DOCKER-USER -i docker0 -j DROP",
        "-A DOCKER-USER -s 127.0.0.0/8 -j DROP",
        "-A DOCKER-USER -i ens32 -j ACCEPT\n-A DOCKER-USER -p tcp -m tcp --dport 22 -j DROP",
    ],
)
def test_rules_that_are_about_something_else_are_not_named(rule: str) -> None:
    assert obstacles(rules(rule), "FORWARD", FORWARDED) == []
    assert obstacles(rules(rule), "INPUT", LISTENED) == []


def test_exceptions_ahead_of_a_drop_leave_some() -> None:
    table = rules("-A DOCKER-USER -s 198.51.100.0/28 -j RETURN\n-A DOCKER-USER -i ens32 -j DROP")
    assert obstacles(table, "FORWARD", FORWARDED) == [Obstacle("-A DOCKER-USER -i ens32 -j DROP", False)]
    table = rules("-A DOCKER-USER -s 198.51.100.0/28 -j RETURN\n-A DOCKER-USER -j DROP")
    assert obstacles(table, "FORWARD", FORWARDED) == [Obstacle("-A DOCKER-USER -j DROP", False)]


UFW = """\
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT"""


def test_an_input_policy_that_closes_a_listener_and_a_rule_that_opens_it() -> None:
    closed = rules(input_=UFW, policy="DROP")
    assert obstacles(closed, "INPUT", LISTENED) == [Obstacle("-P INPUT DROP", True)]
    opened = rules(input_=f"{UFW}\n-A ufw-user-input -p tcp -m tcp --dport 81 -j ACCEPT", policy="DROP")
    assert obstacles(opened, "INPUT", LISTENED) == []
    for_some = rules(input_=f"{UFW}\n-A ufw-user-input -s 10.0.0.0/8 -p tcp -j ACCEPT", policy="DROP")
    assert obstacles(for_some, "INPUT", LISTENED) == [Obstacle("-P INPUT DROP", False)]


def test_chains_without_end_are_given_up() -> None:
    lines = [f":c{n} - [0:0]" for n in range(15)]
    lines += [f"-A c{n} -j c{n + 1}" for n in range(14) for _ in range(4)]
    assert obstacles(rules(input_="\n".join([*lines, "-A INPUT -j c0"])), "INPUT", LISTENED) == []
