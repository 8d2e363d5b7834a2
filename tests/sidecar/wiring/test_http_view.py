"""What `mesh explain http` says of paths that servers read in different ways, by entry points' options."""

from collections.abc import AsyncIterator

import pytest

from mesh.catalog.model import Network, Service, ServiceNetwork
from mesh.catalog.snapshot import Change
from mesh.catalog.store import Store
from mesh.http.upstream.network_reach import OwnNamespace
from mesh.net.tasks import Tasks
from mesh.relay.tcp_port import plain_socket
from sidecar.config import Address, EntryPointAddress, Http
from sidecar.encoded_characters import Encoded
from sidecar.wiring.http import HttpEdge

ROUTER = "traefik.http.routers"
LABELS = {
    "traefik.http.services.app.loadbalancer.server.port": "80",
    f"{ROUTER}.app.rule": "Host(`a`)",
    f"{ROUTER}.admin.rule": "Host(`a`) && PathPrefix(`/admin`)",
}


@pytest.fixture
async def side() -> AsyncIterator[HttpEdge]:
    tasks = Tasks(lambda name, error: pytest.fail(f"{name}: {error!r}"))
    store = Store()
    config = Http(
        entrypoints=(
            EntryPointAddress("web", Address("127.0.0.1", 0)),
            EntryPointAddress("open", Address("127.0.0.1", 0)),
        ),
        encoded_characters={"open": Encoded(allowEncodedSlash=True)},
    )
    made = HttpEdge(config, tasks, store)
    made.start(OwnNamespace(plain_socket))
    service = Service("s1", "app", networks=(ServiceNetwork("n1"),), labels=LABELS)
    store.publish(Change(networks={"n1": Network("n1", "net")}, services={"s1": service}))
    yield made
    await made.close(0)
    made.stop()
    await tasks.close()


@pytest.mark.parametrize(
    ("path", "web", "other"),
    [
        ("/x?y=%2f", "app", "app"),
        ("/admin/%41", "admin", "admin"),
        ("/x/../admin", "admin", "admin"),
        ("/group%2fproject", "app", "app"),
        ("/%2fadmin", "a server could read the path as /admin", "app"),
        ("/x/..%2fadmin", "a hidden dot segment in the path", "a hidden dot segment in the path"),
        ("/x\\y", "a backslash in the path", "a backslash in the path"),
    ],
)
async def test_what_becomes_of_a_path(side: HttpEdge, path: str, web: str, other: str) -> None:
    told = side.telling.explain("a", path, "GET")
    for one, said in zip(told.entrypoints, (web, other), strict=True):
        if " " in said:
            assert one.note.startswith("400; ")
            assert said in one.note
            assert one.router == ""
        else:
            assert one.router == said
