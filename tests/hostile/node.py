"""A node's sidecar as far as the catalogue goes: the real store and its real subscribers, on loopback.

A good service is there throughout: its name is resolved, its host is served over HTTP, its port is relayed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from dnslib import DNSRecord

from mesh.catalog.model import Network, Port, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.catalog.store import Store
from mesh.discovery.prober import Prober
from mesh.dns.config import DnsConfig
from mesh.dns.resolver import Resolver
from mesh.dns.scope import Scope
from mesh.http.downstream.listener import HttpListener
from mesh.http.routing.passthrough import TlsPassthrough
from mesh.http.routing.router import EntryPoint, RequestRouter
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.network_reach import OwnNamespace
from mesh.internal_errors import ERRORS
from mesh.kernel.flow_drain import Flows
from mesh.kernel.ingress_state import Published
from mesh.kernel.return_paths import ReturnPathRules
from mesh.kernel.rulesets import DnsPorts, container_rules, container_vips, ingress_rules
from mesh.labels.ports import Carrier
from mesh.net.bound_listener import listen
from mesh.net.tasks import Tasks
from mesh.relay.port_reconciler import RelayPorts
from mesh.relay.tcp_port import plain_socket
from tests.http.conftest import Conversation, routed, saying, serving

NET = Network("n1", "net", ("127.0.0.0/8",))
GOOD = "good"


class _NoNamespaces:
    """In place of the thread that goes into others."""

    async def run(self, _place: str | None, _work: Callable[[], Any]) -> int:
        return 0


class _Kernel:
    """The rules that would be loaded, as text."""

    def __init__(self) -> None:
        self._published = Published(this_node="here")

    def update(self, _old: Snapshot, new: Snapshot, change: Change) -> None:
        for id_, service in change.services.items():
            self._published.set_service(id_, service, new.ingress_network())
        wanted = self._published.everything("10.0.0.9", new.nodes)
        ingress_rules(wanted.targets, "172.18.0.2", "eth0", False, wanted.kept)
        for container in new.containers.values():
            by_service = container_vips(container, new)
            vips = {vip: choice for found in by_service.values() for vip, choice in found.items()}
            container_rules(vips, DnsPorts(53, 53))


class Node:
    def __init__(self, stack: AsyncExitStack, port: int) -> None:
        loop = asyncio.get_running_loop()
        self.port = port
        self.tasks = Tasks(lambda name, error: ERRORS.report(f"task {name}", error))
        stack.push_async_callback(self.tasks.close)
        self.store = Store(later=lambda seconds, step: loop.call_later(seconds, step))
        self.store.identify("here")
        core = HttpRuntime()
        stack.callback(core.close)
        self.resolver = Resolver(DnsConfig(upstreams=("127.0.0.1:1",)), self.tasks)
        reach = OwnNamespace(plain_socket)
        self.site = RequestRouter(core, reach, (EntryPoint("web"), EntryPoint("websecure", tls=True)))
        self.front = HttpListener(core, listen("127.0.0.1", 0), self.site.serving("web"))
        stack.push_async_callback(self.front.close)
        passing = TlsPassthrough(core, reach, ["websecure"])
        worker: Any = _NoNamespaces()
        flows = Flows(self.tasks, worker)
        stack.push_async_callback(flows.close)
        self.relay = RelayPorts(self.tasks, listen_address="127.0.0.1", default=Carrier.PROXY)
        stack.push_async_callback(self.relay.close)
        returning = ReturnPathRules(self.tasks, worker, lambda: None)
        stack.push_async_callback(returning.close)
        self.prober = Prober(self.tasks, lambda _unwell: None)
        stack.push_async_callback(self.prober.close)
        nothing = Snapshot(this_node="here")
        for part in (self.relay, flows, returning, self.prober):
            part.start(nothing)
        subscribe = self.store.subscribe
        subscribe(self.resolver.update, "dns", self.resolver.restart, begin=True)
        subscribe(flows.update, "flows", flows.restart, begin=True)
        subscribe(self.relay.update, "relay", begin=True)
        subscribe(returning.update, "return-paths", begin=True)
        subscribe(_Kernel().update, "kernel", begin=True)
        subscribe(self.prober.update, "prober", self.prober.restart, begin=True)
        subscribe(self.site.update, "http", self.site.restart, begin=True)
        subscribe(passing.update, "tls-passthrough", passing.restart, begin=True)

    async def settle(self) -> None:
        """Everything published so far has been worked off, and who fails has been brought up again."""
        await self.relay.settled()
        async with asyncio.timeout(10):
            while not all(one.up for one in self.store.subscriptions):
                await asyncio.sleep(0)

    # --- the good service ---

    def name(self) -> list[str]:
        """What its name resolves to."""
        scope = Scope(networks=((NET.id, NET.name),))
        reply = self.resolver.handle(
            bytes(DNSRecord.question(GOOD).pack()), scope, tcp=False, respond=lambda _: None
        )
        assert isinstance(reply, bytes)
        return [str(one.rdata) for one in DNSRecord.parse(reply).rr]

    async def answers(self) -> None:
        """By its name, its host and its port."""
        assert self.name() == ["127.0.0.200"]
        for address in (self.front.address, ("127.0.0.1", self.port)):
            one = Conversation(*await asyncio.open_connection(*address))
            await one.say("GET /x HTTP/1.1\r\nHost: good.example\r\nConnection: close\r\n\r\n")
            assert (await one.response())[::2] == (200, b"good /x")
            one.close()


@asynccontextmanager
async def a_node() -> AsyncIterator[Node]:
    ERRORS.clear()
    async with AsyncExitStack() as stack:
        task = await stack.enter_async_context(serving(saying("good")))
        with listen("127.0.0.1", 0) as free:
            port = free.getsockname()[1]
        node = Node(stack, port)
        address, target = task.endpoint.address, task.endpoint.port
        good = Service(
            GOOD,
            GOOD,
            networks=(ServiceNetwork(NET.id, "127.0.0.200"),),
            ports=(Port(port, target),),
            labels=routed("good", "Host(`good.example`)", target),
            tasks=(Task("g1", "good.1", "here", TaskState.RUNNING, {NET.id: address}),),
        )
        node.store.publish(Change(networks={NET.id: NET}, services={GOOD: good}))
        await node.settle()
        await node.answers()
        yield node
