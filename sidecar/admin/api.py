"""The HTTP surfaces: what anybody may scrape, and what only this machine may ask.

Strategy: two aiohttp applications over one `State`, which is asked per request and never remembered. The
metrics application may face the network: numbers and readiness, no names from the catalogue but services'.
The admin application tells everything, so it listens on a unix socket that only the sidecar's own user can
open, and over TCP only where that is configured, on loopback. It refuses what a browser could be tricked
into: a Host that is not loopback (DNS rebinding), and every method that could change anything.
"""

import asyncio
import ipaddress
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Protocol

from aiohttp import web

from mesh.catalog import codec
from mesh.catalog.model import Service
from mesh.catalog.snapshot import Snapshot
from mesh.errors import Busy
from mesh.net.limits.connection_guard import ConnectionGuard, GuardLimits
from mesh.net.netns import Namespace
from mesh.parsing import is_int, parse_port, shown
from mesh.telemetry.explain import PortPath, ServicePath
from mesh.telemetry.metrics import MetricsReading, exposition
from mesh.telemetry.redaction import redact, redact_labels
from sidecar import status_model
from sidecar.admin import html, tables
from sidecar.config import Address, ListenAddress, UnixSocket

KEEPALIVE = 30.0  # seconds an idle scraper's connection is kept: twice the usual scrape interval
SHUTDOWN = 1.0  # seconds that requests under way get at the end
# Scrapers have one connection each. Whoever says nothing must not keep them out.
LIMITS = GuardLimits(connections=256, per_address=32, first=10.0, next=KEEPALIVE)
BACKLOG = 128  # connections waiting to be accepted
MAX_PORT = 65_535
MAX_NAME = 255  # characters of a name to resolve, as in DNS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminState(Protocol):
    """What the surfaces ask of the running sidecar. Called on its loop; must not block."""

    @property
    def snapshot(self) -> Snapshot: ...

    def status(self) -> status_model.StatusReport: ...

    def routes(self) -> status_model.Routes: ...

    def left_out(self, service: Service) -> Mapping[str, str]:
        """Endpoints of it (address and port) that get nothing new from this node for now, and why."""
        ...

    def unready(self) -> Sequence[str]:
        """Why the node should not be relied on yet; nothing when it may be."""
        ...

    async def reading(self) -> MetricsReading:
        """Copies: it is rendered in another thread while counting goes on."""
        ...

    async def resolve(self, name: str, type_: str, asker: str) -> status_model.Resolution:
        """`asker`: name or id of a container of this node, "" for the node itself. Raises LookupError with
        a sentence when there is no such asker, or no such type."""
        ...

    async def explain_port(self, published: int, protocol: str) -> Sequence[PortPath]:
        """`protocol` "": all. Raises LookupError with a sentence when nobody publishes it; Busy."""
        ...

    async def explain_service(self, name: str) -> ServicePath:
        """Raises LookupError with a sentence when there is none; Busy."""
        ...

    def explain_http(self, host: str, path: str, method: str) -> status_model.HttpExplained:
        """Raises LookupError with a sentence when there is no entry point."""
        ...


class SurfaceServer:
    """An application in one place. `start` raises OSError when that cannot be bound."""

    def __init__(self, app: web.Application, place: ListenAddress) -> None:
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, keepalive_timeout=KEEPALIVE, shutdown_timeout=SHUTDOWN
        )
        self._place = place
        self._over_unix: asyncio.Server | None = None

    async def start(self) -> ListenAddress:
        """Bind and serve. The place that was bound (another port than asked for if that was 0)."""
        return await self.serve(bind(self._place))

    async def serve(self, listener: socket.socket) -> ListenAddress:
        """Serve on this socket, which `bind` has opened. The place that it is bound to."""
        await self._runner.setup()
        assert self._runner.server is not None
        if isinstance(self._place, UnixSocket):
            loop = asyncio.get_running_loop()
            self._over_unix = await loop.create_unix_server(
                self._runner.server, sock=listener, backlog=BACKLOG
            )
            return self._place
        ConnectionGuard(LIMITS).attach(self._runner.server)
        await web.SockSite(self._runner, listener, backlog=BACKLOG).start()
        host, port, *_ = listener.getsockname()
        return Address(host, port)

    async def stop(self) -> None:
        if self._over_unix is not None and isinstance(self._place, UnixSocket):
            self._over_unix.close()
            with suppress(FileNotFoundError):
                os.unlink(self._place.path)
        await self._runner.cleanup()


def bind(place: ListenAddress) -> socket.socket:
    """A socket there, which nobody listens on yet. OSError when the place cannot be had."""
    if isinstance(place, UnixSocket):
        return private_socket(place.path)
    return Namespace(None).tcp_listener(place.host, place.port, BACKLOG)


def private_socket(path: str) -> socket.socket:
    """A unix socket at the path that only this user can connect to (mode 0600). Its folder is made where it
    is missing, for this user alone.

    One that a process before us has left is replaced; one that still answers is somebody's: OSError
    (EADDRINUSE), as for everything else that keeps it from being bound.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        os.fchmod(made.fileno(), 0o600)  # before bind: the file has this mode from its first moment (Linux)
        if _left_behind(path):
            os.unlink(path)
        made.bind(path)
    except OSError:
        made.close()
        raise
    return made


def _left_behind(path: str) -> bool:
    """Is it a socket that nobody listens on any more?"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return stat.S_ISSOCK(os.lstat(path).st_mode)
        except OSError:
            return False  # it is not there, or is another thing: `bind` will say
    return False


def metrics_app(state: AdminState) -> web.Application:
    """/metrics, /healthz (the loop answers), /readyz (names are answered, listeners are bound)."""

    async def metrics(request: web.Request) -> web.Response:
        reading = await state.reading()
        body, content_type = await asyncio.to_thread(exposition, reading, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reasons = list(state.unready())
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    app = web.Application(middlewares=[_read_only])
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


def admin_app(state: AdminState) -> web.Application:
    """The JSON API and the status page."""
    app = web.Application(middlewares=[_read_only, _loopback_host, _for_browsers])
    app.add_routes(
        [
            web.get("/", _page(state)),
            web.get("/v1/status", _status(state)),
            web.get("/v1/catalog", _catalog(state)),
            web.get("/v1/services", _catalog(state, "services")),
            web.get("/v1/networks", _catalog(state, "networks")),
            web.get("/v1/nodes", _catalog(state, "nodes")),
            web.get("/v1/routes", _routes(state)),
            web.get("/v1/endpoints/{service}", _endpoints(state)),
            web.get("/v1/resolve", _resolve(state)),
            web.get("/v1/explain/port/{port}", _explain_port(state)),
            web.get("/v1/explain/service/{service}", _explain_service(state)),
            web.get("/v1/explain/http", _explain_http(state)),
        ]
    )
    return app


# --- handlers -----------------------------------------------------------------------------------------------


def _routes(state: AdminState) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return _json(asdict(state.routes()))

    return handle


def _page(state: AdminState) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        document = asdict(state.status())
        text = html.render(f"mesh on {document['node']}", tables.status(document))
        return web.Response(text=redact(text), content_type="text/html")

    return handle


def _status(state: AdminState) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return _json(asdict(state.status()))

    return handle


def _catalog(state: AdminState, part: str | None = None) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        document = await asyncio.to_thread(_dump, state.snapshot)  # a snapshot may be read anywhere
        return web.json_response(document if part is None else {part: document.get(part, {})})

    return handle


def _endpoints(state: AdminState) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        name = request.match_info["service"]
        snapshot = state.snapshot
        service = snapshot.service_named(name)
        if service is None:
            return _error(404, f"no service '{name}'")
        shown = _without_secrets(codec.dump_service(service, snapshot))
        document: dict[str, object] = {"services": {service.name: shown}}
        if left_out := state.left_out(service):
            document["left_out"] = dict(left_out)
        return web.json_response(document)

    return handle


def _resolve(state: AdminState) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        if not 0 < len(name) <= MAX_NAME:
            return _error(400, f"name must have 1 to {MAX_NAME} characters")
        try:
            found = await state.resolve(
                name, request.query.get("type", "A").upper(), request.query.get("from", "")
            )
        except LookupError as error:
            return _error(404, str(error.args[0]))
        return _json(asdict(found))

    return handle


def _explain_port(state: AdminState) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        number = request.match_info["port"]
        if not is_int(number, 1, MAX_PORT):
            return _error(400, f"{shown(number)} is no port: 1 to {MAX_PORT}")
        try:
            paths = await state.explain_port(parse_port(number), request.query.get("protocol", ""))
        except LookupError as error:
            return _error(404, str(error.args[0]))
        except Busy as error:
            return _error(503, str(error))
        return _json({"ports": [asdict(path) for path in paths]})

    return handle


def _explain_http(state: AdminState) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        host, path = request.query.get("host", ""), request.query.get("target", "/")
        if not host or len(host) > MAX_NAME or not path.startswith("/"):
            return _error(400, "?host= and a ?target= that begins with / are needed")
        try:
            found = state.explain_http(host, path, request.query.get("method", "GET").upper())
        except LookupError as error:
            return _error(404, str(error.args[0]))
        return _json(asdict(found))

    return handle


def _explain_service(state: AdminState) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        try:
            path = await state.explain_service(request.match_info["service"])
        except LookupError as error:
            return _error(404, str(error.args[0]))
        except Busy as error:
            return _error(503, str(error))
        return _json(asdict(path))

    return handle


def _dump(snapshot: Snapshot) -> dict[str, Any]:
    """The catalogue as its file, without the secrets in labels."""
    document = codec.dump(snapshot)
    for part in ("services", "containers"):
        entities = document.get(part) or {}
        for one in entities.values() if isinstance(entities, dict) else entities:
            _without_secrets(one)
    return document


def _without_secrets(entity: dict[str, Any]) -> dict[str, Any]:
    if labels := entity.get("labels"):
        entity["labels"] = redact_labels(labels)
    return entity


def _json(document: object, status: int = 200) -> web.Response:
    """What a label or a client has said may stand in any text of it."""
    return web.json_response(text=redact(json.dumps(document)), status=status)


def _error(status: int, message: str) -> web.Response:
    return _json({"error": message}, status)


# --- guards -------------------------------------------------------------------------------------------------


@web.middleware
async def _read_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method not in ("GET", "HEAD"):
        return _error(405, "only GET is answered here")
    return await handler(request)


@web.middleware
async def _loopback_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not is_loopback_host(request.headers.get("Host", "")):
        return _error(403, "the admin API answers only on a loopback address or as localhost")
    return await handler(request)


@web.middleware
async def _for_browsers(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    response.headers["Content-Security-Policy"] = html.CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response


def is_loopback_host(host: str) -> bool:
    """Does a Host header name this machine without the help of DNS?"""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
