"""The nftables text, whole: for a container, the host, the ingress namespace, and for a change."""

from dataclasses import replace

from mesh.balance.hash_slots import NOBODY, Choice, SlotDraw
from mesh.catalog.model import (
    Attachment,
    Container,
    EndpointMode,
    Network,
    Protocol,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change, Snapshot
from mesh.kernel.counters import counting_update
from mesh.kernel.netfilter.transaction import as_text
from mesh.kernel.rulesets import (
    DnsPorts,
    HostPath,
    PortTarget,
    container_rules,
    container_vips,
    host_rules,
    host_update,
    ingress_rules,
    ingress_update,
    service_vips,
    vips_update,
)

CONTAINER = """\
add table ip mesh
delete table ip mesh
table ip mesh {
  set alive { typeof ip protocol; flags timeout; timeout 3s; }
  map vips { typeof ip daddr : verdict; }
  set empty { typeof ip daddr; }
  chain output {
    type nat hook output priority -101; policy accept;
    ip protocol @alive ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40001
    ip protocol @alive ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40002
    ip daddr vmap @vips
  }
  chain refuse {
    type filter hook output priority 0; policy accept;
    ip daddr @empty jump refusal
  }
  chain refusal {
    ip protocol tcp reject with tcp reset
    reject with icmp type port-unreachable
  }
}
add element ip mesh alive { icmp, tcp, udp, sctp }
add element ip mesh empty { 10.0.1.2 }
add chain ip mesh vip_10_0_1_4
add map ip mesh vip_10_0_1_4 { typeof numgen inc mod 2 : ip daddr; }
add element ip mesh vip_10_0_1_4 { 0 : 10.0.1.9, 1 : 10.0.1.10 }
add rule ip mesh vip_10_0_1_4 dnat to numgen inc mod 2 map @vip_10_0_1_4
add element ip mesh vips { 10.0.1.4 : goto vip_10_0_1_4 }
add chain ip mesh vip_10_0_1_20
add rule ip mesh vip_10_0_1_20 dnat to 10.0.1.21
add element ip mesh vips { 10.0.1.20 : goto vip_10_0_1_20 }
"""

HOST = """\
add table ip mesh
delete table ip mesh
table ip mesh {
  set alive { typeof ip protocol; flags timeout; timeout 3s; }
  set published { typeof ip protocol . th dport; }
  set relayed { typeof ip protocol . th dport; }
  map redirected { typeof tcp dport : tcp dport; }
  chain prerouting {
    type nat hook prerouting priority -101; policy accept;
    ip protocol @alive fib daddr type local jump lead
  }
  chain output {
    type nat hook output priority -101; policy accept;
    ip protocol @alive fib daddr type local jump lead
  }
  chain lead {
    ip protocol . th dport @published dnat to 172.18.0.2
    ip protocol tcp redirect to :tcp dport map @redirected
  }
  chain postrouting {
    type nat hook postrouting priority 99; policy accept;
    oifname "docker_gwbridge" ip daddr 172.18.0.2 ct status dnat fib saddr type local masquerade
    oifname "docker_gwbridge" ip daddr 172.18.0.2 ct status dnat ip saddr 172.18.0.0/16 masquerade
  }
}
add element ip mesh alive { icmp, tcp, udp, sctp }
add element ip mesh published { udp . 53 }
add element ip mesh published { tcp . 80 }
add element ip mesh redirected { 81 : 9000 }
"""

INGRESS = """\
add table ip mesh
delete table ip mesh
table ip mesh {
  set alive { typeof ip protocol; flags timeout; timeout 3s; }
  map ports { typeof ip protocol . th dport : verdict; }
  set kept { typeof ip daddr; }
  set begun { typeof ip protocol . th dport; counter; }
  set refused { typeof ip protocol . th dport; counter; }
  set arrived { typeof ip protocol . th dport; counter; }
  set answered { typeof ip protocol . th sport; counter; }
  chain prerouting {
    type nat hook prerouting priority -101; policy accept;
    ip daddr 172.18.0.2 ip protocol . th dport @begun
    ip daddr 172.18.0.2 ip protocol . th dport vmap @ports
    ip daddr 172.18.0.2 ip protocol . th dport @refused
  }
  chain postrouting {
    type nat hook postrouting priority 99; policy accept;
    oifname "eth0" ct status dnat ct mark 0x6d65ffff masquerade
    oifname "eth0" ct status dnat ip daddr != @kept masquerade
  }
  chain arriving {
    type filter hook prerouting priority -300; policy accept;
    ip daddr 172.18.0.2 ip protocol . th dport @arrived
  }
  chain answering {
    type filter hook postrouting priority 300; policy accept;
    ip saddr 172.18.0.2 ip protocol . th sport @answered
  }
}
add element ip mesh alive { icmp, tcp, udp, sctp }
COUNTERS
add chain ip mesh udp_53
add rule ip mesh udp_53 ip protocol udp dnat to 10.0.0.9:5353
add element ip mesh ports { udp . 53 : goto udp_53 }
add chain ip mesh tcp_80
add map ip mesh tcp_80 { typeof numgen inc mod 2 : ip daddr; }
add element ip mesh tcp_80 { 0 : 10.0.0.7, 1 : 10.0.0.8 }
add rule ip mesh tcp_80 ip protocol tcp dnat to numgen random mod 2 map @tcp_80:8080
add element ip mesh ports { tcp . 80 : goto tcp_80 }
"""


def some_ports(*keys: str) -> dict[str, PortTarget]:
    parts = ((key, *key.split("/")) for key in keys)
    return {key: PortTarget(int(number), Protocol(protocol), 8080) for key, number, protocol in parts}


def to(*addresses: str) -> Choice:
    return Choice(addresses)


def task(id_: str, state: TaskState = TaskState.RUNNING, **addresses: str) -> Task:
    return Task(id_, id_, "node", state, addresses)


def service(id_: str, *tasks: Task, labels: dict[str, str] | None = None, **vips: str | None) -> Service:
    networks = tuple(ServiceNetwork(network, vip) for network, vip in vips.items())
    return Service(id_, id_, networks=networks, labels=labels or {}, tasks=tasks)


BOX = Container("c", "c", "/netns/c", attachments=(Attachment("n1", "10.0.1.9"),))


def test_a_container() -> None:
    vips = {"10.0.1.20": to("10.0.1.21"), "10.0.1.4": to("10.0.1.9", "10.0.1.10"), "10.0.1.2": NOBODY}
    assert container_rules(vips, DnsPorts(40001, 40002)) == CONTAINER


def test_with_ipvs_every_match_waits_for_the_living() -> None:
    text = container_rules({}, None, ipvs=True)
    assert "    ip protocol @alive ip daddr vmap @vips\n" in text
    assert "    ip protocol @alive ip daddr @empty jump refusal\n" in text
    assert "127.0.0.11" not in text


def test_the_host() -> None:
    text = host_rules(HostPath("172.18.0.2"), some_ports("80/tcp", "53/udp"), {81: 9000}, ipvs=True)
    assert sorted(text.splitlines()) == sorted(HOST.splitlines())
    ungated = host_rules(HostPath("172.18.0.2"), {}, {})
    assert "    fib daddr type local jump lead\n" in ungated
    orphaned = "    ip protocol != @alive ip protocol . th dport @relayed dnat to 172.18.0.2\n"
    assert orphaned in ungated
    assert orphaned not in text  # there Docker's IPVS has them


def test_what_the_relay_gets_and_answers_by_udp_is_not_tracked() -> None:
    text = host_rules(HostPath("172.18.0.2"), {}, {})
    to_relay = "    ip protocol udp ip protocol @alive ip protocol . th dport @relayed fib daddr type local"
    assert text.count(f"{to_relay} notrack\n") == 2
    assert "    ip protocol udp ip protocol . th sport @relayed notrack\n" in text
    assert text.count("priority -300") == 2
    assert "notrack" not in host_rules(HostPath("172.18.0.2"), {}, {}, ipvs=True)


def test_the_ingress_namespace() -> None:
    ports = {
        "80/tcp": PortTarget(80, Protocol.TCP, 8080, Choice(("10.0.0.7", "10.0.0.8"), SlotDraw.RANDOM)),
        "53/udp": PortTarget(53, Protocol.UDP, 5353, to("10.0.0.9")),
        "81/tcp": PortTarget(81, Protocol.TCP, 8080),  # no task: no element, so the packet is refused
    }
    counters = as_text(counting_update("mesh", (), ports))
    assert ingress_rules(ports, "172.18.0.2", "eth0") == INGRESS.replace("COUNTERS\n", counters)


def test_a_changed_task_touches_one_chain() -> None:
    before = {"10.0.1.4": to("10.0.1.9"), "10.0.1.5": to("10.0.1.11")}
    after = before | {"10.0.1.4": to("10.0.1.9", "10.0.1.10")}
    assert vips_update(before, before) == ()
    assert as_text(vips_update(before, after)) == (
        "flush chain ip mesh vip_10_0_1_4\n"
        "add map ip mesh vip_10_0_1_4 { typeof numgen inc mod 2 : ip daddr; }\n"
        "add element ip mesh vip_10_0_1_4 { 0 : 10.0.1.9, 1 : 10.0.1.10 }\n"
        "add rule ip mesh vip_10_0_1_4 dnat to numgen inc mod 2 map @vip_10_0_1_4\n"
    )
    assert as_text(vips_update(after, after | {"10.0.1.4": to("10.0.1.9", "10.0.1.12")})) == (
        "delete element ip mesh vip_10_0_1_4 { 1 }\nadd element ip mesh vip_10_0_1_4 { 1 : 10.0.1.12 }\n"
    )
    assert as_text(vips_update(after, {"10.0.1.5": to("10.0.1.11")})) == (
        "delete element ip mesh vips { 10.0.1.4 }\n"
        "flush chain ip mesh vip_10_0_1_4\n"
        "delete map ip mesh vip_10_0_1_4\n"
        "delete chain ip mesh vip_10_0_1_4\n"
    )


def test_a_changed_port_touches_one_element() -> None:
    one = PortTarget(80, Protocol.TCP, 8080, to("10.0.0.7"))
    none = PortTarget(80, Protocol.TCP, 8080)
    assert ingress_update({"80/tcp": none}, {}) == counting_update("mesh", ["80/tcp"], ())
    assert as_text(ingress_update({"80/tcp": one}, {"80/tcp": none})) == (
        "delete element ip mesh ports { tcp . 80 }\nflush chain ip mesh tcp_80\ndelete chain ip mesh tcp_80\n"
    )
    masqueraded = PortTarget(80, Protocol.TCP, 8080, to("10.0.0.7"), masqueraded=True)
    assert as_text(ingress_update({"80/tcp": one}, {"80/tcp": masqueraded}, ["10.0.0.7"], ["10.0.0.8"])) == (
        "flush chain ip mesh tcp_80\n"
        "add rule ip mesh tcp_80 ip protocol tcp ct mark set 0x6d65ffff dnat to 10.0.0.7:8080\n"
        "delete element ip mesh kept { 10.0.0.7 }\n"
        "add element ip mesh kept { 10.0.0.8 }\n"
    )
    relayed = {"80/tcp": replace(one, relayed=True)}
    assert as_text(host_update({"80/tcp": one}, relayed, {}, {})) == (
        "delete element ip mesh published { tcp . 80 }\nadd element ip mesh relayed { tcp . 80 }\n"
    )
    assert as_text(host_update(some_ports("80/tcp"), some_ports("81/tcp"), {5: 6}, {5: 7})) == (
        "delete element ip mesh published { tcp . 80 }\n"
        "add element ip mesh published { tcp . 81 }\n"
        "delete element ip mesh redirected { 5 }\n"
        "add element ip mesh redirected { 5 : 7 }\n"
    )


def test_virtual_ips_are_of_shared_networks_and_serving_tasks_only() -> None:
    web = service(
        "web",
        task("1", n1="10.0.1.10", n2="10.0.2.10"),
        task("2", TaskState.LEAVING, n1="10.0.1.11"),
        task("3", TaskState.STARTING, n1="10.0.1.12"),
        task("4", n1="10.0.1.9"),
        n1="10.0.1.4",
        n2="10.0.2.4",
    )
    assert service_vips(BOX, web) == {"10.0.1.4": to("10.0.1.9", "10.0.1.10")}


def test_a_virtual_ips_labels() -> None:
    labels = {"mesh.vip.policy": "random", "mesh.vip.locality": "node"}
    near, far = task("1", n1="10.0.1.10"), replace(task("2", n1="10.0.1.11"), node="other")
    web = service("web", near, far, labels=labels, n1="10.0.1.4")
    assert service_vips(BOX, web, "other") == {"10.0.1.4": Choice(("10.0.1.11",), SlotDraw.RANDOM)}
    both = Choice(("10.0.1.10", "10.0.1.11"), SlotDraw.RANDOM)
    assert service_vips(BOX, web, "third") == {"10.0.1.4": both}


def test_what_has_no_virtual_ip_of_ours() -> None:
    dnsrr = Service("d", "d", EndpointMode.DNSRR, (ServiceNetwork("n1", None),))
    left_to_docker = service("x", labels={"mesh.enable": "false"}, n1="10.0.1.4")
    assert [service_vips(BOX, one) for one in (dnsrr, left_to_docker, None)] == [{}, {}, {}]


def test_nothing_but_an_address_gets_into_the_text() -> None:
    odd = service("odd", task("1", n1="10.0.0.1; flush ruleset"), task("2", n1="fd00::1"), n1="10.0.1.4")
    assert service_vips(BOX, odd) == {"10.0.1.4": NOBODY}
    assert service_vips(BOX, service("odd", n1="}")) == {}


def test_a_container_reaches_the_services_of_its_networks() -> None:
    services = {
        one.id: one
        for one in (service("a", n1="10.0.1.4"), service("b", n2="10.0.2.4"), service("c", n1="10.0.1.5"))
    }
    snapshot = Snapshot().apply(Change(services=services, networks={"n1": Network("n1", "n1")}))
    assert container_vips(BOX, snapshot) == {"a": {"10.0.1.4": NOBODY}, "c": {"10.0.1.5": NOBODY}}
