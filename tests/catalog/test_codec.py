"""Document ↔ entities: what is read, what is refused in which words, nothing lost on the way."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.catalog import codec
from mesh.catalog.diff import difference
from mesh.catalog.model import (
    Asker,
    EndpointMode,
    Network,
    Node,
    Port,
    Role,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change, Snapshot
from mesh.errors import ConfigError

CONTRACT = """
networks:
  internal: {subnet: 172.32.0.0/24}
services:
  nodejs:
    mode: vip
    networks: {internal: {vip: 172.32.0.2, aliases: [web]}}
    ports: [{published: 80, target: 8080, protocol: tcp, mode: ingress}]
    labels: {mesh.port.80.mode: proxy}
    tasks:
      - {name: nodejs.1.abc, node: swarm01, state: running, addresses: {internal: 172.32.0.3}}
askers:
  - {name: anyone, source: 127.0.0.0/8, networks: [internal]}
"""

EVERYTHING = """
nodes:
  swarm00: {address: 10.10.10.60, role: manager, availability: drain, state: down}
  swarm01:
    return_path: {entry: 10.0.0.3, mac: "02:42:0a:00:00:03", entries: [10.0.0.3, 10.0.0.4], tasks: [10.0.0.9]}
networks:
  internal: {subnet: [172.32.0.0/24, 172.33.0.0/24], internal: true, attachable: true}
  ingress: {subnet: 10.0.0.0/24, ingress: true}
  bare:
services:
  idle:
  web:
    networks: {internal: {vip: 172.33.0.2}, bare: }
    ports: [{published: "80", target: 8080, name: web}, {published: 80, target: 80, protocol: udp}]
    labels: {mesh.enable: true, mesh.port.80.idle_timeout: 30, com.docker.stack.namespace: shop}
    tasks:
      - {name: web.1.a, node: swarm01, container: abc, addresses: {internal: 172.32.0.3}}
      - {name: web.1.b, node: swarm00, slot: 1, hostname: h, state: dead, addresses: {internal: 172.32.0.3}}
  rr:
    mode: dnsrr
    networks: {bare: {aliases: [r]}}
    ports: [{published: 80, target: 80, mode: host}]
containers:
  web.1.a:
    namespace: /var/run/docker/netns/1
    networks:
      internal:
        {address: 172.32.0.3, aliases: [x], address6: "fd00::3", gateway: true, priority: 2, links: {b: c}}
    hostname: h
    service: web
    task: web.1.a
    labels: {a: b}
    running: false
    dns: [1.1.1.1]
askers:
  - {name: one, source: 127.0.0.1, networks: [internal, bare], stack: shop}
"""


def entered(catalogue: codec.Catalogue) -> Snapshot:
    return Snapshot().apply(
        Change(
            nodes=catalogue.nodes,
            networks=catalogue.networks,
            services=catalogue.services,
            containers=catalogue.containers,
            askers=catalogue.askers,
        )
    )


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        codec.parse_text(text, "c.yml")
    return [str(problem).removeprefix("c.yml: ") for problem in caught.value.problems]


def test_the_documented_example_is_read() -> None:
    read = codec.parse_text(CONTRACT, "catalog.yml")
    task = Task("nodejs.1.abc", "nodejs.1.abc", "swarm01", TaskState.RUNNING, {"internal": "172.32.0.3"})
    assert read == codec.Catalogue(
        nodes={"swarm01": Node("swarm01", "swarm01", "")},
        networks={"internal": Network("internal", "internal", ("172.32.0.0/24",))},
        services={
            "nodejs": Service(
                "nodejs",
                "nodejs",
                networks=(ServiceNetwork("internal", "172.32.0.2", ("web",)),),
                ports=(Port(80, 8080),),
                labels={"mesh.port.80.mode": "proxy"},
                tasks=(task,),
            )
        },
        askers=(Asker("anyone", "127.0.0.0/8", ("internal",)),),
    )


@pytest.mark.parametrize("text", [CONTRACT, EVERYTHING, "networks: {}\nservices: {}"])
def test_dump_gives_back_what_was_read(text: str) -> None:
    read = codec.parse_text(text, "c.yml")
    dumped = json.loads(json.dumps(codec.dump(entered(read))))  # it survives JSON too
    assert codec.parse(dumped, "again") == read
    assert not difference(
        entered(read),
        **{k: getattr(read, k) for k in ("nodes", "networks", "services", "containers", "askers")},
    )


def test_labels_become_text_as_docker_has_them() -> None:
    labels = codec.parse_text(EVERYTHING, "c.yml").services["web"].labels
    assert labels["mesh.enable"] == "true"
    assert labels["mesh.port.80.idle_timeout"] == "30"


def test_a_snapshot_from_docker_is_told_by_name_and_by_id_where_names_clash() -> None:
    task = Task("t1", "web.1.t1", "n1", TaskState.RUNNING, {"net1": "10.0.0.3"})
    web = Service("s1", "web", networks=(ServiceNetwork("net1", "10.0.0.2"),), tasks=(task,))
    snapshot = entered(
        codec.Catalogue(
            nodes={"n1": Node("n1", "swarm00", "", Role.MANAGER)},
            networks={
                "net1": Network("net1", "shop"),
                "b1": Network("b1", "bridge"),
                "b2": Network("b2", "bridge"),
            },
            services={"s1": web},
        )
    )
    document = codec.dump(snapshot)
    assert set(document["networks"]) == {"shop", "b1", "b2"}
    assert document["services"]["web"]["networks"] == {"shop": {"vip": "10.0.0.2"}}
    assert document["services"]["web"]["tasks"][0]["node"] == "swarm00"
    assert document["nodes"] == {"swarm00": {"role": "manager"}}
    codec.parse(document, "again")


def test_all_problems_are_told_at_once() -> None:
    text = """
    networks:
      internal: {subnett: 172.32.0.0/24, ingress: maybe}
    service: {}
    services:
      web:
        mode: vipp
        ports: [{published: 0, target: 70000}, {published: true, target: x, protocl: tcp}]
        tasks: [{node: a}]
        labels: {a: [b]}
      db: [1]
    """
    assert sorted(problems(text)) == [
        "networks.internal.ingress: must be true or false, not 'maybe'",
        "networks.internal.subnett: unknown key; did you mean 'subnet'?",
        "service: unknown key; did you mean 'services'?",
        "services.db: must be a mapping, not a list",
        "services.web.labels.a: must be text (quote it), not a list",
        "services.web.mode: must be vip or dnsrr, not 'vipp'",
        "services.web.ports[0].published: must be at least 1, not 0",
        "services.web.ports[0].target: must be at most 65535, not 70000",
        "services.web.ports[1].protocl: unknown key; did you mean 'protocol'?",
        "services.web.ports[1].published: must be a whole number, not the boolean true",
        "services.web.ports[1].target: must be a whole number, not 'x'",
        "services.web.tasks[0].name: is required",
    ]


def test_an_empty_document_lacks_its_two_parts() -> None:
    assert problems("") == ["networks: is required", "services: is required"]


NETWORKS = "networks: {n: {subnet: 10.0.0.0/24}, m: {subnet: 10.0.1.0/24}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "services: {a: {ports: [{published: 80, target: 1}]}, b: {ports: [{published: 80, target: 2}]}}",
            "services.b.ports[0].published: port 80/tcp is published by services 'a' and 'b'",
        ),
        (
            "services: {a: {ports: [{published: 80, target: 1}, {published: 80, target: 2}]}}",
            "services.a.ports[1].published: port 80/tcp is published twice by service 'a'",
        ),
        (
            "services: {a: {networks: {n: {vip: 10.0.1.2}}}}",
            "services.a.networks.n.vip: 10.0.1.2 is outside network 'n' (10.0.0.0/24)",
        ),
        (
            "services: {a: {tasks: [{name: a.1, addresses: {n: 10.0.0.300}}]}}",
            "services.a.tasks[0].addresses.n: '10.0.0.300' is not an IPv4 address",
        ),
        (
            "services: {a: {networks: {n: {vip: 10.0.0.2}}, tasks: [{name: a.1, addresses: {n: 10.0.0.2}}]}}",
            "services.a.tasks[0].addresses.n: 10.0.0.2 on 'n' is already the VIP of service 'a'",
        ),
        (
            "services: {a: {tasks: [{name: a.1}, {name: a.1}]}}",
            "services.a.tasks[1].name: task 'a.1' is already services.a.tasks[0]",
        ),
        (
            "services: {a: {networks: {nn: {}}}}",
            "services.a.networks.nn: unknown network 'nn'; did you mean 'n'?",
        ),
        (
            "services: {a: {mode: dnsrr, networks: {n: {vip: 10.0.0.2}}}}",
            "services.a.networks.n.vip: a dnsrr service has no VIP",
        ),
        (
            "services: {a: {mode: dnsrr, ports: [{published: 1, target: 1}]}}",
            "services.a.ports[0].mode: a dnsrr service can publish in host mode only",
        ),
        (
            "services: {}\naskers: [{name: x, source: nowhere, networks: []}]",
            "askers[0].source: 'nowhere' is not a network in CIDR form",
        ),
        (
            "services: {}\naskers: [{name: x, source: 127.0.0.1/8, networks: []}]",
            "askers[0].source: 127.0.0.1/8 has host bits set",
        ),
        (
            "services: {}\naskers: [{name: x, source: 127.0.0.1, networks: [n, q]}]",
            "askers[0].networks[1]: unknown network 'q'",
        ),
        (
            "nodes: {swarm00: {}}\nservices: {a: {tasks: [{name: a.1, node: swarm0}]}}",
            "services.a.tasks[0].node: unknown node 'swarm0'; did you mean 'swarm00'?",
        ),
        (
            "services: {}\ncontainers: {c: {networks: {q: {address: 1.2.3.4}}}}",
            "containers.c.networks.q: unknown network 'q'",
        ),
    ],
)
def test_what_makes_no_sense_is_named(text: str, expected: str) -> None:
    assert problems(NETWORKS + text) == [expected]


def test_a_bad_subnet_is_told_once_and_not_blamed_on_its_addresses() -> None:
    text = "networks: {n: {subnet: 10.0.0.0/33}}\nservices: {a: {networks: {n: {vip: 10.0.0.2}}}}"
    assert problems(text) == ["networks.n.subnet: '10.0.0.0/33' is not a network in CIDR form"]


def test_the_same_address_may_live_on_two_networks_and_outlive_a_dead_task() -> None:
    codec.parse_text(EVERYTHING, "c.yml")


def test_two_ingress_networks_are_one_too_many() -> None:
    text = "networks: {a: {ingress: true}, b: {ingress: true}}\nservices: {}"
    assert problems(text) == ["networks.b.ingress: 'a' is already the ingress network"]


names = st.text("abcxyz", min_size=1, max_size=4)
states = st.sampled_from(TaskState)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Random well-formed catalogues: addresses and task names are numbered, so that they are unique."""
    networks = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    services = {}
    number = iter(range(2, 250))
    for name in draw(st.lists(names, max_size=4, unique=True)):
        mode = draw(st.sampled_from(EndpointMode))
        on = draw(st.lists(st.sampled_from(networks), unique=True))
        vips = {n: f"10.0.0.{next(number)}" if mode is EndpointMode.VIP else None for n in on}
        tasks = tuple(
            Task(
                f"{name}.{i}", f"{name}.{i}", "node", draw(states), {n: f"10.0.0.{next(number)}" for n in on}
            )
            for i in range(draw(st.integers(0, 3)))
        )
        services[name] = Service(
            name,
            name,
            mode,
            tuple(ServiceNetwork(n, vips[n], ()) for n in on),
            tasks=tasks,
            labels={"k": name},
        )
    return entered(
        codec.Catalogue(
            nodes={"node": Node("node", "node", "")},
            networks={n: Network(n, n, ("10.0.0.0/24",)) for n in networks},
            services=services,
        )
    )


@given(snapshots())
def test_any_snapshot_survives_the_round_trip(snapshot: Snapshot) -> None:
    read = codec.parse(codec.dump(snapshot), "x")
    assert replace(entered(read), version=snapshot.version) == snapshot


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["networks", "services", "tasks", "ports", "vip", "addresses", "source", "a"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(json_values, json_values, json_values)
def test_any_document_is_a_catalogue_or_a_config_error(
    networks: object, services: object, askers: object
) -> None:
    with suppress(ConfigError):
        codec.parse({"networks": networks, "services": services, "askers": askers}, "x")
