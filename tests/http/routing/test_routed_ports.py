"""Which ports other nodes may reach through a tunnel: those that labels give to layer 7."""

from dataclasses import replace

import pytest

from mesh.catalog.model import Network, Port, Service, ServiceNetwork
from mesh.catalog.snapshot import Change, Snapshot
from mesh.http.routing.routed_ports import RoutedPorts

NETWORKS = {
    one.id: one
    for one in (
        Network("n1", "net", ("10.1.0.0/24",)),
        Network("n2", "other", ("10.2.0.0/24",)),
        Network("in", "ingress", ingress=True),
    )
}
ON = (ServiceNetwork("n1", "10.1.0.2"), ServiceNetwork("n2", "10.2.0.2"))


def service(name: str, *labels: str, ports: tuple[Port, ...] = ()) -> Service:
    pairs = dict(one.partition("=")[::2] for one in labels)
    return Service(f"id-{name}", name, networks=ON, ports=ports, labels=pairs)


def snapshot(*services: Service) -> Snapshot:
    return Snapshot().apply(Change(networks=NETWORKS, services={one.id: one for one in services}))


def served(*services: Service, of: str = "", exposed: bool = True) -> set[tuple[str, int]]:
    """(network, port) of this service."""
    now, routed = snapshot(*services), RoutedPorts(exposed)
    wanted = next(one for one in services if one.name == (of or services[0].name))
    ports = (80, 443, 5432, 8080, 8081, 9000)
    return {(n, port) for n in NETWORKS for port in ports if routed.serves(now, wanted, n, port)}


ROUTER = "traefik.http.routers.r.rule=Host(`a.example`)"
PORT = "traefik.http.services.s.loadbalancer.server.port=8080"
EVERYWHERE = {("n1", 8080), ("n2", 8080)}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((), set()),
        (("com.example.port=8080",), set()),
        ((ROUTER, PORT), EVERYWHERE),
        ((PORT,), EVERYWHERE),  # Traefik makes a router for it
        ((ROUTER, PORT, "traefik.swarm.network=net"), {("n1", 8080)}),
        ((ROUTER, PORT, "traefik.enable=false"), set()),
        ((ROUTER, PORT, "mesh.enable=false"), set()),
        (("mesh.http.rule=Host(`a.example`)", "mesh.http.port=8080"), EVERYWHERE),
        (
            (ROUTER, PORT, "traefik.http.services.s.loadbalancer.healthcheck.port=8081"),
            EVERYWHERE | {("n1", 8081), ("n2", 8081)},
        ),
        (
            (ROUTER, "traefik.http.routers.r.service=t", PORT,
             "traefik.http.services.t.loadbalancer.server.port=8081"),
            {("n1", 8081), ("n2", 8081)},
        ),
        (("traefik.tcp.services.s.loadbalancer.server.port=5432",), set()),
    ],
)  # fmt: skip
def test_what_labels_say(labels: tuple[str, ...], expected: set[tuple[str, int]]) -> None:
    assert served(service("web", *labels)) == expected


def test_unless_it_is_exposed() -> None:
    assert served(service("web", ROUTER, PORT), exposed=False) == set()


def test_a_published_port_of_mode_http() -> None:
    ports = (Port(80, 8080), Port(5432, 5432))
    assert served(service("web", "mesh.port.80.mode=http", ports=ports)) == EVERYWHERE
    assert served(service("web", ports=ports)) == set()


def test_what_a_router_names_of_others() -> None:
    auth = replace(service("auth"), networks=(ServiceNetwork("n1", None, ("authority",)), ON[1]))
    pages = service("pages", PORT.replace(".s.", ".pages."))
    web = service(
        "web",
        ROUTER,
        PORT,
        "traefik.http.routers.r.middlewares=a,e",
        "traefik.http.middlewares.a.forwardauth.address=http://authority:9000/verify",
        "traefik.http.middlewares.e.errors.status=500",
        "traefik.http.middlewares.e.errors.service=pages",
        "traefik.http.middlewares.e.errors.query=/x",
    )
    assert served(web, auth, pages, of="auth") == {("n1", 9000), ("n2", 9000)}
    assert served(web, auth, pages, of="pages") == EVERYWHERE
    assert served(auth) == set()


def test_it_follows_the_catalogue() -> None:
    routed, web, auth = RoutedPorts(), service("web", ROUTER, PORT), service("auth")
    asking = service(
        "asking", ROUTER, PORT, "traefik.http.middlewares.a.forwardauth.address=http://auth:9000/"
    )
    now = snapshot(web, auth)
    assert routed.serves(now, web, "n1", 8080)
    assert not routed.serves(now, auth, "n1", 9000)
    now = now.apply(Change(services={asking.id: asking}))
    assert routed.serves(now, auth, "n1", 9000)
    plain = replace(web, labels={})
    now = now.apply(Change(services={asking.id: None, web.id: plain}))
    assert not routed.serves(now, auth, "n1", 9000)
    assert not routed.serves(now, plain, "n1", 8080)
    assert not routed.serves(now.apply(Change(services={web.id: None})), web, "n1", 8080)
