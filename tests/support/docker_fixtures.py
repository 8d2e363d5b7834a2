"""Docker's JSON as engines 20.10 and 26.1 send it, cut down to what discovery may look at.

The shapes were taken from real engines: what 20.10 leaves out (a dnsrr service's Endpoint.Spec), fills with
"<nil>" or repeats is kept as it came.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

INGRESS, BACKEND, GWBRIDGE = "ingress0000000000000000id", "backend0000000000000000id", "gwbridge" + "0" * 56
MANAGER, WORKER, OTHER = "managernode00000000000000", "workernode000000000000000", "othernode0000000000000000"


def node(id_: str, name: str, address: str, role: str = "worker", **more: Any) -> Json:
    return {
        "ID": id_,
        "Version": {"Index": more.get("index", 10)},
        "Spec": {"Labels": {}, "Role": role, "Availability": more.get("availability", "active")},
        "Description": {"Hostname": name, "Engine": {"EngineVersion": "20.10.24+dfsg1"}},
        "Status": {"State": more.get("state", "ready"), "Addr": address},
    }


NODES = [
    node(MANAGER, "swarm00", "192.168.2.60", "manager"),
    node(WORKER, "swarm01", "192.168.2.61"),
    node(OTHER, "swarm02", "192.168.2.62"),
]


def network(id_: str, name: str, subnet: str, scope: str = "swarm", **more: Any) -> Json:
    return {
        "Name": name,
        "Id": id_,
        "Created": "2026-11-23T01:15:42.215708759Z",
        "Scope": scope,
        "Driver": more.get("driver", "overlay" if scope == "swarm" else "bridge"),
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": [{"Subnet": subnet}]},
        "Internal": more.get("internal", False),
        "Attachable": more.get("attachable", False),
        "Ingress": more.get("ingress", False),
        "ConfigFrom": {"Network": ""},
        "Containers": more.get("containers", {}),
        "Options": {},
        "Labels": None,
    }


NETWORKS = [
    network(INGRESS, "ingress", "10.0.0.0/24", ingress=True),
    network(BACKEND, "shop_backend", "10.0.8.0/24", attachable=True),
    network(GWBRIDGE, "docker_gwbridge", "172.18.0.0/16", "local"),
    {"Name": "host", "Id": "h" * 64, "Scope": "local", "Driver": "host", "IPAM": {"Config": []}},
]


def port(published: int, target: int, protocol: str = "tcp", mode: str = "ingress") -> Json:
    return {
        "Protocol": protocol,
        "TargetPort": target,
        "PublishedPort": published,
        "PublishMode": mode,
    }


def service(id_: str, name: str, **more: Any) -> Json:
    """`vips`: network id → CIDR; `ports`, `networks` (of the task template), `labels`, `index`."""
    ports: Sequence[Json] = more.get("ports", ())
    vips: Mapping[str, str] = more.get("vips", {})
    asked = {"Mode": "vip", **({"Ports": [*ports]} if ports else {})}
    template = {"ContainerSpec": {"Image": "app"}}
    if "networks" in more:
        template["Networks"] = more["networks"]
    return {
        "ID": id_,
        "Version": {"Index": more.get("index", 20)},
        "Spec": {
            "Name": name,
            "Labels": more.get("labels", {}),
            "TaskTemplate": template,
            "EndpointSpec": asked,
        },
        "Endpoint": {
            "Spec": asked,
            **({"Ports": [*ports]} if ports else {}),
            "VirtualIPs": [{"NetworkID": id_, "Addr": addr} for id_, addr in vips.items()],
        },
    }


def dnsrr_service(id_: str, name: str, networks: Sequence[Json]) -> Json:
    """20.10 has nothing in the endpoint then."""
    return {
        "ID": id_,
        "Version": {"Index": 21},
        "Spec": {
            "Name": name,
            "Labels": {},
            "TaskTemplate": {"ContainerSpec": {"Image": "app"}, "Networks": [*networks]},
            "EndpointSpec": {"Mode": "dnsrr"},
        },
        "Endpoint": {"Spec": {}},
    }


def task(id_: str, service_id: str, node_id: str, **more: Any) -> Json:
    """`slot` 0: of a global service. `addresses`: network id → CIDR."""
    made: Json = {
        "ID": id_,
        "Version": {"Index": more.get("index", 30)},
        "Labels": {},
        "Spec": {"ContainerSpec": {"Image": "app"}},
        "ServiceID": service_id,
        "NodeID": node_id,
        "Status": {
            "State": more.get("state", "running"),
            "ContainerStatus": {"ContainerID": more.get("container", f"{id_}-container"), "PID": 1},
            "PortStatus": {},
        },
        "DesiredState": more.get("desired", "running"),
        "NetworksAttachments": [
            {"Network": {"ID": network, "Spec": {"Name": "n"}}, "Addresses": [address]}
            for network, address in more.get("addresses", {}).items()
        ],
    }
    if slot := more.get("slot", 0):
        made["Slot"] = slot
    if hostname := more.get("hostname", ""):
        made["Spec"]["ContainerSpec"]["Hostname"] = hostname
    return made


WEB = service(
    "webservice",
    "shop_web",
    vips={INGRESS: "10.0.0.35/24", BACKEND: "10.0.8.2/24"},
    networks=[{"Target": BACKEND, "Aliases": ["web"]}],
    ports=[port(80, 8080), port(9000, 9000, mode="host")],
    labels={"com.docker.stack.namespace": "shop"},
)
WEB_TASKS = [
    task(
        f"webtask{slot}",
        "webservice",
        where,
        slot=slot,
        addresses={INGRESS: f"10.0.0.{40 + slot}/24", BACKEND: f"10.0.8.{10 + slot}/24"},
    )
    for slot, where in ((1, MANAGER), (2, WORKER), (3, OTHER))
]


def container(id_: str, name: str, **more: Any) -> Json:
    """`networks`: name → endpoint JSON; `service`, `task`: ids for its labels."""
    labels = dict(more.get("labels", {}))
    if "task" in more:
        labels |= {
            "com.docker.swarm.service.id": more["service"],
            "com.docker.swarm.service.name": more.get("service_name", ""),
            "com.docker.swarm.task.id": more["task"],
        }
    running = more.get("running", True)
    return {
        "Id": id_,
        "Name": f"/{name}",
        "State": {"Status": "running" if running else "exited", "Running": running, "Pid": 1},
        "Config": {
            "Hostname": more.get("hostname", id_[:12]),
            "Labels": labels,
            **({"StopSignal": more["stop_signal"]} if "stop_signal" in more else {}),
        },
        "HostConfig": {"NetworkMode": more.get("mode", "default"), "Dns": more.get("dns")},
        "NetworkSettings": {
            "SandboxKey": more.get("sandbox", f"/var/run/docker/netns/{id_[:12]}"),
            "Networks": more.get("networks", {}),
        },
    }


def endpoint(network_id: str, address: str, **more: Any) -> Json:
    """As 20.10 has it; 25 and later add DNSNames, 28 GwPriority."""
    return {
        "IPAMConfig": {"IPv4Address": address},
        "Links": None,
        "Aliases": None,
        "NetworkID": network_id,
        "EndpointID": "e" * 64,
        "Gateway": "",
        "IPAddress": address,
        "IPPrefixLen": 24,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "DriverOpts": None,
        **more,
    }


WEB_CONTAINER = container(
    "webtask2-container",
    "shop_web.2.webtask2",
    service="webservice",
    service_name="shop_web",
    task="webtask2",
    networks={
        "shop_backend": endpoint(BACKEND, "10.0.8.12", Aliases=["webtask2-con"]),
        "ingress": endpoint(INGRESS, "10.0.0.42", Aliases=["webtask2-con"]),
    },
)


def gossip(json: Json, services: Mapping[str, Json]) -> Json:
    """A network as `inspect --verbose` has it."""
    return {**json, "Peers": [{"Name": "79a30b36471b", "IP": "192.168.2.61"}], "Services": dict(services)}


def gossip_service(vip: str, tasks: Mapping[str, tuple[str, str]], ports: Sequence[str] = ()) -> Json:
    """`tasks`: endpoint name → (address, address of its node)."""
    return {
        "VIP": vip,
        "Ports": [*ports],
        "LocalLBIndex": 295,
        "Tasks": [
            {"Name": name, "EndpointID": "e" * 64, "EndpointIP": address, "Info": {"Host IP": host}}
            for name, (address, host) in tasks.items()
        ],
    }


def entries_gossip(entries: Mapping[str, str]) -> Json:
    """The ingress network with the endpoints of the nodes on it: address of the node → of its entry."""
    tasks = [
        {"Name": "ingress-endpoint", "EndpointID": "e" * 64, "EndpointIP": address, "Info": {"Host IP": host}}
        for host, address in entries.items()
    ]
    return gossip(NETWORKS[0], {"": {"VIP": "<nil>", "Ports": [], "LocalLBIndex": 0, "Tasks": tasks}})


def attachment(node: str, network: str, address: str) -> Json:
    """The task that Swarm makes for a plain container on an attachable network (`runtime=attachment`)."""
    return {
        "ID": f"attachment-{node}",
        "Version": {"Index": 33},
        "Spec": {"NetworkAttachmentSpec": {"ContainerID": "c0ffee"}, "Runtime": "attachment"},
        "NodeID": node,
        "Status": {"State": "running"},
        "DesiredState": "running",
        "NetworksAttachments": [{"Network": {"ID": network}, "Addresses": [f"{address}/24"]}],
    }


def event(kind: str, action: str, id_: str, scope: str = "local", **attributes: str) -> Json:
    return {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": id_, "Attributes": attributes},
        "scope": scope,
        "time": 1795397200,
        "timeNano": 1795397200000000000,
    }
