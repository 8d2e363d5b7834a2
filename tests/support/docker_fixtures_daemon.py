"""A Docker engine on a Unix socket that says what a test wants: everything above it is the real thing."""

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support import docker_fixtures as docker
from tests.support.docker_fixtures import BACKEND, GWBRIDGE, INGRESS, NETWORKS, NODES, WEB, WEB_TASKS, Json

NOT_A_MANAGER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. "
    "Please run this command on a manager node or promote the current node to a manager."
)
NO_LEADER = "rpc error: code = Unknown desc = The swarm does not have a leader."


class FakeDaemon:
    """Set the attributes, and send events."""

    def __init__(self, path: Path, node: str, manager: bool) -> None:
        self.path = str(path)
        self.node = node
        self.manager = manager
        self.quorum = True
        self.healthy = True  # otherwise /info fails
        self.slow = 0.0  # seconds that a list of tasks takes
        self.reads = 0  # of the tasks
        self.managers = {"127.0.0.1:2377": docker.MANAGER}
        self.containers: dict[str, Json] = {}
        self.networks: list[Json] = list(NETWORKS)
        self.gossip: dict[str, Json] = {}
        self.gateway: dict[str, str] = {}  # container id → address on docker_gwbridge
        self.nodes: list[Json] = list(NODES)
        self.services: list[Json] = [WEB]
        self.tasks: list[Json] = list(WEB_TASKS)
        self.methods: set[str] = set()  # of all requests
        self.attachments: list[Json] = []  # tasks of plain containers on attachable networks
        self.since: list[str] = []  # as the listeners asked
        self.hold = asyncio.Event()  # cleared: the cluster's lists wait
        self.hold.set()
        self.refused: dict[str, tuple[int, str]] = {}  # path → status and message
        self.silent: dict[str, asyncio.Event] = {}  # path → what its answer waits for
        self._listeners: set[asyncio.Queue[Json | None]] = set()
        self._runner: web.AppRunner | None = None

    # --- what a test does ---

    async def start(self) -> None:
        app = web.Application(middlewares=[self._noted])
        app.router.add_get("/version", self._version)
        app.router.add_get("/{api:v[0-9.]+}/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, self.path).start()

    async def stop(self) -> None:
        """The daemon ends: connections too."""
        self.end_events()
        self.hold.set()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            Path(self.path).unlink(missing_ok=True)

    def send(self, event: Json) -> None:
        """With the labels of the container that it is about, as engines do."""
        actor = event["Actor"]
        if event["Type"] == "container":
            known = self.containers.get(actor["ID"])
            labels = {} if known is None else known["Config"]["Labels"]
            event = {**event, "Actor": {**actor, "Attributes": {**labels, **actor["Attributes"]}}}
        for listener in self._listeners:
            listener.put_nowait(event)

    def end_events(self) -> None:
        for listener in self._listeners:
            listener.put_nowait(None)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def run(self, container: Json, address: str = "") -> None:
        """Start a container and tell."""
        self.containers[container["Id"]] = container
        if address:
            self.gateway[container["Id"]] = address
        self.send(docker.event("container", "start", container["Id"]))

    def end(self, id_: str) -> None:
        labels = self.containers.pop(id_)["Config"]["Labels"]
        self.send(docker.event("container", "die", id_, **labels))

    # --- what the engine answers ---

    @web.middleware
    async def _noted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.methods.add(request.method)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41", "Version": "20.10.24+dfsg1"})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        rest = request.match_info["rest"]
        if rest == "tasks" and "filters" in request.query:
            rest = "attachments"
        if rest in self.silent:
            await self.silent[rest].wait()
        if rest in self.refused:
            return _error(*self.refused[rest])
        if rest == "events":
            return await self._events(request)
        if rest in ("services", "tasks", "nodes", "attachments"):
            return await self._of_cluster(rest)
        if rest == "info" and not self.healthy:
            return _error(500, "out of memory")
        found = self._of_engine(rest, request)
        return _error(404, f"no such thing: {rest}") if found is None else web.json_response(found)

    async def _of_cluster(self, what: str) -> web.Response:
        await self.hold.wait()
        if what == "tasks":
            await asyncio.sleep(self.slow)
            self.reads += 1
        if not self.manager:
            return _error(503, NOT_A_MANAGER)
        if not self.quorum:
            return _error(500, NO_LEADER)
        return web.json_response(getattr(self, what))

    def _of_engine(self, rest: str, request: web.Request) -> Any:
        if rest == "info":
            return {"Swarm": self._swarm()}
        if rest == "networks":
            return self.networks
        if rest == "containers/json":
            return [{"Id": id_} for id_, one in self.containers.items() if one["State"]["Running"]]
        if rest.startswith("containers/"):
            return self.containers.get(rest.split("/")[1])
        return self._network(rest.split("/")[1], "verbose" in request.query)

    def _network(self, id_: str, verbose: bool) -> Json | None:
        if verbose:
            return self.gossip.get(id_)
        found = next((one for one in self.networks if one["Id"] == id_), None)
        if found is not None and id_ == GWBRIDGE:
            members = {one: {"IPv4Address": f"{address}/16"} for one, address in self.gateway.items()}
            return {**found, "Containers": members}
        return found

    def _swarm(self) -> Json:
        return {
            "NodeID": self.node,
            "NodeAddr": "192.168.2.61",
            "LocalNodeState": "active" if self.node else "inactive",
            "ControlAvailable": self.manager,
            "RemoteManagers": [{"NodeID": node, "Addr": address} for address, node in self.managers.items()],
        }

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self.since.append(request.query.get("since", ""))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"")
        waiting: asyncio.Queue[Json | None] = asyncio.Queue()
        self._listeners.add(waiting)
        try:
            while (event := await waiting.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            self._listeners.discard(waiting)
        return response


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


def gossip_of_web(*slots: int) -> dict[str, Json]:
    """What an engine hears of shop_web's tasks, on both of its networks."""
    nodes = {1: "192.168.2.60", 2: "192.168.2.61", 3: "192.168.2.62"}
    names = {slot: f"shop_web.{slot}.webtask{slot}" for slot in slots}
    on_backend = {names[slot]: (f"10.0.8.{10 + slot}", nodes[slot]) for slot in slots}
    on_ingress = {names[slot]: (f"10.0.0.{40 + slot}", nodes[slot]) for slot in slots}
    published = ["Target: 8080, Publish: 80"]
    return {
        BACKEND: docker.gossip(NETWORKS[1], {"shop_web": docker.gossip_service("10.0.8.2", on_backend)}),
        INGRESS: docker.gossip(
            NETWORKS[0], {"shop_web": docker.gossip_service("10.0.0.35", on_ingress, published)}
        ),
    }
