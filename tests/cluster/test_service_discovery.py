"""Names as a container sees them: right by the documentation, and equal to Docker's own 127.0.0.11."""

import re

import pytest

from tests.support.swarm import Box, Swarm, eventually

OUR_TTL = 5
DOCKER_TTL = 600


@pytest.fixture
def two_tiers(swarm: Swarm) -> tuple[list[Box], Box]:
    """`nodejs` with two replicas and `busy` on network `internal`; `stranger` on another network."""
    swarm.network("internal", "--subnet", "172.32.0.0/24")
    swarm.network("elsewhere")
    swarm.service("nodejs", "--network", "name=internal,alias=backend", "--replicas", "2")
    swarm.service("roundrobin", "--network", "internal", "--replicas", "2", "--endpoint-mode", "dnsrr")
    swarm.service("stranger", "--network", "elsewhere")
    swarm.service("busy", "--network", "internal", "--constraint", "node.hostname==swarm02")
    (busy,) = swarm.boxes("busy")
    eventually(lambda: len(busy.dig("tasks.nodejs").data) == 2, "both tasks are named")
    eventually(lambda: len(busy.dig("roundrobin").data) == 2, "the dnsrr service's tasks are named")
    return swarm.boxes("nodejs"), busy


def test_names_of_the_walkthrough(swarm: Swarm, two_tiers: tuple[list[Box], Box]) -> None:
    tasks, busy = two_tiers
    addresses = sorted(task.addresses["internal"] for task in tasks)

    vip = busy.dig("nodejs")
    shown = swarm.docker("service", "inspect", "nodejs", "--format", "{{json .Endpoint.VirtualIPs}}")
    assert vip.data == re.findall(r'"Addr":"(172\.32\.0\.\d+)/24"', shown)
    assert vip.answers[0][1] == OUR_TTL, "our TTL, so it was ours that answered"
    assert busy.dig("tasks.nodejs").data == addresses
    for task in tasks:
        assert busy.dig(task.name).data == [task.addresses["internal"]]
        assert busy.dig("-x", task.addresses["internal"]).data == [f"{task.name}.internal."]
    assert busy.dig("external.test").data == ["203.0.113.10"], "forwarded to the node's upstream"
    assert busy.dig("no-such-name.test").status == "NXDOMAIN"
    assert busy.dig("stranger").status == "NXDOMAIN", "a service of another network"
    assert busy.dig("nodejs", "A", "+tcp").data == vip.data


def name_forms(tasks: list[Box], busy: Box) -> list[str]:
    services = ["nodejs", "NodeJS", "nodejs.", "backend", "roundrobin", "busy"]
    every_task = ["tasks.nodejs", "tasks.backend", "tasks.roundrobin", "tasks.busy"]
    containers = [form for box in (busy, *tasks) for form in (box.name, box.id[:12])]
    qualified = [f"{name}.internal" for name in ("nodejs", "backend", "tasks.nodejs", tasks[0].name)]
    unknown = ["stranger", "nodejs.elsewhere", "external.test", "nothing.test"]
    return services + every_task + containers + qualified + unknown


def test_every_name_form_is_answered_as_docker_answers_it(two_tiers: tuple[list[Box], Box]) -> None:
    tasks, busy = two_tiers
    different = {}
    for name in name_forms(tasks, busy):
        for transport in ((), ("+tcp",)):
            ours, theirs = busy.dig(name, "A", *transport), busy.dig_docker(name, "A", *transport)
            if (ours.status, ours.data) != (theirs.status, theirs.data):
                different[name, transport] = (ours, theirs)
    for task in tasks:
        reverse = ".".join(reversed(task.addresses["internal"].split("."))) + ".in-addr.arpa"
        ours, theirs = busy.dig(reverse, "PTR"), busy.dig_docker(reverse, "PTR")
        if ours.data != theirs.data:
            different[reverse, ()] = (ours, theirs)
    assert not different


def test_known_names_of_another_type_are_nodata_not_leaked(two_tiers: tuple[list[Box], Box]) -> None:
    _, busy = two_tiers
    for kind in ("AAAA", "TXT", "HTTPS"):
        reply = busy.dig("nodejs", kind)
        assert (reply.status, reply.data) == ("NOERROR", []), kind


def test_the_vip_balances_from_a_container_with_the_callers_own_address(
    two_tiers: tuple[list[Box], Box],
) -> None:
    tasks, busy = two_tiers
    seen = [busy.fetch("http://nodejs:8080/") for _ in range(4)]
    assert {one["hostname"] for one in seen if one} == {task.id[:12] for task in tasks}
    assert {one["remote"].split(":")[0] for one in seen if one} == {busy.addresses["internal"]}


def test_a_task_reaches_its_own_service_by_vip(two_tiers: tuple[list[Box], Box]) -> None:
    tasks, _ = two_tiers
    seen = [tasks[0].fetch("http://nodejs:8080/") for _ in range(4)]
    assert None not in seen, "also when the VIP leads back to itself"


def test_the_explicit_resolver_knows_its_asker_by_source_address(
    swarm: Swarm, two_tiers: tuple[list[Box], Box]
) -> None:
    _, busy = two_tiers
    format_ = "{{(index .IPAM.Config 0).Gateway}}"
    gateway = swarm.docker("network", "inspect", "docker_gwbridge", "--format", format_, node=busy.node)
    out = busy.inside("dig", f"@{gateway}", "+short", "+tries=1", "nodejs")
    assert out.split() == busy.dig("nodejs").data
    outside = swarm.client("dig", "@10.10.10.62", "+short", "+tries=1", "+time=1", "nodejs", check=False)
    assert "172.32" not in outside, "nobody outside is answered"


def test_mesh_resolve_says_what_a_container_gets_and_why(
    swarm: Swarm, two_tiers: tuple[list[Box], Box]
) -> None:
    _, busy = two_tiers
    told = swarm.mesh(busy.node, "resolve", "nodejs", "--from", busy.name)
    assert [answer["data"] for answer in told["answers"]] == busy.dig("nodejs").data
    assert told["networks"] == ["internal"]
    assert any("internal" in step for step in told["why"])
