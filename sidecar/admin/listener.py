"""Keeping an HTTP surface on its address, although somebody else may hold the port for a while.

The one that holds it is often our own predecessor, still draining: Swarm starts a task anew as soon as a node
is active again. So a taken port is told, and tried again until it is free.
"""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from mesh.net import proc
from mesh.net.tasks import Tasks
from mesh.telemetry import logs
from sidecar import status_model
from sidecar.admin.api import SurfaceServer
from sidecar.config import ListenAddress, UnixSocket

RETRY_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Surface:
    """One application in one place, from `start` to `stop`."""

    def __init__(
        self, name: str, app: Callable[[], web.Application], wanted: ListenAddress, tasks: Tasks
    ) -> None:
        self._name = name
        self._app = app  # made anew for each try: aiohttp freezes an application that was started
        self._wanted = wanted
        self._tasks = tasks
        self._server: SurfaceServer | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._fault = ""
        self.bound: ListenAddress = wanted

    def shown(self) -> status_model.ListenerView:
        return status_model.ListenerView(self._name, str(self.bound), self._fault)

    async def start(self) -> ListenAddress:
        """Try once; go on in the background if the port is taken. The address bound, or asked for."""
        if not await self._try():
            self._retrying = self._tasks.keep(self._retry, f"surface {self._name}")
        return self.bound

    async def stop(self) -> None:
        if self._retrying is not None:
            self._retrying.cancel()
        if self._server is not None:
            await self._server.stop()

    async def _retry(self) -> None:
        bound = False
        while not bound:
            await asyncio.sleep(RETRY_SECONDS)
            bound = await self._try()
        logs.event(logger, logging.INFO, "port free again", surface=self._name, address=str(self.bound))

    async def _try(self) -> bool:
        server = SurfaceServer(self._app(), self._wanted)
        try:
            self.bound = await server.start()
        except OSError as error:
            self._report(error)
            return False
        self._server, self._fault = server, ""
        return True

    def _report(self, error: OSError) -> None:
        holder = "" if isinstance(self._wanted, UnixSocket) else proc.listener_owner(self._wanted.port)
        fault = f"cannot listen: {error.strerror}" + (f", held by {holder}" if holder else "")
        if fault != self._fault:
            logs.event(logger, logging.ERROR, "port taken", surface=self._name, error=fault)
        self._fault = fault
