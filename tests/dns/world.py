"""A small Swarm for the tests here: written once, varied per test with `dataclasses.replace`.

frontend (overlay)   web (VIP 10.1.0.2; tasks .3 .4), shop (dnsrr; tasks .5 .6)
backend  (internal)  db  (VIP 10.2.0.2; task .3)
own.net  (bridge)    tool, a plain container of this node
"""

from collections.abc import Iterable

from mesh.catalog.diff import difference
from mesh.catalog.model import (
    Attachment,
    Container,
    EndpointMode,
    Network,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change, Snapshot
from mesh.dns.scope import Scope

FRONTEND = Network("n1", "frontend")
BACKEND = Network("n2", "backend", internal=True)
OWN = Network("n3", "own.net", scope="local", driver="bridge")
INGRESS = Network("n0", "ingress", ingress=True)
NETWORKS = (FRONTEND, BACKEND, OWN, INGRESS)


def _container_id(task_name: str) -> str:
    return task_name.encode().hex()[::-1].ljust(64, "0")


def task(name: str, network: Network, address: str, state: TaskState = TaskState.RUNNING) -> Task:
    addresses = {network.id: address, INGRESS.id: f"10.0.0.{address.rpartition('.')[2]}"}
    return Task(
        f"id-{name}", name, "node", state, addresses, container=f"{name:x<12}full-id".replace(".", "0")
    )


WEB = Service(
    "s1",
    "shop_web",
    networks=(ServiceNetwork("n1", "10.1.0.2", ("web",)), ServiceNetwork("n0", "10.0.0.2")),
    tasks=(task("shop_web.1.aa", FRONTEND, "10.1.0.3"), task("shop_web.2.bb", FRONTEND, "10.1.0.4")),
)
SHOP = Service(
    "s2",
    "Shop",
    mode=EndpointMode.DNSRR,
    networks=(ServiceNetwork("n1"),),
    tasks=(task("Shop.1.cc", FRONTEND, "10.1.0.5"), task("Shop.2.dd", FRONTEND, "10.1.0.6")),
)
DB = Service(
    "s3",
    "db",
    networks=(ServiceNetwork("n2", "10.2.0.2"),),
    tasks=(task("db.1.ee", BACKEND, "10.2.0.3"),),
)
TOOL = Container(
    "c0ffee123456789",
    "tool",
    "/netns/tool",
    attachments=(
        Attachment("n3", "172.20.0.2", aliases=("helper",), address6="fd00::2", gateway=True),
        Attachment("n1", "10.1.0.9"),
    ),
    hostname="toolbox",
)
SERVICES = (WEB, SHOP, DB)


def of_stack(stack: str, network: Network, number: int, alias: str = "web") -> Service:
    """A service of the stack, as `stack deploy` makes it: VIP 10.N.0.NUMBER0, task 10.N.0.NUMBER1."""
    name, part = f"{stack}_{alias}", f"10.{network.id[1:]}.0.{number}"
    return Service(
        f"s-{name}-{network.id}",
        name,
        networks=(ServiceNetwork(network.id, f"{part}0", (alias,)),),
        labels={"com.docker.stack.namespace": stack},
        tasks=(task(f"{name}.1.t{network.id}", network, f"{part}1"),),
    )


BOTH = Scope(networks=(("n1", "frontend"), ("n2", "backend")))
FRONT = Scope(networks=(("n1", "frontend"),))
BACK = Scope(networks=(("n2", "backend"),), external=False)


def snapshot(
    services: Iterable[Service] = SERVICES,
    containers: Iterable[Container] = (TOOL,),
    networks: Iterable[Network] = NETWORKS,
) -> Snapshot:
    return Snapshot().apply(change_to(Snapshot(), services, containers, networks))


def change_to(
    old: Snapshot,
    services: Iterable[Service] = SERVICES,
    containers: Iterable[Container] = (TOOL,),
    networks: Iterable[Network] = NETWORKS,
) -> Change:
    return difference(
        old,
        networks={n.id: n for n in networks},
        services={s.id: s for s in services},
        containers={c.id: c for c in containers},
    )
