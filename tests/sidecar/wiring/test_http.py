"""The HTTP side put together: what it tells of labels that do not fit the node's configuration."""

import pytest

from mesh.catalog.model import Network, Service, ServiceNetwork
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.http.upstream.network_reach import OwnNamespace
from mesh.net.tasks import Tasks
from mesh.relay.tcp_port import plain_socket
from sidecar.config import Address, EntryPointAddress, Http
from sidecar.wiring.http import HttpEdge

MIDDLEWARE = "traefik.http.middlewares.m"


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",)])
@pytest.mark.parametrize(
    ("labels", "needs"),
    [
        ({"ipallowlist.sourcerange": "10.0.0.0/8", "ipallowlist.ipstrategy.depth": "1"}, True),
        ({"ratelimit.average": "1", "ratelimit.sourcecriterion.ipstrategy.excludedips": "10.0.0.1"}, True),
        ({"inflightreq.amount": "1", "inflightreq.sourcecriterion.ipstrategy.depth": "1"}, True),
        ({"ipallowlist.sourcerange": "10.0.0.0/8"}, False),
        ({"compress": "true"}, False),
    ],
)
async def test_addresses_that_nobody_may_name(
    trusted: tuple[str, ...], labels: dict[str, str], needs: bool
) -> None:
    failures: list[BaseException] = []
    tasks, store = Tasks(lambda _name, error: failures.append(error)), Store(failures.append)
    side = HttpEdge(Http((EntryPointAddress("web", Address("127.0.0.1", 0)),), trusted=trusted), tasks, store)
    side.start(OwnNamespace(plain_socket))
    service = Service(
        "s",
        "shop_web",
        networks=(ServiceNetwork("n"),),
        labels={
            "traefik.http.routers.r.rule": "Host(`a`)",
            "traefik.http.routers.r.middlewares": "m",
            "traefik.http.services.r.loadbalancer.server.port": "80",
        }
        | {f"{MIDDLEWARE}.{option}": value for option, value in labels.items()},
    )
    store.publish(Change(networks={"n": Network("n", "n")}, services={"s": service}))
    told = [
        (one.file, one.key) for one in side.telling.problems(store.current) if "http.trusted" in one.message
    ]
    named = [("shop_web", "traefik.http.routers.r.middlewares")]
    assert told == (named if needs and not trusted else [])
    await side.close(0)
    side.stop()
    await tasks.close()
    assert failures == []


async def test_a_restart_of_the_counts_forgets_services_that_are_gone() -> None:
    failures: list[BaseException] = []
    tasks, store = Tasks(lambda _name, error: failures.append(error)), Store(failures.append)
    side = HttpEdge(Http(), tasks, store)
    for service in ("here", "gone", ""):  # "": what belongs to no service
        side.core.stats_of(service)
    side._forget_all_gone(Snapshot().apply(Change(services={"here": Service("here", "here")})))
    assert set(side.core.stats) == {"here", ""}
    side.stop()
    await tasks.close()
    assert failures == []
