"""The manager API's JSON: what each field of an entity is read from, and what is left out."""

from typing import Any

import pytest

from mesh.catalog.model import EndpointMode, PublishMode, Role, ServiceNetwork, TaskState
from mesh.discovery.swarm_json import SwarmReader, cluster
from tests.support import docker_fixtures as docker
from tests.support.docker_fixtures import BACKEND, INGRESS, MANAGER, NETWORKS, NODES, WORKER


def read(services: list[Any], tasks: list[Any] | None = None, nodes: list[Any] = NODES) -> Any:
    return cluster(nodes, NETWORKS, services, tasks or [])


def test_nodes_and_networks() -> None:
    view = read([])
    assert view.nodes[MANAGER].role is Role.MANAGER
    assert (view.nodes[WORKER].name, view.nodes[WORKER].address) == ("swarm01", "192.168.2.61")
    assert set(view.networks) == {INGRESS, BACKEND}  # local ones are every node's own matter
    assert view.networks[INGRESS].ingress
    assert view.networks[BACKEND].attachable
    assert view.networks[BACKEND].subnets == ("10.0.8.0/24",)


def test_a_service_of_a_stack() -> None:
    web = read([docker.WEB], docker.WEB_TASKS).services["webservice"]
    assert (web.name, web.mode, web.stack) == ("shop_web", EndpointMode.VIP, "shop")
    assert web.networks == (ServiceNetwork(BACKEND, "10.0.8.2", ("web",)),)  # names mean nothing on ingress
    assert [(p.published, p.target, p.mode) for p in web.ports] == [
        (80, 8080, PublishMode.INGRESS),
        (9000, 9000, PublishMode.HOST),
    ]
    assert [t.name for t in web.tasks] == [f"shop_web.{slot}.webtask{slot}" for slot in (1, 2, 3)]
    assert web.tasks[0].addresses == {INGRESS: "10.0.0.41", BACKEND: "10.0.8.11"}
    assert web.tasks[0].container == "webtask1-container"


def test_dnsrr_is_in_the_spec_alone() -> None:
    service = docker.dnsrr_service("d", "db", [{"Target": BACKEND}])
    db = read([service]).services["d"]
    assert (db.mode, db.networks) == (EndpointMode.DNSRR, (ServiceNetwork(BACKEND),))


def test_a_vip_without_address_is_none() -> None:
    """As on the host network, which Swarm lists as if it allocated there."""
    service = docker.service("s", "agent", vips={"hostnet": ""}, networks=[{"Target": "hostnet"}])
    assert read([service]).services["s"].networks == (ServiceNetwork("hostnet"),)


def test_a_vip_of_a_network_that_the_service_left_is_dropped() -> None:
    service = docker.service("s", "web", vips={"left": "10.9.0.2/24"}, networks=[{"Target": BACKEND}])
    assert read([service]).services["s"].networks == (ServiceNetwork(BACKEND),)


@pytest.mark.parametrize("target", [BACKEND, "shop_backend"])
def test_a_network_may_be_called_by_id_or_name(target: str) -> None:
    service = docker.service("s", "web", vips={BACKEND: "10.0.8.9/24"}, networks=[{"Target": target}])
    assert read([service]).services["s"].vip(BACKEND) == "10.0.8.9"


def test_networks_of_the_old_place_in_the_spec() -> None:
    service = docker.service("s", "web", vips={BACKEND: "10.0.8.9/24"})
    service["Spec"]["Networks"] = [{"Target": BACKEND, "Aliases": ["old"]}]
    assert read([service]).services["s"].networks == (ServiceNetwork(BACKEND, "10.0.8.9", ("old",)),)


def test_a_task_of_a_global_service_is_named_by_its_node() -> None:
    one = docker.task("t1", "s", WORKER, hostname="{{.Node.Hostname}}")
    found = read([docker.service("s", "agent")], [one]).services["s"].tasks[0]
    assert (found.name, found.slot, found.hostname) == (f"agent.{WORKER}.t1", 0, "swarm01")


def test_a_literal_hostname_is_known() -> None:
    one = docker.task("t1", "s", WORKER, slot=1, hostname="db-primary")
    assert read([docker.service("s", "db")], [one]).services["s"].tasks[0].hostname == "db-primary"


def test_a_port_may_have_a_name() -> None:
    ports = [docker.port(80, 8080) | {"Name": "web"}, docker.port(53, 53, "udp")]
    found = read([docker.service("s", "web", ports=ports)]).services["s"].ports
    assert [(port.target, port.name) for port in found] == [(8080, "web"), (53, "")]


def test_ipv4_of_two_families() -> None:
    one = docker.task("t1", "s", WORKER, slot=1)
    one["NetworksAttachments"] = [
        {"Network": {"ID": BACKEND}, "Addresses": ["fd00::5/64", "10.0.8.5/24"]},
        {"Network": {"ID": "host"}},
    ]
    assert read([docker.service("s", "web")], [one]).services["s"].tasks[0].addresses == {BACKEND: "10.0.8.5"}


STATES = [
    ("running", "running", TaskState.RUNNING),
    ("starting", "running", TaskState.STARTING),  # its health check has not passed yet
    ("preparing", "running", TaskState.STARTING),
    ("pending", "running", TaskState.STARTING),
    ("ready", "ready", TaskState.STARTING),  # the next one of a rolling update
    ("running", "shutdown", TaskState.LEAVING),
    ("running", "remove", TaskState.LEAVING),
    ("starting", "shutdown", TaskState.LEAVING),
    ("complete", "shutdown", None),
    ("shutdown", "shutdown", None),
    ("failed", "running", None),
    ("rejected", "running", None),
    ("orphaned", "shutdown", None),
    ("remove", "remove", None),
]


@pytest.mark.parametrize(("state", "desired", "expected"), STATES)
def test_states(state: str, desired: str, expected: TaskState | None) -> None:
    one = docker.task("t1", "s", WORKER, slot=1, state=state, desired=desired)
    tasks = read([docker.service("s", "web")], [one]).services["s"].tasks
    assert [t.state for t in tasks] == ([] if expected is None else [expected])


def test_tasks_of_a_node_that_is_down_are_dead() -> None:
    down = [docker.node(WORKER, "swarm01", "192.168.2.61", state="down")]
    one = docker.task("t1", "s", WORKER, slot=1)
    assert read([docker.service("s", "web")], [one], down).services["s"].tasks == ()


class TestReadingAgain:
    """Unchanged services are the same objects: comparing two views of a large cluster is then cheap."""

    def test_only_what_changed_is_read_anew(self) -> None:
        reader = SwarmReader()
        services = [docker.WEB, docker.service("s", "db")]
        first = reader.read(NODES, NETWORKS, services, docker.WEB_TASKS).services
        moved = [*docker.WEB_TASKS[:2], {**docker.WEB_TASKS[2], "Version": {"Index": 31}}]
        second = reader.read(NODES, NETWORKS, services, moved).services
        assert second["s"] is first["s"]
        assert second["webservice"] is not first["webservice"]

    def test_a_changed_service_is_read_anew(self) -> None:
        reader = SwarmReader()
        reader.read(NODES, NETWORKS, [docker.service("s", "db", index=1)], [])
        changed = docker.service("s", "db", index=2, labels={"mesh.enable": "false"})
        assert reader.read(NODES, NETWORKS, [changed], []).services["s"].labels == {"mesh.enable": "false"}

    def test_a_node_that_goes_down_takes_its_tasks_along(self) -> None:
        reader = SwarmReader()
        reader.read(NODES, NETWORKS, [docker.WEB], docker.WEB_TASKS)
        nodes = [*NODES[:2], docker.node(docker.OTHER, "swarm02", "192.168.2.62", state="down")]
        web = reader.read(nodes, NETWORKS, [docker.WEB], docker.WEB_TASKS).services["webservice"]
        assert [t.slot for t in web.tasks] == [1, 2]

    def test_a_removed_service_is_forgotten(self) -> None:
        reader = SwarmReader()
        reader.read(NODES, NETWORKS, [docker.WEB], docker.WEB_TASKS)
        assert reader.read(NODES, NETWORKS, [], []).services == {}
