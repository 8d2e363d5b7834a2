"""Certificates of an authority put together: what other nodes are told depends on the catalogue of now."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.acme.messages import AcmeAccount
from mesh.catalog.model import Node, Role, Service
from mesh.catalog.snapshot import Change
from mesh.catalog.store import Store
from mesh.http.routing.router import EntryPoint, RequestRouter
from mesh.http.runtime import HttpRuntime
from mesh.http.tls.certificate_store import TlsCertificates
from mesh.http.upstream.network_reach import OwnNamespace
from mesh.net.tasks import Tasks
from mesh.relay.tcp_port import plain_socket
from sidecar.config import Acme, EntryPointAddress, parse_address
from sidecar.wiring.acme import AcmeService

ENTRIES = (
    EntryPointAddress("web", parse_address("127.0.0.1:1")),
    EntryPointAddress("websecure", parse_address("127.0.0.1:2"), True),
)
LABELS = {
    "traefik.http.routers.r.rule": "Host(`a.example`)",
    "traefik.http.routers.r.tls.certresolver": "le",
    "traefik.http.services.s.loadbalancer.server.port": "8080",
}


class Put:
    """Together, on a manager that does not lead: nothing is ordered."""

    def __init__(self, folder: Path, tasks: Tasks) -> None:
        self.store = Store()
        self.store.identify("here")
        self.publish(Role.MANAGER)
        directory = "https://127.0.0.1:1/directory"
        self.issuing = AcmeService(
            Acme(directory=directory), ENTRIES, str(folder / "state"), tasks, self.store
        )
        self.issuing._leads = lambda: False
        entries = tuple(EntryPoint(entry.name, entry.tls) for entry in ENTRIES)
        self.site = RequestRouter(HttpRuntime(100), OwnNamespace(plain_socket), entries)
        self.site.start(self.store.current)
        self.store.subscribe(self.site.update, "site")
        self.issuing.start(self.site, TlsCertificates(str(folder)))

    def publish(self, role: Role, *services: Service) -> None:
        nodes = {"here": Node("here", "here", "", role)}
        self.store.publish(Change(nodes=nodes, services={one.id: one for one in services}))


@pytest.fixture
async def put(tmp_path: Path) -> AsyncIterator[Put]:
    tasks = Tasks(lambda _name, error: pytest.fail(str(error)))
    made = Put(tmp_path, tasks)
    yield made
    await tasks.close()
    made.site.close()
    made.issuing.close()


async def test_names_that_routers_want_now(put: Put) -> None:
    assert put.issuing._wanted_names() == frozenset()
    service = Service("s1", "shop", labels=LABELS)
    waiting = put.issuing.kept.changed()
    put.publish(Role.MANAGER, service)
    assert put.issuing._wanted_names() == {"a.example"}
    assert waiting.is_set(), "who waits is told"
    put.publish(Role.MANAGER, replace(service, labels={}))
    assert put.issuing._wanted_names() == frozenset()
    assert put.issuing.kept.have_told().serving


async def test_a_node_that_is_demoted_forgets_the_account(put: Put) -> None:
    account = AcmeAccount("https://ca.example/acct/1", "{}", 10.0)
    await put.issuing.kept.set_account(account, "print")
    put.publish(Role.MANAGER)
    assert put.issuing.kept.account == account
    put.publish(Role.WORKER)
    assert put.issuing.kept.account is None
