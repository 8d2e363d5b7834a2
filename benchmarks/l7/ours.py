"""Our HTTP side as a program: a port in `mode: http`, or an entry point behind so many routers.

python -m benchmarks.l7.ours PORT APPLICATION ROUTERS [FOLDER]

ROUTERS: 0 for a port. FOLDER: where the certificate is, for an entry point with TLS.
"""

import asyncio
import gc
import signal
import sys

import uvloop

from mesh.balance.policies import Endpoint
from mesh.catalog.model import Network, Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change, Snapshot
from mesh.http.downstream.listener import HttpListener
from mesh.http.downstream.published_port import HttpPort
from mesh.http.routing.router import EntryPoint, RequestRouter
from mesh.http.runtime import HttpRuntime
from mesh.http.tls.certificate_store import TlsCertificates
from mesh.http.upstream.network_reach import OwnNamespace
from mesh.net.bound_listener import listen
from mesh.relay.tcp_connection import RelayOptions
from mesh.relay.tcp_port import plain_socket

LOOPBACK = "127.0.0.1"


async def serve(port: int, application: int, routers: int, folder: str) -> None:
    core, listener = HttpRuntime(), listen(LOOPBACK, port)
    opened: HttpPort | HttpListener
    if routers or folder:
        site = RequestRouter(core, OwnNamespace(plain_socket), (EntryPoint("web", bool(folder)),))
        site.start(_catalogue(application, max(1, routers)))
        context = None
        if folder:
            certificates = TlsCertificates(folder)
            certificates.refresh()
            context = certificates.context
        opened = HttpListener(core, listener, site.serving("web"), tls=context)
    else:
        opened = HttpPort(
            core, "web", listener, [Endpoint(LOOPBACK, application)], RelayOptions(), plain_socket
        )
    gc.freeze()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await opened.close()
    core.close()


def _catalogue(application: int, routers: int) -> Snapshot:
    """So many hosts; the last router is the one that the load's requests are for."""
    network = Network("net", "net", ("127.0.0.0/8",))
    services = {}
    for number in range(routers):
        name = f"s{number}"
        rule = f"Host(`h{number}.example`) && PathPrefix(`/`)" if number else f"Host(`{LOOPBACK}`)"
        services[name] = Service(
            name,
            name,
            networks=(ServiceNetwork("net"),),
            labels={
                f"traefik.http.routers.{name}.rule": rule,
                f"traefik.http.services.{name}.loadbalancer.server.port": str(application),
            },
            tasks=(Task(f"{name}.1", f"{name}.1", "here", TaskState.RUNNING, {"net": LOOPBACK}),),
        )
    return Snapshot().apply(Change(networks={"net": network}, services=services))


if __name__ == "__main__":
    uvloop.run(serve(*map(int, sys.argv[1:4]), sys.argv[4] if len(sys.argv) > 4 else ""))
