"""Where our rules go in the filter table, and that what is right is left alone."""

import pytest

from mesh.kernel.firewall.filter_table import (
    parse,
    plan_forward,
    plan_input,
    plan_without_forward,
    plan_without_input,
    removals,
)

SANDBOX, BRIDGE = "172.18.0.2", "docker_gwbridge"
THERE = (
    "-d 172.18.0.2/32 -o docker_gwbridge -m conntrack --ctstate DNAT "
    "-m comment --comment mesh -j MESH-FORWARD"
)
BACK = (
    "-s 172.18.0.2/32 -i docker_gwbridge -m conntrack --ctstate DNAT --ctdir REPLY "
    "-m comment --comment mesh -j MESH-FORWARD"
)
BODY = """\
:MESH-FORWARD - [0:0]
-A MESH-FORWARD -m comment --comment mesh -j DOCKER-USER
-A MESH-FORWARD -m comment --comment mesh -j ACCEPT
"""


def table(*lines: str) -> str:
    return "\n".join(
        ["*filter", ":FORWARD DROP [0:0]", ":INPUT ACCEPT [0:0]", ":DOCKER-USER - [0:0]", *lines, "COMMIT"]
    )


def planned(*lines: str) -> list[str]:
    return [
        line for line in plan_forward(parse(table(*lines)), SANDBOX, BRIDGE).splitlines() if line[0] == "-"
    ]


def test_ours_come_directly_ahead_of_dockers_jump_and_behind_what_the_operator_put_there() -> None:
    assert planned(
        "-A FORWARD -s 10.9.9.9/32 -j DROP", "-A FORWARD -j DOCKER-USER", "-A FORWARD -j DOCKER"
    ) == [
        "-A MESH-FORWARD -m comment --comment mesh -j DOCKER-USER",
        "-A MESH-FORWARD -m comment --comment mesh -j ACCEPT",
        f"-I FORWARD 2 {THERE}",
        f"-I FORWARD 3 {BACK}",
    ]


def test_without_dockers_jump_ours_come_after_all_that_is_there() -> None:
    assert planned("-A FORWARD -s 10.9.9.9/32 -j DROP")[-2:] == [
        f"-I FORWARD 2 {THERE}",
        f"-I FORWARD 3 {BACK}",
    ]


@pytest.mark.parametrize("jump", [["-A FORWARD -j DOCKER-USER"], []])
def test_what_is_right_is_left_alone(jump: list[str]) -> None:
    right = [*BODY.splitlines(), f"-A FORWARD {THERE}", f"-A FORWARD {BACK}", *jump]
    assert planned(*right) == []
    other_order = "-A FORWARD -o docker_gwbridge -d 172.18.0.2/32" + THERE.partition("docker_gwbridge")[2]
    assert planned(*[other_order if line == f"-A FORWARD {THERE}" else line for line in right]) == []


def test_what_stands_elsewhere_or_is_of_an_older_version_is_replaced() -> None:
    older = (
        "-d 172.18.0.2/32 -o docker_gwbridge -m conntrack --ctstate DNAT -m comment --comment mesh -j ACCEPT"
    )
    moved = THERE.replace("172.18.0.2", "172.18.0.3")
    changes = planned(
        *BODY.splitlines(),
        "-A FORWARD -j DOCKER-USER",
        f"-A FORWARD {moved}",
        f"-A DOCKER-USER {older}",
        '-A DOCKER-USER -m comment --comment "not mesh" -j ACCEPT',
    )
    assert changes == [
        f"-D FORWARD {moved}",
        f"-I FORWARD 1 {THERE}",
        f"-I FORWARD 2 {BACK}",
        f"-D DOCKER-USER {older}",
    ]


def test_listeners_are_asked_about_first_of_all() -> None:
    script = plan_input(parse(table("-A INPUT -j ACCEPT")), 0x10000000)
    jump = "-m mark --mark 0x10000000/0x10000000 -m comment --comment mesh -j MESH-INPUT"
    assert f"-I INPUT 1 {jump}\n" in script
    made = [line for line in script.splitlines() if line.startswith(("-A MESH", ":MESH"))]
    assert plan_input(parse(table(*made, f"-A INPUT {jump}", "-A INPUT -j ACCEPT")), 0x10000000) == ""
    displaced = plan_input(parse(table(*made, "-A INPUT -j ACCEPT", f"-A INPUT {jump}")), 0x10000000)
    assert displaced.splitlines()[1:-1] == [f"-D INPUT {jump}", f"-I INPUT 1 {jump}"]
    gone = plan_without_input(parse(table(*made, f"-A INPUT {jump}")))
    assert gone.splitlines()[1:-1] == [f"-D INPUT {jump}", "-F MESH-INPUT", "-X MESH-INPUT"]
    assert removals(gone) == 1


def test_nothing_is_taken_out_where_nothing_is() -> None:
    assert plan_without_forward(parse(table("-A FORWARD -j DOCKER-USER"))) == ""
    assert plan_without_input(parse("")) == ""


def test_a_line_that_cannot_be_read_is_left_out() -> None:
    found = parse(table('-A DOCKER-USER -m comment --comment "open', "-A DOCKER-USER -j DROP"))
    assert [rule.target for rule in found.rules["DOCKER-USER"]] == ["DROP"]
